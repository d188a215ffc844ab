"""Copies and fills of every kind against a model in plain bytes, for this process or a guest.

``python memory_cases.py`` runs a short version with the code that this CPU gets, and prints how
many cases it was. A read or write outside of the ranges faults where a range is beside a guard
page, so that belongs in a child process.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterable, Iterator

from raw_vmcontext import GuardedPages, RawVMContext

from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.vmcontext import VMDataSegment

PAGE = 4096
DISTANCES = (
    0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129,
    200, 255, 256, 257,
)  # fmt: skip
NOISE = random.Random(20).randbytes(1 << 18)
GARBAGE = 0xDEADBEEF << 32
"""The ABI leaves the upper half of a register with a 32-bit argument to the caller."""


def function(loaded: LoadedImage, name: str) -> Callable[..., int]:
    """Return a routine as a function on whole registers, garbage in upper halves included."""
    parameters = len(DECLARATIONS[name].parameters)
    prototype = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_uint64] * parameters)
    return prototype(loaded.routine(name))


def expected_copy(content: bytes, dst: int, src: int, size: int) -> bytes:
    return content[:dst] + content[src : src + size] + content[dst + size :]


def overlaps(size: int, distances: Iterable[int] = DISTANCES) -> Iterator[int]:
    """Yield distances from source to destination, both ways, and those near `size`."""
    for distance in sorted({*distances, size - 1, size, size + 1} - {-1}):
        yield distance
        if distance:
            yield -distance


def check_copies(
    loaded: LoadedImage, sizes: Iterable[int], offsets: Iterable[int], distances: Iterable[int]
) -> int:
    """Copy within one memory and compare all of it with the model; return how many cases."""
    copy = function(loaded, "memory_copy")
    distances, offsets = tuple(distances), tuple(offsets)
    cases = 0
    for size in sizes:
        furthest = max(*distances, size + 1)
        content = NOISE[: 2 * furthest + size + max(offsets) + 64]
        pages = GuardedPages(len(content))
        context = RawVMContext([(pages.address, len(content))])
        for offset in offsets:
            dst = furthest + offset
            for distance in overlaps(size, distances):
                src = dst - distance
                pages.write(content)
                copy(context.vmctx, GARBAGE, GARBAGE | dst, GARBAGE, GARBAGE | src, GARBAGE | size)
                came = pages.read(0, len(content))
                if came != expected_copy(content, dst, src, size):
                    raise AssertionError(f"memory_copy: {size} bytes from {src} to {dst}")
                cases += 1
    return cases


def check_fills(loaded: LoadedImage, sizes: Iterable[int], offsets: Iterable[int]) -> int:
    """Fill and compare all of the memory with the model; return how many cases."""
    cases = 0
    offsets = tuple(offsets)
    for size in sizes:
        content = NOISE[: size + max(offsets) + 64]
        pages = GuardedPages(len(content))
        context = RawVMContext([(pages.address, len(content))])
        for name in ("memory_fill", "imported_memory_fill"):
            fill = function(loaded, name)
            for offset in offsets:
                value = (size * 7 + offset * 13) & 0xFF
                pages.write(content)
                garbage = GARBAGE | 0xABCDEF00
                fill(context.vmctx, GARBAGE, GARBAGE | offset, garbage | value, GARBAGE | size)
                came = pages.read(0, len(content))
                if came != content[:offset] + bytes([value]) * size + content[offset + size :]:
                    raise AssertionError(f"{name}: {size} bytes at {offset} with {value:#x}")
                cases += 1
    return cases


def check_beside_guards(loaded: LoadedImage, sizes: Iterable[int]) -> int:
    """Use ranges that begin or end at a page that faults, with all three routines on bytes."""
    copy, init = function(loaded, "memory_copy"), function(loaded, "memory_init")
    fill = function(loaded, "memory_fill")
    cases = 0
    for size in sizes:
        length = max(PAGE, -(-size // PAGE) * PAGE)
        target, source = GuardedPages(length), GuardedPages(length)
        context = RawVMContext(
            [(target.address, length), (source.address, length)],
            segments=[(source.address, length)],
        )
        assert ctypes.sizeof(context.segments) == ctypes.sizeof(VMDataSegment)
        content = NOISE[:length]
        source.write(content)
        for dst in {0, length - size}:
            for src in {0, length - size}:
                moved = expected_copy(bytes(length), dst, dst, size)
                moved = moved[:dst] + content[src : src + size] + moved[dst + size :]
                for run, arguments in ((copy, (0, dst, 1, src)), (init, (0, 0, dst, src))):
                    target.write(bytes(length))
                    run(context.vmctx, *arguments, size)
                    if target.read() != moved:
                        raise AssertionError(f"{size} bytes from {src} to {dst}, by a guard page")
                    cases += 1
                target.write(content)  # and within one memory, with whatever overlap that is
                copy(context.vmctx, 0, dst, 0, src, size)
                assert target.read() == expected_copy(content, dst, src, size), (size, src, dst)
            target.write(content)
            fill(context.vmctx, 0, dst, 0x5A, size)
            filled = content[:dst] + b"\x5a" * size + content[dst + size :]
            assert target.read() == filled, (size, dst)
            cases += 2
    return cases


def main() -> None:
    """Run the short version with what this CPU gets."""
    from asm_libcalls.emitter import pages
    from asm_libcalls.emitter.image import link
    from asm_libcalls.x86_64 import cpu, memories
    from asm_libcalls.x86_64.trampolines import enter_and_raise

    this_cpu = cpu.detect(pages.load(link(cpu.routines())))
    loaded = pages.load(link([*enter_and_raise.routines(), *memories.routines(this_cpu.features)]))
    sizes = (*range(70), 100, 128, 129, 200, 256, 257, 300, 600, 2100, 4096, 5000)
    cases = check_copies(loaded, sizes, (0, 17), (1, 8, 31, 33, 500))
    cases += check_fills(loaded, sizes, (0, 17))
    cases += check_beside_guards(loaded, sizes)
    print(cases, *sorted(this_cpu.features & {"avx2", "erms"}))


if __name__ == "__main__":
    main()
