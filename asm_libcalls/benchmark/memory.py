"""Suite: copying and filling linear memory, by the libcalls and by other means.

The C functions, ours and glibc's, are called from a loop in machine code. The others, and ours
again, are called from Python.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from asm_libcalls import LIBCALLS, Instance, Memory
from asm_libcalls.benchmark import native_loop
from asm_libcalls.benchmark.timing import OURS, Candidate, Case, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.activation import NativeCall
    from asm_libcalls.benchmark.peers import Peers

    Loop = Callable[[NativeCall, int], float]

SUITE = "memory"
SIZES = (16, 64, 256, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24)
QUICK_SIZES = (64, 1 << 12)

# Offset of the destination from the source; None for disjoint ranges.
_OVERLAPS = {"apart": None, "overlapping upwards": 24, "overlapping downwards": -24}
OURS_FROM_PYTHON = "asm_libcalls from Python"


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases; none if no machine code serves these libcalls."""
    loop = native_loop_or_why(peers, SUITE, "memory_copy")
    if loop is None:
        return
    yield from _copies(peers, loop, QUICK_SIZES if quick else SIZES)
    yield from _fills(peers, loop, QUICK_SIZES if quick else SIZES)


def native_loop_or_why(peers: Peers, suite: str, name: str) -> Loop | None:
    """Return a loop that calls C functions; None with a note if a libcall is not machine code."""
    backend = LIBCALLS[name].backend
    if backend != "x86_64":
        peers.note(f"suite {suite} is left out: {name} is served by {backend}")
        return None
    if peers.optional("peachpy") is None:
        peers.note(f"suite {suite} is left out: the loop that calls is assembled by PeachPy")
        return None
    from asm_libcalls.emitter import pages
    from asm_libcalls.emitter.image import link

    return native_loop.repeater(pages.load(link([native_loop.routine()])))


def _memory(size: int) -> tuple[Memory, Instance]:
    memory = Memory(-(-(2 * size + 4096) // 65536))
    ctypes.memset(memory.base, 1, len(memory))  # so that every page is mapped
    return memory, Instance(memories=[memory])


def _copies(peers: Peers, loop: Loop, sizes: tuple[int, ...]) -> Iterator[Case]:
    from asm_libcalls import memory_copy as ours

    address = LIBCALLS["memory_copy"].address
    for overlap, distance in _OVERLAPS.items():
        for size in sizes:
            memory, instance = _memory(size)
            source = 64
            target = source + size + 1024 if distance is None else source + distance
            base, vmctx = memory.base, instance.vmctx
            array = peers.numpy.frombuffer(memory, dtype=peers.numpy.uint8)
            array_to, array_from = array[target : target + size], array[source : source + size]
            arguments = (vmctx, 0, target, 0, source, size)
            pointers = (base + target, base + source, size)
            keep = (memory, instance)
            candidates = [
                native(OURS, loop, address, arguments, keep),
                native("glibc memmove", loop, peers.c_function("memmove"), pointers, keep),
                Candidate(OURS_FROM_PYTHON, repeat(ours, (instance, *arguments[1:]), keep)),
                Candidate("ctypes.memmove", repeat(ctypes.memmove, pointers, keep)),
                Candidate("NumPy", repeat(peers.numpy.copyto, (array_to, array_from), keep)),
                Candidate("bytearray slice", _slices(len(memory), target, source, size)),
            ]
            yield Case(SUITE, f"copy {overlap}", size, 1, tuple(candidates))


def _fills(peers: Peers, loop: Loop, sizes: tuple[int, ...]) -> Iterator[Case]:
    from asm_libcalls import memory_fill as ours

    address = LIBCALLS["memory_fill"].address
    for size in sizes:
        memory, instance = _memory(size)
        array = peers.numpy.frombuffer(memory, dtype=peers.numpy.uint8)[64 : 64 + size]
        arguments = (instance.vmctx, 0, 64, 7, size)
        pointers = (memory.base + 64, 7, size)
        keep = (memory, instance)
        candidates = [
            native(OURS, loop, address, arguments, keep),
            native("glibc memset", loop, peers.c_function("memset"), pointers, keep),
            Candidate(OURS_FROM_PYTHON, repeat(ours, (instance, *arguments[1:]), keep)),
            Candidate("ctypes.memset", repeat(ctypes.memset, pointers, keep)),
            Candidate("NumPy", repeat(array.fill, (7,), keep)),
        ]
        yield Case(SUITE, "fill", size, 1, tuple(candidates))


def native(
    label: str, loop: Loop, address: int, arguments: tuple[int, ...], keep: Any
) -> Candidate:
    """Return a candidate that calls a C function."""
    call = native_loop.call_of(address, arguments)

    def run(times: int, keep: Any = keep) -> None:
        loop(call, times)

    return Candidate(label, run)


def _slices(length: int, target: int, source: int, size: int) -> Callable[[int], None]:
    view = memoryview(bytearray(length))

    def run(times: int) -> None:
        for _ in range(times):
            view[target : target + size] = view[source : source + size]

    return run
