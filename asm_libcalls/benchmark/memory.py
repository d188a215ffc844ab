"""Suite: copying and filling memory, at the C address and from Python, over sizes and overlaps."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import asm_libcalls
from asm_libcalls import libc
from asm_libcalls.benchmark.calls import native_repeater
from asm_libcalls.benchmark.peers import Notes, optional
from asm_libcalls.benchmark.timing import Comparison, compare, statement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["memory"]

_PAGES = 2200  # of 64 KiB: twice the largest size, and room
_HALF = _PAGES // 2 * 65536


def memory(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """Compare memory_copy and memory_fill with glibc, from native code and from Python."""
    sizes = [1, 64, 1024, 65536] if quick else [4**k for k in range(14)]
    rounds = 9 if quick else 31
    linear = asm_libcalls.Memory(_PAGES, _PAGES)
    with asm_libcalls.Instance(memories=[linear]) as instance:
        yield from _native(notes, instance, linear.base, sizes, rounds)
        yield from _python(notes, instance, linear, sizes, rounds)


def _native(
    notes: Notes, instance: Any, base: int, sizes: list[int], rounds: int
) -> Iterator[Comparison]:
    repeat = native_repeater(notes)
    if repeat is None:
        return
    if asm_libcalls.LIBCALLS["memory_copy"].backend != "x86_64":
        notes.add("memory_copy from native code is left out: it is not machine code here")
        return
    from asm_libcalls.benchmark.native_loop import call_of

    def case(address: int, *integers: int) -> Any:
        call = call_of(address, integers)
        return lambda count: repeat(call, count)

    copy = asm_libcalls.LIBCALLS["memory_copy"].address
    fill = asm_libcalls.LIBCALLS["memory_fill"].address
    memmove, memset = libc.function_address("memmove"), libc.function_address("memset")
    vmctx = instance.vmctx
    for size in sizes:
        half = max(1, size // 2)
        for where, dst, src in (
            ("disjoint", 0, _HALF),
            ("overlapping, forwards", 0, half),
            ("overlapping, backwards", half, 0),
        ):
            ours = case(copy, vmctx, 0, dst, 0, src, size)
            peers = {"glibc memmove": case(memmove, base + dst, base + src, size)}
            name = f"memory_copy of {size} bytes, {where}"
            yield compare("memory", name, ours, peers, rounds=rounds, unit="ticks", round_time=2e5)
        ours = case(fill, vmctx, 0, 0, 17, size)
        peers = {"glibc memset": case(memset, base, 17, size)}
        name = f"memory_fill of {size} bytes"
        yield compare("memory", name, ours, peers, rounds=rounds, unit="ticks", round_time=2e5)


def _python(
    notes: Notes, instance: Any, linear: Any, sizes: list[int], rounds: int
) -> Iterator[Comparison]:
    numpy = optional("numpy", notes)
    array = bytearray(2 * max(sizes))
    for size in sizes[:: 1 if len(sizes) < 6 else 3]:
        names: dict[str, Any] = {
            "copy": asm_libcalls.memory_copy,
            "instance": instance,
            "src": _HALF,
            "n": size,
            "move": ctypes.memmove,
            "base": linear.base,
            "array": array,
        }
        ours = statement("copy(instance, 0, 0, 0, src, n)", names)
        peers = {
            "ctypes.memmove": statement("move(base, base + src, n)", names),
            "bytearray slice": statement("array[:n] = array[n:n + n]", names),
        }
        if numpy is not None:
            names["view"] = numpy.frombuffer(linear, "u1")
            peers["numpy slice"] = statement("view[:n] = view[src:src + n]", names)
        name = f"memory_copy of {size} bytes, from Python"
        yield compare("memory", name, ours, peers, rounds=rounds)
