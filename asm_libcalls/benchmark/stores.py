"""Suite: threads in builds of CPython without the GIL, each in its own store or all in one.

Each case has a number of workers, each with a store of its own, and the same work in the threads of
one process and in as many processes; they take turns, in a random order. A worker reads from a pipe
how often to do it, and replies with the times of its start and its end, and the processor time of
its thread. The time of an operation is that from the first start to the last end, divided by the
operations of all workers; another case has the processor time. The last cases compare threads that
share one store with one thread that has it alone.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls import backend_report
from asm_libcalls.benchmark.timing import OURS, Timed, figures
from asm_libcalls.steps import HAS_GIL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers

SUITE = "stores"
PROCESSES = "processes"
ALONE = "one thread"

ROUNDS, QUICK_ROUNDS = 31, 3
SAMPLE, QUICK_SAMPLE = 0.2, 0.005
"""Processor time of all workers together that one round of a candidate should take, in seconds."""

# (memory 1) (table 8 externref)
# (func (export "loop") (param i32)): so many times, add 1 to the word at 0
# (func (export "call")): add 1 to the word at 0
# (func (export "swap") (param externref) (result externref)): exchange element 0
_WASM = bytes.fromhex(
    "0061736d01000000010d0360017f0060000060016f016f0304030001020404016f0008050301000107160304"
    "6c6f6f7000000463616c6c0001047377617000020a3a031b0003404100410028020041016a36020020004101"
    "6b22000d000b0b0f004100410028020041016a3602000b0c00410025004100200026000b"
)


def _loop() -> Callable[[], object]:
    loop = _exports()["loop"]
    return lambda: loop(100_000)


def _exports() -> Any:
    from asm_libcalls import toy_jit

    return toy_jit.Instance(toy_jit.Module(_WASM)).exports


def _fill(size: int) -> Callable[[], object]:
    from asm_libcalls import Instance, Memory, memory_fill

    instance = Instance([Memory(1)])
    return lambda: memory_fill(instance, 0, 0, 7, size)


def _copy() -> Callable[[], object]:
    from asm_libcalls import Instance, Table, table_copy

    table = Table("externref", 32)
    for i in range(32):
        table[i] = object()
    instance = Instance(tables=[table])
    return lambda: table_copy(instance, 0, 0, 0, 16, 16)


def _elements() -> Callable[[], object]:
    from asm_libcalls import Table

    table = Table("externref", 8)
    table[1] = object()

    def move() -> None:
        table[0] = table[1]

    return move


def _swap() -> Callable[[], object]:
    swap, value = _exports()["swap"], object()
    return lambda: swap(value)


WORK: dict[str, Callable[[], Callable[[], object]]] = {
    "a loop of compiled code": _loop,
    "an export": lambda: _exports()["call"],
    "memory_fill, 16 bytes": lambda: _fill(16),
    "memory_fill, 4096 bytes": lambda: _fill(4096),
    "table_copy, 16 externrefs": _copy,
    "table[0] = table[1]": _elements,
    "an export with an externref": _swap,
}
"""By description: a function that makes a store, and returns a function that uses it."""

_SHARED = ("an export", "memory_fill, 16 bytes", "memory_fill, 4096 bytes", "table[0] = table[1]")


def _serve(pipe: Connection, work: Sequence[Callable[[], object]] = ()) -> None:
    """Run as a worker: follow the commands in a pipe, with stores of this worker's own.

    A command says which work, and how often; None ends the worker. The reply is the start, the end
    and the processor time, in nanoseconds. The default for `work` is what :data:`WORK` makes.
    """
    functions = work or [make() for make in WORK.values()]
    while command := pipe.recv():
        which, times = command
        function, repeat = functions[which], range(times)
        used, begin = time.thread_time_ns(), time.monotonic_ns()
        for _ in repeat:
            function()
        end = time.monotonic_ns()
        pipe.send((begin, end, time.thread_time_ns() - used))


class _Sample(NamedTuple):
    """What a round of some workers took: seconds for each operation of all of them together."""

    wall: float
    processor: float


class _Workers:
    """Workers, in threads or in processes."""

    def __init__(self) -> None:
        self._pipes: list[Connection] = []
        self._workers: list[threading.Thread | SpawnProcess] = []

    def add_thread(self, work: Sequence[Callable[[], object]] = ()) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._add(ours, threading.Thread(target=_serve, args=(theirs, work)))

    def add_process(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        self._add(ours, multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,)))
        theirs.close()  # so that the end of the process is the end of the pipe

    def _add(self, pipe: Connection, worker: threading.Thread | SpawnProcess) -> None:
        worker.start()
        self._pipes.append(pipe)
        self._workers.append(worker)

    def sample(self, which: int, times: int) -> _Sample:
        """Let all workers call a function so many times each, at the same time."""
        for pipe in self._pipes:
            pipe.send((which, times))
        replies = [pipe.recv() for pipe in self._pipes]
        operations = times * len(replies)
        wall = max(end for _, end, _ in replies) - min(begin for begin, _, _ in replies)
        used = sum(used for _, _, used in replies)
        return _Sample(max(wall, 1) / 1e9 / operations, max(used, 1) / 1e9 / operations)

    def __len__(self) -> int:
        return len(self._pipes)

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for worker in self._workers:
            worker.join()
        for pipe in self._pipes:
            pipe.close()


def measure(peers: Peers, quick: bool, tell: Callable[[str], None], only: str) -> list[Timed]:
    """Measure the cases whose names contain `only`; none with the GIL or without machine code."""
    reason = "this build of Python has a GIL" if HAS_GIL else backend_report()["x86_64"]
    if reason != "loaded":
        peers.note(f"suite {SUITE} is left out: {reason}")
        return []
    collecting = gc.isenabled()
    gc.disable()
    try:
        measured: list[Timed] = []
        counts = (2,) if quick else sorted({2, os.cpu_count() or 1, 8})
        for count in counts:
            measured += _parallel(count, quick, tell, only)
        return [*measured, *_shared(max(counts), quick, tell, only)]
    finally:
        if collecting:
            gc.enable()


def _parallel(count: int, quick: bool, tell: Callable[[str], None], only: str) -> Iterator[Timed]:
    with closing(_Workers()) as threads, closing(_Workers()) as processes:
        for _ in range(count):
            threads.add_thread()
            processes.add_process()
        for which, name in enumerate(WORK):
            if only in name:
                tell(f"{SUITE}: {name} {count}")
                candidates = {OURS: (threads, which), PROCESSES: (processes, which)}
                yield from _measure(f"{name}, {count} stores", candidates, quick)


def _shared(count: int, quick: bool, tell: Callable[[str], None], only: str) -> Iterator[Timed]:
    functions = [WORK[name]() for name in _SHARED]
    with closing(_Workers()) as threads, closing(_Workers()) as alone:
        for _ in range(count):
            threads.add_thread(functions)
        alone.add_thread(functions)
        for which, name in enumerate(_SHARED):
            if only in name:
                tell(f"{SUITE}: {name} {count}, one store")
                candidates = {OURS: (threads, which), ALONE: (alone, which)}
                yield from _measure(f"{name}, {count} threads in one store", candidates, quick)


def _measure(
    name: str, candidates: dict[str, tuple[_Workers, int]], quick: bool
) -> Iterator[Timed]:
    seconds, rounds = (QUICK_SAMPLE, QUICK_ROUNDS) if quick else (SAMPLE, ROUNDS)
    samples: dict[str, list[_Sample]] = {label: [] for label in candidates}
    times = {label: _times_for(*each, seconds) for label, each in candidates.items()}
    chance = random.Random(name)
    for _ in range(rounds):
        for label in chance.sample([*candidates], len(candidates)):
            workers, which = candidates[label]
            samples[label].append(workers.sample(which, times[label]))
    for suffix, part in (("", "wall"), (": processor time", "processor")):
        values = {
            label: [1e9 * getattr(sample, part) for sample in taken]
            for label, taken in samples.items()
        }
        yield Timed(SUITE, name + suffix, 0, rounds, figures(values))


def _times_for(workers: _Workers, which: int, seconds: float) -> int:
    """Return how often each worker does a work in this processor time of all of them."""
    times = 1
    while True:
        used = workers.sample(which, times).processor * times * len(workers)
        if used >= seconds / 2:
            return max(1, round(times * seconds / used))
        times *= 2
