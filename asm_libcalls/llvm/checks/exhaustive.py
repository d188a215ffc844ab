"""Half precision over all bit patterns: the machine code against NumPy.

Each libcall is called at its C address, from a loop in machine code. NumPy has float16; bfloat16 is
the upper half of a float32, rounded as an integer. The results for NaNs are computed here.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from asm_libcalls.checks.exhaustive import Exhaustive, PatternDifference
from asm_libcalls.llvm.binding import default_llvm_binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

__all__ = ["FUNCTIONS", "verify_exhaustively"]

_BLOCK = 1 << 15
"""Patterns of a block: its arrays fit the second-level cache."""


def verify_exhaustively(
    names: Sequence[str],
    tell: Callable[[str, int], None] = lambda name, done: None,
    step: int = 1,
) -> list[Exhaustive]:
    """Convert every number with each function and compare.

    Parameters
    ----------
    names : sequence of str
        Out of :data:`FUNCTIONS`.
    tell : callable
        Called with a name and the number of patterns done, now and then.
    step : int, optional
        Check one of every `step` blocks of 32768 patterns.

    Returns
    -------
    list of Exhaustive
        One for each name; a function's check ends at its first difference.

    Raises
    ------
    RuntimeError
        No machine code serves.
    """
    return [_verify(name, tell, step) for name in names]


def _verify(name: str, tell: Callable[[str, int], None], step: int) -> Exhaustive:
    from asm_libcalls.x86_64.call_loops import NativeLoops

    libcall = default_llvm_binding().libcalls[name]
    if libcall.backend != "x86_64":
        raise RuntimeError(f"no machine code serves {name}: {libcall.reason}")
    started = time.monotonic()
    call_each = NativeLoops().function("(f32) -> f32")
    oracle, bits = FUNCTIONS[name]
    result = libcall.signature.result
    assert result is not None
    out = np.empty(_BLOCK, dtype=np.uint32)
    done = 0
    difference = None
    for number, patterns in enumerate(_blocks(bits, step)):
        call_each(libcall.address, patterns.ctypes.data, out.ctypes.data, patterns.size)
        got = out & np.uint32(result.mask)
        wanted = oracle(patterns)
        if not np.array_equal(got, wanted):
            i = int(np.flatnonzero(got != wanted)[0])
            difference = PatternDifference("libcall", int(patterns[i]), int(got[i]), int(wanted[i]))
            break
        done += patterns.size
        if number % 256 == 0:
            tell(name, done)
    return Exhaustive(name, ("libcall",), done, time.monotonic() - started, difference)


def _blocks(bits: int, step: int) -> Iterator[Any]:
    first = np.arange(_BLOCK, dtype=np.uint32)
    for start in range(0, 1 << bits, _BLOCK * step):
        yield first + np.uint32(start)


def _is_nan(patterns: Any) -> Any:
    return (patterns & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)


def _to_half(patterns: Any) -> Any:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        wanted = patterns.view(np.float32).astype(np.float16).view(np.uint16).astype(np.uint32)
    quiet = patterns >> np.uint32(16) & np.uint32(0x8000) | np.uint32(0x7E00)
    quiet |= patterns >> np.uint32(13) & np.uint32(0x3FF)
    return np.where(_is_nan(patterns), quiet, wanted)


def _from_half(patterns: Any) -> Any:
    halves = patterns.astype(np.uint16)
    with np.errstate(invalid="ignore"):
        wanted = halves.view(np.float16).astype(np.float32).view(np.uint32)
    nan = (patterns & np.uint32(0x8000)) << np.uint32(16) | np.uint32(0x7F800000)
    nan |= (patterns & np.uint32(0x3FF)) << np.uint32(13)
    return np.where((patterns & np.uint32(0x7FFF)) > np.uint32(0x7C00), nan, wanted)


def _to_bfloat(patterns: Any) -> Any:
    upper = patterns >> np.uint32(16)
    wanted = (patterns + np.uint32(0x7FFF) + (upper & np.uint32(1))) >> np.uint32(16)
    inexact = (patterns & np.uint32(0xFFFF)) != 0
    quiet = upper | inexact.astype(np.uint32) << np.uint32(6)
    return np.where(_is_nan(patterns), quiet, wanted)


def _from_bfloat(patterns: Any) -> Any:
    return patterns << np.uint32(16)


FUNCTIONS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "truncsfhf2": (_to_half, 32),
    "truncsfbf2": (_to_bfloat, 32),
    "extendhfsf2": (_from_half, 16),
    "extendbfsf2": (_from_bfloat, 16),
}
"""By name: the oracle on an array of patterns, and how many bits those have."""
