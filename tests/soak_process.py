"""A soak of the whole process: objects of all kinds are made and dropped at once, without leaks.

``python soak_process.py --minutes 10`` goes on for so long, and prints as JSON what it did and what
was left. A lap is threads that make the calls of ``soak.py``, instances and compiled modules that
are made, used and dropped in cycles of garbage, traps, interrupts, forks in the middle of all that,
and signals that end an endless loop. It ends with an AssertionError where anything grows.
"""

from __future__ import annotations

import argparse
import gc as python_gc
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Where modules of tests import from, if this is not run by pytest.
sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))

from jit_modules import Function, build
from process_maps import mappings
from soak import Soak, Thing, resident_kilobytes

import asm_libcalls
from asm_libcalls import Global, Instance, Memory, Table, Trap, toy_jit
from asm_libcalls.runtime import externref_boxes

THREADS = 2
ROUNDS = 16  # each ending of a Soak twice
WARM_UP = 4
GROWTH_KILOBYTES = 4096

FUNCTIONS = {
    "divide": Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.div_s"),
    "load": Function("i32 -> i32", "local.get 00 i32.load 02 00"),
    "unreachable": Function("->", "unreachable"),
    "deep": Function("->", "call 04"),  # itself, behind the import
    "loop": Function("->", "loop 40 br 00 end"),
    "keep": Function("-> i32", "i32.const 00 call 00 table.set 00 i32.const 01 memory.grow 00"),
}
PARTS = {"tables": [b"\x6f\x00\x08"], "memories": [b"\x01\x01\x04"]}
TRAPS: dict[str, tuple[int, ...]] = {
    "divide": (1, 0), "load": (1 << 20,), "unreachable": (), "deep": (),
}  # fmt: skip


class Alarm(Exception):
    """Raised by the signal handler."""


class Owner(Thing):
    """Has an instance, which has methods of this: a cycle that the garbage collector finds."""

    instance: Any

    def make(self) -> Thing:
        """Be imported by a module."""
        return Thing()

    def limiter(self, current: int, desired: int, maximum: int | None) -> bool:
        """Limit a memory."""
        return desired <= 3


class Process:
    """The objects of all laps, and the counts of events."""

    def __init__(self) -> None:
        self.soaks = [Soak() for _ in range(THREADS)]
        self.own = Soak()
        self.binary = build(FUNCTIONS, {"make": "-> externref"}, **PARTS)
        self.endless = self.module_instance(Owner())
        self.happened: Counter[str] = Counter()
        self.failures: list[str] = []
        self.armed, self.ticks = False, 0
        signal.signal(signal.SIGALRM, self.on_alarm)

    def module_instance(self, owner: Owner) -> Any:
        return toy_jit.Instance(toy_jit.Module(self.binary), {"m": {"make": owner.make}})

    # What a lap is made of.

    def calls(self, soak: Soak) -> None:
        """Make the calls of a Soak, with a little of everything else in between."""
        for number in range(ROUNDS):
            soak.round(20)
            self.happened["rounds"] += 1
            if number % 8 == 0:
                self.instance()
                self.module()

    def instance(self) -> None:
        """Make an instance, use it, and leave it in a cycle of garbage."""
        table, kept = Table("externref", 2, 8), Global("externref", None, True)
        owner = Owner()
        memory = Memory(1, 3, limiter=owner.limiter)
        owner.instance = instance = Instance([memory], [table], [kept], data=[b"some data"])
        table[0] = kept.value = Thing()
        assert asm_libcalls.memory32_grow(instance, 1, 0) == 1
        assert asm_libcalls.memory32_grow(instance, 2, 0) == 0xFFFFFFFF
        asm_libcalls.memory_init(instance, 0, 0, 100, 0, 9)
        assert bytes(memoryview(instance.memories[0])[100:109]) == b"some data"
        self.trap(asm_libcalls.memory_fill, instance, 0, 2 << 16, 1, 1)
        self.trap(asm_libcalls.table_copy, instance, 0, 0, 1, 0, 2)
        asm_libcalls.gc(instance)
        self.happened["instances"] += 1
        self.happened["collections"] += 1

    def module(self) -> None:
        """Compile a module, run it to its traps, and leave it in a cycle of garbage."""
        owner = Owner()
        owner.instance = instance = self.module_instance(owner)
        exports = instance.exports
        assert exports["divide"](7, 2) == 3
        assert exports["keep"]() == 1
        for name, arguments in TRAPS.items():
            self.trap(exports[name], *arguments)
        with instance.time_limit(0.01):
            self.trap(exports["loop"])
        asm_libcalls.gc(instance.runtime)
        self.happened["modules"] += 1
        self.happened["collections"] += 1

    def trap(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            function(*arguments)
        except Trap as trap:
            self.happened[f"trap {asm_libcalls.TrapCode(trap.code).name}"] += 1
        else:
            raise AssertionError(f"{function} did not trap")

    def fork(self) -> None:
        """Do everything in a fork, where the other threads have ended in the middle of work."""
        child = os.fork()
        if not child:
            status = 1
            try:
                self.calls(self.own)
                self.alarm()
                status = 0
            except BaseException:
                traceback.print_exc()
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0, "the fork did not end well"
        self.happened["forks"] += 1

    def on_alarm(self, *_: object) -> None:
        self.ticks += 1
        # Not each time: what is raised once must have time to arrive. But again after a while, as
        # it may have been raised in a destructor, and lost there.
        if self.armed and self.ticks % 50 == 1:
            raise Alarm

    def alarm(self) -> None:
        """End an endless loop by a signal, as Ctrl-C does."""
        self.armed, self.ticks = True, 0
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        try:
            self.endless.exports["loop"]()
        except Alarm:
            self.armed = False
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert not self.armed, "the loop ended without an alarm"
        self.happened["alarms"] += 1

    # Laps.

    def guarded(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            function(*arguments)
        except BaseException:
            self.failures.append(traceback.format_exc())

    def lap(self) -> None:
        """Do everything once, at once."""
        threads = [
            threading.Thread(target=self.guarded, args=(self.calls, soak)) for soak in self.soaks
        ]
        for thread in threads:
            thread.start()
        self.guarded(self.fork)
        self.guarded(self.alarm)
        self.guarded(python_gc.collect)
        for thread in threads:
            thread.join()
        assert not self.failures, "\n".join(self.failures)
        self.happened["laps"] += 1
        self.happened["threads"] += len(threads)

    def left(self) -> dict[str, int]:
        """Settle, and count what is left."""
        for soak in (*self.soaks, self.own):
            soak.settle()
        for _ in range(3):
            python_gc.collect()
        return {
            "things": len(Thing.alive),
            "boxes": externref_boxes.live_count(),
            "open files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
            # By name: of anonymous memory malloc makes more or less as it likes.
            "mappings of code": sum("x" in mapping.permissions for mapping in mappings()),
            "writable and executable": sum(m.writable_and_executable for m in mappings()),
            "resident KiB": resident_kilobytes(),
        }


def main(minutes: float, laps: int = 0) -> dict[str, Any]:
    """Soak for so long, and for so many laps at least."""
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from 3.12 on
    process = Process()
    begin = time.monotonic()
    for _ in range(WARM_UP):
        process.lap()
    before = process.left()
    while time.monotonic() - begin < minutes * 60 or process.happened["laps"] < WARM_UP + laps:
        process.lap()
    now = process.left()
    calls = sum(soak.counter.value for soak in process.soaks)
    for soak in process.soaks:
        process.happened.update({f"{end} in native code": n for end, n in soak.outcomes.items()})
        process.happened["collections"] += soak.collections
    growth = now["resident KiB"] - before["resident KiB"]
    assert growth < GROWTH_KILOBYTES, (before, now)
    assert {**now, "resident KiB": 0} == {**before, "resident KiB": 0}, (before, now)
    return {
        "seconds": round(time.monotonic() - begin),
        "calls of libcalls from machine code": calls,
        "things made": Thing.made,
        "happened": dict(process.happened),
        "left after warm-up": before,
        "left": now,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0, help="how long, about")
    parser.add_argument("--laps", type=int, default=2, help="how many laps, at least")
    options = parser.parse_args()
    print(json.dumps(main(options.minutes, options.laps), indent=1))
