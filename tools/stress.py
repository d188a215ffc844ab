"""Use the public runtime at random, with re-entrant Python in the middle of operations.

Two threads each own a *world*: memories, tables, globals, segments, instances, host functions, and
compiled modules with imports. Operations are drawn at random. Destructors, limiters, signal
handlers and host functions re-enter the same world: they grow, write, close, raise, collect,
fork, and switch greenlets where greenlet is installed. After each operation sizes are compared with
a model; at the end of each world every externref must be gone.

``python tools/stress.py [SECONDS] [SEED] [raise]`` prints the seed, and how many operations of
each kind it made, and how many of these in the middle of another one. With ``raise`` three in ten
signal handlers raise, wherever they come.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import importlib
import os
import random
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import asm_libcalls
import stress_code
from asm_libcalls import ElementSegment, Global, HostFunction, Instance, Memory, Table, VMExternRef
from asm_libcalls.runtime import externref_boxes

greenlet: Any = None
with contextlib.suppress(ImportError):
    greenlet = importlib.import_module("greenlet")

if TYPE_CHECKING:
    from collections.abc import Callable

Expected = (ValueError, RuntimeError, IndexError, asm_libcalls.Trap)
DEPTH = 3
"""How deep operations are nested."""


class Planned(Exception):
    """An exception that a host function, a limiter or a destructor raises on purpose."""


class Struck(BaseException):
    """What a signal handler raises; only the loop of a thread catches it."""


# (module
#   (import "m" "h" (func (param externref) (result externref)))
#   (memory 1 8) (table (export "table") 2 16 externref)
#   (func (export "pass") (param externref) (result externref) local.get 0 call 0)
#   (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
#   (func (export "load") (param i32) (result i32) local.get 0 i32.load)
#   (func (export "put") (param externref) i32.const 0 local.get 0 table.set 0)
#   (func (export "take") (result externref) i32.const 0 table.get 0))
WASM = bytes.fromhex(
    "0061736d0100000001130460016f016f60017f017f60016f006000016f020701016d01680000030605000101"
    "02030405016f010210050401010108072b06047061737300010467726f770002046c6f616400030370757400"
    "040474616b650005057461626c6501000a27050600200010000b0600200040000b070020002802000b080041"
    "00200026000b0600410025000b"
)


class World:
    """The objects of one thread, with a model of their sizes."""

    def __init__(self, stress: Stress, chance: random.Random) -> None:
        self.stress, self.chance = stress, chance
        self.thread = threading.get_ident()
        self.depth = 0
        self.calm = True  # signal handlers do not raise
        self.struck = False  # one did, maybe in a destructor: the sizes are not known
        self.values: list[Any] = ["text", 5, None]
        self.tables = [Table("externref", 4, 4000, limiter=self.limit) for _ in range(2)]
        self.memory = Memory(1, 40, limiter=self.limit)
        self.growths = {id(each): [4] for each in self.tables} | {id(self.memory): [1]}
        self.global_ = Global("externref", "first", True)
        self.instance = Instance(
            [self.memory],
            self.tables,
            [self.global_],
            data=[b"passive data"],
            elements=[ElementSegment("externref", ["a", self.guest(), "b"])],
        )
        self.reference = VMExternRef("a value")
        self.host = HostFunction(self.called, "(i64, f64) -> i64")
        self.enter = asm_libcalls.catch_traps(self.host.address, self.host.signature)
        self.compiled: Any = None
        if stress.module is not None:
            from asm_libcalls import toy_jit

            self.compiled = toy_jit.Instance(stress.module, {"m": {"h": self.passed}})
            # CPython 3.13 without the GIL keeps exports, and so what they belong to, for ever.
            self.compiled_table = self.compiled.exports["table"]

    def guest(self) -> Any:
        """Return an object whose destructor re-enters this world."""
        world = self

        class Guest:
            def __del__(self) -> None:
                world.intrude("destructor")

        guest: Any = Guest()
        if self.chance.random() < 0.3:
            guest.itself = guest  # so that a collection finds it
        return guest

    def limit(self, current: int, desired: int, maximum: int | None) -> bool:
        """Decide about a growth, after another operation."""
        self.intrude("limiter")
        if self.chance.random() < 0.03:
            raise Planned
        return self.chance.random() < 0.9

    def called(self, number: int, real: float) -> int:
        """Be called by native code."""
        self.intrude("host function")
        if self.chance.random() < 0.1:
            raise Planned
        return number

    def passed(self, value: Any) -> Any:
        """Be called by compiled code."""
        self.intrude("import")
        if greenlet is not None and self.chance.random() < 0.2:
            greenlet.greenlet(lambda: self.intrude("greenlet")).switch()
        return value if self.chance.random() < 0.8 else self.guest()

    def intrude(self, where: str) -> None:
        """Do an operation in the middle of another one.

        Not in another thread, whose collection may find an object of this world: a store is used by
        one thread at a time, and so is the model.
        """
        if threading.get_ident() != self.thread:
            self.stress.intrusions[f"{where} in another thread, not used"] += 1
        elif self.depth < DEPTH and not self.stress.ends:
            self.stress.intrusions[where] += 1
            self.operate()

    def operate(self) -> None:
        """Do one operation, and compare with the model."""
        name = self.chance.choice(NAMES)
        self.depth += 1
        try:
            self.stress.counts[name] += 1
            if self.depth > 1:
                self.stress.inner[name] += 1
            OPERATIONS[name](self)
        except (Planned, *Expected, MemoryError) as error:
            self.stress.errors[type(error).__name__] += 1
        finally:
            self.depth -= 1
        if self.depth == 0:
            self.check()

    def check(self) -> None:
        """Compare the sizes; nothing may come in between."""
        if self.struck:
            self.recover()
            return
        self.depth += DEPTH
        for table in self.tables:
            if not table.closed:
                assert len(table) == sum(self.growths[id(table)]), (table, self.growths)
        if not self.memory.closed:
            assert self.memory.size == sum(self.growths[id(self.memory)]), self.memory
        self.depth -= DEPTH

    def recover(self) -> None:
        """Go on after an operation that a signal handler ended: it may have been done or not."""
        self.depth = DEPTH
        self.struck = False
        for it in (*self.tables, self.memory):
            if not it.closed:
                self.growths[id(it)] = [it.current_size()]
        self.depth = 0

    def grow(self, it: Any, delta: int, *value: Any) -> None:
        """Grow something, and note it."""
        if it.grow(delta, *value) >= 0:
            self.growths[id(it)].append(delta)

    def libcall(self, name: str, *arguments: Any) -> Any:
        """Call a libcall."""
        return asm_libcalls.LIBCALLS[name](self.instance, *arguments)

    def end(self) -> None:
        """Close everything, in any order."""
        stress_code.close_all(self)
        parts: list[Any] = [
            self.host,
            self.instance,
            *self.tables,
            self.memory,
            self.global_,
            self.reference,
        ]
        if self.compiled is not None:
            parts += [self.compiled, self.compiled_table]
        self.chance.shuffle(parts)
        for part in parts:
            with contextlib.suppress(Planned, *Expected):
                part.close()
            assert part.closed
        self.compiled = None


def _table(w: World) -> Table:
    return w.chance.choice(w.tables)


def _small(w: World) -> int:
    return w.chance.randrange(5)


def _value(w: World) -> Any:
    return w.guest() if w.chance.random() < 0.5 else w.chance.choice(w.values)


def _fork(w: World) -> None:
    if w.chance.random() > 0.02 or threading.current_thread() is not threading.main_thread():
        return
    before, w.calm = w.calm, True
    try:
        _fork_and_wait(w)
    finally:
        w.calm = before


def _fork_and_wait(w: World) -> None:
    child = os.fork()
    if not child:
        w.stress.ends, w.stress.rings = True, False
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            w.end()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0, "the forked child failed"


def _close(w: World) -> None:
    if w.chance.random() < 0.01:
        parts: list[Any] = [*w.tables, w.memory, w.global_, w.instance, w.host]
        w.chance.choice(parts).close()


def _close_compiled(w: World) -> None:
    if w.chance.random() < 0.01 and w.compiled is not None:
        w.compiled.close()


def _call_compiled(w: World, name: str, *arguments: Any) -> Any:
    return None if w.compiled is None else w.compiled.exports[name](*arguments)


def _grow_table(w: World) -> None:
    if w.libcall("table_grow", 0, 2, w.reference) != 0xFFFFFFFF:
        w.growths[id(w.tables[0])].append(2)


def _grow_memory(w: World) -> None:
    if w.libcall("memory32_grow", 1, 0) != 0xFFFFFFFF:
        w.growths[id(w.memory)].append(1)


OPERATIONS: dict[str, Callable[[World], Any]] = {
    "table get": lambda w: _table(w)[_small(w)],
    "table set": lambda w: _table(w).__setitem__(_small(w), _value(w)),
    "table list": lambda w: [*_table(w)],
    "table grow": lambda w: w.grow(_table(w), _small(w), _value(w)),
    "memory grow": lambda w: w.grow(w.memory, w.chance.randrange(2)),
    "memory view": lambda w: memoryview(w.memory)[:8].tobytes(),
    "global get": lambda w: w.global_.value,
    "global set": lambda w: setattr(w.global_, "value", _value(w)),
    "table_grow": _grow_table,
    "table_fill": lambda w: w.libcall("table_fill", 1, _small(w), w.reference, _small(w)),
    "table_copy": lambda w: w.libcall("table_copy", 0, 1, _small(w), _small(w), _small(w)),
    "table_copy within": lambda w: w.libcall("table_copy", 0, 0, _small(w), _small(w), 3),
    "table_init": lambda w: w.libcall("table_init", 0, 0, _small(w), 0, _small(w)),
    "elem_drop": lambda w: w.chance.random() < 0.05 and w.libcall("elem_drop", 0),
    "memory32_grow": _grow_memory,
    "memory_fill": lambda w: w.libcall("memory_fill", 0, _small(w), 7, 3000),
    "memory_copy": lambda w: w.libcall("memory_copy", 0, 5, 0, 900, 60000),
    "memory_init": lambda w: w.libcall("memory_init", 0, 0, 10, 0, _small(w)),
    "externref_global_get": lambda w: w.libcall("externref_global_get", 0),
    "externref_global_set": lambda w: w.libcall("externref_global_set", 0, w.reference),
    "insert": lambda w: w.libcall("activations_table_insert_with_gc", w.reference),
    "gc": lambda w: asm_libcalls.gc(w.instance),
    "collect": lambda w: w.chance.random() < 0.1 and gc.collect(w.chance.randrange(3)),
    # The address of a closed one may be another's by now.
    "host function": lambda w: w.host.closed or w.enter(w.chance.randrange(99), 0.5),
    "pass": lambda w: _call_compiled(w, "pass", _value(w)),
    "put": lambda w: _call_compiled(w, "put", _value(w)),
    "take": lambda w: _call_compiled(w, "take"),
    "compiled grow": lambda w: _call_compiled(w, "grow", 1),
    "load": lambda w: _call_compiled(w, "load", w.chance.choice((0, 65532, 65533, -1))),
    "reference": lambda w: VMExternRef(_value(w)).clone().drop(),
    "instance": lambda w: Instance([Memory(1)], [Table("externref", 2)]).close(),
    "close": _close,
    "close compiled": _close_compiled,
    "fork": _fork,
    **stress_code.OPERATIONS,
}


NAMES = [*OPERATIONS]


class Stress:
    """The threads, and what they count."""

    def __init__(self, seed: int, seconds: float, strikes: bool = False) -> None:
        self.seed = seed
        self.strikes = strikes  # whether signal handlers raise
        self.end = time.monotonic() + seconds
        self.ends = False
        self.rings = False  # signals come
        self.counts: collections.Counter[str] = collections.Counter()
        self.inner: collections.Counter[str] = collections.Counter()
        self.intrusions: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.worlds = 0
        self.failures: list[BaseException] = []
        self.current: dict[int, World] = {}
        self.before = {*live_boxes()}
        self.module: Any = None
        if asm_libcalls.runtime_symbols():  # there is machine code
            from asm_libcalls import toy_jit

            self.module = toy_jit.Module(WASM)

    def work(self, number: int) -> None:
        """Work on one world after the other."""
        chance = random.Random(self.seed * 2 + number)
        try:
            while time.monotonic() < self.end and not self.failures:
                world = World(self, chance)
                self.current[threading.get_ident()] = world
                for _ in range(chance.randrange(20, 400)):
                    try:
                        world.calm = False
                        world.operate()
                        world.calm = True
                    except Struck:
                        world.calm = True
                        world.recover()
                self.current.pop(threading.get_ident())
                world.end()
                self.worlds += 1
        except BaseException as failure:
            self.failures.append(failure)

    def on_signal(self, number: int, frame: Any) -> None:
        """Handle a signal by an operation, and have the next one sent."""
        begin = time.monotonic()
        world = self.current.get(threading.get_ident())
        try:
            if world is not None:
                world.intrude("signal handler")
                if self.strikes and not world.calm and world.chance.random() < 0.3:
                    self.errors["Struck"] += 1
                    world.struck = True
                    raise Struck
        finally:
            if self.rings:
                # Under valgrind a handler takes longer than the usual 3 ms.
                wait = max(0.003, time.monotonic() - begin)
                signal.setitimer(signal.ITIMER_REAL, wait)

    def run(self) -> int:
        """Run both threads; return how many externrefs they have left behind."""
        # Everything is imported before signals come: a handler cannot use a module that the code
        # below it is importing.
        world = World(self, random.Random(self.seed))
        for name in NAMES:
            with contextlib.suppress(Planned, *Expected):
                OPERATIONS[name](world)
        world.end()
        signal.signal(signal.SIGALRM, self.on_signal)
        thread = threading.Thread(target=self.work, args=(1,))
        thread.start()
        self.rings = True
        signal.setitimer(signal.ITIMER_REAL, 0.003)
        try:
            self.work(0)
        finally:
            self.rings = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            # Ignored from here on: under valgrind the last signal may come late.
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
        thread.join()
        self.ends = True
        self.current.clear()
        if self.failures:
            raise self.failures[0]
        return self.left_behind()

    def left_behind(self) -> int:
        """Return how many externrefs the threads have left behind; describe each."""
        deadline = time.monotonic() + 10
        while True:  # the C library frees what a thread had after the thread was joined
            gc.collect()
            VMExternRef(None).drop()  # gives back what a signal handler interrupted
            left = [address for address in live_boxes() if address not in self.before]
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        for address in left:
            value, count = externref_boxes.value_of(address), externref_boxes.strong_count(address)
            print(f"left behind: {value!r}, {count} owners", gc.get_referrers(value))
        return len(left)

    def report(self) -> str:
        """Return the counts as a table."""
        lines = [f"seed {self.seed}: {self.worlds} worlds, {self.counts.total()} operations, "
                 f"{self.inner.total()} of them in the middle of another one"]  # fmt: skip
        lines += [f"  {name:22} {n:9} {self.inner[name]:9}" for name, n in self.counts.items()]
        for what, counter in (("came in", self.intrusions), ("raised", self.errors)):
            lines.append(f"{what}: " + ", ".join(f"{k} {v}" for k, v in counter.most_common()))
        return "\n".join(lines)


def live_boxes() -> list[int]:
    """Return the addresses of live boxes."""
    return [*filter(externref_boxes.is_live, [*externref_boxes.value_cells])]


def main(words: list[str]) -> int:
    """Run for so many seconds; a seed repeats the draws of each thread."""
    numbers = [word for word in words if word != "raise"]
    seconds = float(numbers[0]) if numbers else 60
    seed = int(numbers[1]) if len(numbers) > 1 else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    unraisable = sys.unraisablehook
    sys.unraisablehook = lambda it: (
        None if isinstance(it.exc_value, (Planned, Struck, *Expected)) else unraisable(it)
    )
    stress = Stress(seed, seconds, "raise" in words)
    left = stress.run()
    print(stress.report())
    if left:
        print(f"{left} externrefs were left behind")
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
