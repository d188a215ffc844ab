"""Checks f32 rounding over all 2^32 patterns against an oracle that is neither backend.

The oracle is exact integer arithmetic, in NumPy's operations on a block of patterns that share sign
and exponent. The oracle itself is compared with the fallback on patterns of every sign and
exponent. Machine code of the libcall is called at its C address for each pattern. The ufunc is
called with contiguous arrays, with strided input, and with strided input and output.
"""

from __future__ import annotations

import importlib
import random
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    Ways = dict[str, Callable[[Any], Any]]  # implementations on arrays of patterns, by name
    Batch = tuple[Ways, Any, Any]  # implementations, patterns, and the expected results

FUNCTIONS = ("f32_ceil", "f32_floor", "f32_trunc", "f32_nearest")
PATTERNS = 1 << 32

_FRACTION_BITS = 23
_BIAS = 127
_SIGN = 1 << 31
_ONE = _BIAS << _FRACTION_BITS
_HALF = (_BIAS - 1) << _FRACTION_BITS
_QUIET = 1 << 22
BLOCK = 1 << 15
"""Patterns of a block: the arrays of a block fit the second-level cache."""

_TOLD = 1 << 23
"""Patterns between two calls of `tell`: those of one sign and exponent."""

_SAMPLES = 16
"""Random patterns of each sign and exponent on which the oracle is compared with the fallback."""


class PatternDifference(NamedTuple):
    """A pattern for which an implementation differs from the oracle."""

    way: str  # name of the implementation
    pattern: int
    got: int
    wanted: int

    def __str__(self) -> str:
        return f"{self.way}: {self.pattern:#010x} gave {self.got:#010x}, not {self.wanted:#010x}"


class Exhaustive(NamedTuple):
    """The result for one function."""

    name: str
    ways: tuple[str, ...]  # the implementations that were compared with the oracle
    patterns: int  # number of patterns that each of them rounded
    seconds: float
    difference: PatternDifference | None  # the first one


def verify_exhaustively(
    name: str,
    tell: Callable[[str, int], None] = lambda name, done: None,
    tops: Sequence[int] = range(512),
) -> Exhaustive:
    """Round every f32 with each implementation of one of :data:`FUNCTIONS`, and compare.

    The check ends at the first difference. `tell` is called now and then with the name and the
    number of patterns done. `tops` are values of sign and exponent.
    """
    ways = _ways(name)
    return compare(name, ways, _batches(name, ways, tops), tell)


def compare(
    name: str, ways: Ways, batches: Iterable[Batch], tell: Callable[[str, int], None]
) -> Exhaustive:
    """Compare implementations with the expected results, batch by batch, up to a difference."""
    started, done = time.monotonic(), 0
    difference = None
    for checked, patterns, wanted in batches:
        difference = _first_difference(checked, patterns, wanted)
        if difference is not None:
            break
        if checked is ways:
            done += patterns.size
            if done % _TOLD == 0:
                tell(name, done)
    return Exhaustive(name, tuple(ways), done, time.monotonic() - started, difference)


def _batches(name: str, ways: Ways, tops: Sequence[int]) -> Iterator[Batch]:
    for top in tops:
        yield _check_of_the_oracle(name, top)
        first = top << _FRACTION_BITS
        for patterns in blocks(range(first, first + (1 << _FRACTION_BITS), BLOCK)):
            yield ways, patterns, _oracle(name, top, patterns)


def blocks(starts: Sequence[int]) -> Iterator[Any]:
    """Yield arrays of :data:`BLOCK` patterns from each start on, all in the same memory."""
    first = np.arange(BLOCK, dtype=np.uint32)
    patterns = np.empty_like(first)
    for start in starts:
        yield np.add(first, np.uint32(start), out=patterns)


def _first_difference(ways: Ways, patterns: Any, wanted: Any) -> PatternDifference | None:
    for way, function in ways.items():
        got = function(patterns)
        if not np.array_equal(got, wanted):
            i = int(np.flatnonzero(got != wanted)[0])
            return PatternDifference(way, int(patterns[i]), int(got[i]), int(wanted[i]))
    return None


def _oracle(name: str, top: int, patterns: Any) -> Any:
    """Round patterns that share the sign and exponent `top`."""
    negative, exponent = top >> 8, top & 0xFF
    if exponent == 0xFF:  # infinity, with the fraction 0, and NaNs, which become quiet
        is_nan = (patterns & np.uint32(_QUIET * 2 - 1)) != 0
        return patterns | is_nan.astype(np.uint32) * np.uint32(_QUIET)
    if exponent >= _BIAS + _FRACTION_BITS:  # no digits after the point
        return patterns
    away = {"f32_ceil": not negative, "f32_floor": negative, "f32_trunc": False}.get(name)
    if exponent < _BIAS:
        sign = np.uint32(negative * _SIGN)
        magnitude = patterns & np.uint32(_SIGN - 1)
        if away is None:  # nearest: one half is as near to the even number 0
            up = magnitude > np.uint32(_HALF)
        else:
            up = magnitude != 0 if away else magnitude < 0
        return up.astype(np.uint32) * np.uint32(_ONE) + sign
    # The digits after the point are the pattern's low bits. The last digit before it has the weight
    # `unit`. A carry out of the fraction correctly gives the next exponent's first pattern.
    unit = 1 << (_BIAS + _FRACTION_BITS - exponent)
    if away is None:
        # Ties go to even: half a unit is added, or just less if the digit before the point is even.
        # That digit is the bit `unit`. For 1.x it is the implicit 1, which equals the lowest bit of
        # the exponent's pattern.
        odd = (patterns >> np.uint32(unit.bit_length() - 1)) & np.uint32(1)
        return (patterns + (np.uint32(unit // 2 - 1) + odd)) & np.uint32(2**32 - unit)
    if away:
        return (patterns + np.uint32(unit - 1)) & np.uint32(2**32 - unit)
    return patterns & np.uint32(2**32 - unit)


def _check_of_the_oracle(name: str, top: int) -> Batch:
    fallback = getattr(importlib.import_module("asm_libcalls.fallback.rounding"), name)
    lowest = top << _FRACTION_BITS
    fractions = {0, 1, _QUIET - 1, _QUIET, _QUIET + 1, 2 * _QUIET - 1}
    chosen = random.Random(top)
    fractions.update(chosen.getrandbits(_FRACTION_BITS) for _ in range(_SAMPLES))
    fractions.update(1 << bit for bit in range(_FRACTION_BITS))
    patterns = np.array(sorted(lowest + fraction for fraction in fractions), dtype=np.uint32)
    wanted = np.array([fallback(pattern) for pattern in patterns.tolist()], dtype=np.uint32)
    return {"the oracle, against the fallback": partial(_oracle, name, top)}, patterns, wanted


def _ways(name: str) -> Ways:
    from asm_libcalls import LIBCALLS, ufuncs

    ufunc = getattr(ufuncs, name.partition("_")[2])
    spread = np.zeros(2 * BLOCK, dtype=np.uint32)[::2]
    spread_out = np.zeros(2 * BLOCK, dtype=np.uint32)[::2]
    out = np.zeros(BLOCK, dtype=np.uint32)

    def run(source: Any, target: Any, patterns: Any) -> Any:
        if source is None:
            source = patterns
        else:
            source[:] = patterns
        with np.errstate(invalid="ignore"):  # signalling NaNs
            ufunc(source.view(np.float32), out=target.view(np.float32))
        return target

    ways: Ways = {
        "ufunc contiguous": partial(run, None, out),
        "ufunc strided input": partial(run, spread, out),
        "ufunc strided": partial(run, spread, spread_out),
    }
    libcall = LIBCALLS[name]
    if libcall.backend == "x86_64":
        from asm_libcalls.x86_64.call_loops import NativeLoops

        call_each = NativeLoops().function("(f32) -> f32")

        def called(patterns: Any) -> Any:
            call_each(libcall.address, patterns.ctypes.data, out.ctypes.data, patterns.size)
            return out

        ways = {"libcall": called, **ways}
    return ways
