"""The ufuncs' inner loops for each instruction set, side by side, called as NumPy calls them."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import pages
from asm_libcalls.emitter.image import link
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.fallback import integers, rounding
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow
from asm_libcalls.x86_64 import ufunc_loops
from asm_libcalls.x86_64.cpu import ICE_LAKE, TUNINGS

LEVELS = {
    "baseline": frozenset[str](),
    "sse4_1": frozenset({"sse4_1"}),
    "avx": frozenset({"sse4_1", "avx"}),
    "avx2": frozenset({"sse4_1", "avx", "avx2", "bmi2"}),
    "avx512": frozenset({"sse4_1", "avx", "avx2", "bmi2", "avx512f", "avx512dq"}),
    "ice_lake": frozenset(
        {"sse4_1", "avx", "avx2", "bmi2", "avx512f", "avx512dq", "avx512vl", "avx512ifma", ICE_LAKE}
    ),
}
"""Every choice that the builders make; a CPU has the features of all levels up to its own."""

ROUNDING = [name for name, row in DECLARATIONS.items() if row.family == "rounding"]
INTEGERS = [name for name, row in DECLARATIONS.items() if row.family == "integers"]

SIZES = {name: 4 if name.startswith("f32") else 8 for name in [*ROUNDING, *INTEGERS]}

STREAMING = 1 << 14
"""The size in bytes that tests give as too large for the caches, so that small arrays are."""

_PROTOTYPE = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
)


def cpu_features() -> frozenset[str]:
    """Return this CPU's features; none where no machine code is loaded."""
    backend = default_binding().x86_64
    return frozenset() if backend is None else backend.cpu.features


def runs_here(level: str) -> bool:
    """Tell whether this machine can execute a level's loops."""
    return default_binding().x86_64 is not None and LEVELS[level] <= cpu_features() | TUNINGS


@functools.cache
def image(level: str) -> LoadedImage:
    """Return a level's loops, loaded."""
    return pages.load(link(ufunc_loops.routines(LEVELS[level])))


def has_loop(level: str, name: str) -> bool:
    """Tell whether a level has a loop for a libcall; without SSE4.1 NumPy's own loops round."""
    return level != "baseline" or name in INTEGERS


def call(
    level: str,
    name: str,
    addresses: list[int],
    count: int,
    steps: list[int],
    streaming: int = STREAMING,
) -> None:
    """Call a loop as NumPy does."""
    arguments = (ctypes.c_void_p * len(addresses))(*addresses)
    n, strides = ctypes.c_ssize_t(count), (ctypes.c_ssize_t * len(steps))(*steps)
    _PROTOTYPE(image(level).routine(f"{name}_loop"))(
        ctypes.addressof(arguments), ctypes.addressof(n), ctypes.addressof(strides), streaming
    )


def expected(name: str, *patterns: int) -> int:
    """Return what an element must become, by the fallback; where that traps, what NumPy gives."""
    family = rounding if name in ROUNDING else integers
    try:
        return int(getattr(family, name)(*patterns))
    except IntegerDivisionByZero:
        return 0
    except IntegerOverflow:
        return 1 << 63


def expected_array(name: str, *operands: Any) -> Any:
    """Return what an array must become: patterns in, patterns out."""
    dtype = np.dtype(f"u{SIZES[name]}")
    rows = zip(*(operand.tolist() for operand in operands), strict=True)
    return np.array([expected(name, *row) for row in rows], dtype=dtype)


class Memory:
    """Poisoned bytes around operands, to find writes of a loop outside its output; `size` bytes."""

    POISON = 0xA5

    def __init__(self, size: int) -> None:
        self.bytes = np.full(size, self.POISON, dtype=np.uint8)
        self.next = 64

    def operand(self, dtype: Any, count: int, step: int, misalignment: int) -> Any:
        """Place an operand behind the last one and return it as an array of that step.

        `step` is the bytes from one element to the next, of any sign; 0 makes all of them one.
        `misalignment` is the bytes from a multiple of 64, up to 63.
        """
        itemsize = np.dtype(dtype).itemsize
        span = abs(step) * max(count - 1, 0) + itemsize
        start = self.bytes.ctypes.data
        lowest = -(-(start + self.next) // 64) * 64 + misalignment - start
        self.next = lowest + span + 64
        if self.next > self.bytes.size:
            raise ValueError(f"{self.next} bytes wanted of {self.bytes.size}")
        first = lowest if step >= 0 else lowest + span - itemsize
        return np.ndarray((count,), dtype, self.bytes, first, (step,))

    def snapshot(self) -> Any:
        """Return a copy of the bytes."""
        return self.bytes.copy()
