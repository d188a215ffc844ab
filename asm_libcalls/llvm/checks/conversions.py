"""Checks of 128-bit integers from and to floats.

To an integer, the oracle truncates an exact fraction. From an integer, it searches the nearest
float. Results out of range are compiler-rt's: fp_fixint_impl.inc, fp_fixuint_impl.inc (LLVM 22).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.checks.float_formats import FORMATS
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.nearest import edge_patterns, nearest, random_pattern, value_of
from asm_libcalls.llvm.checks.wide_integers import BOUNDARIES, MODULUS, random_integer, signed

_POWERS = (-1, 0, 1, 10, 11, 23, 24, 31, 32, 52, 53, 62, 63, 64, 65, 126, 127, 128, 129)


def _integers() -> list[int]:
    """Return the boundaries, and the ties of all formats with their neighbours."""
    found = set(BOUNDARIES)
    for digits in (11, 24, 53):
        for length in (digits + 1, digits + 2, 64, 65, 100, 127):
            unit = 1 << (length - digits)
            for odd in (0, 1):
                tie = (1 << (length - 1)) + odd * unit + unit // 2
                found |= {tie - 1, tie, tie + 1, -tie % MODULUS, (1 << length) - unit // 2}
    return sorted({*found, *(65504 + i for i in (0, 15, 16, 17)), 65520 * 2})


_INTEGERS = _integers()


class _ConversionChecker(PatternChecker):
    """Chosen powers of two, ties, and both ends of each range."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int]]:
        name = libcall.signature.parameters[0].name
        patterns = edge_patterns(name, _POWERS) if name in FORMATS else iter(_INTEGERS)
        return ((pattern,) for pattern in patterns)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int]]:
        name = libcall.signature.parameters[0].name
        while True:
            yield (random_pattern(name, source) if name in FORMATS else _random_integer(source),)

    def oracle(self, libcall: Libcall) -> Callable[[int], int]:
        parameter, result = libcall.signature.parameters[0], libcall.signature.result
        assert result is not None
        if parameter.name in FORMATS:
            return partial(_to_signed if result.signed else _to_unsigned, parameter.name)

        def convert(pattern: int) -> int:
            integer = signed(pattern) if parameter.signed else pattern
            return nearest(result.name, Fraction(abs(integer)), integer < 0)

        return convert


def _random_integer(source: Random) -> int:
    integer = random_integer(source)
    if source.getrandbits(1):  # few bits set, so that ties are frequent
        integer &= -1 << source.getrandbits(7)
    return integer % MODULUS


def _is_beyond(format_: str, pattern: int) -> bool:
    if FORMATS[format_].is_nan(pattern):
        return True
    # value_of() returns 65536 for an f16's infinity, which 128 bits could hold.
    largest = MODULUS if format_ != "f16" else 65536
    return abs(value_of(format_, pattern)) >= largest


def _to_signed(format_: str, pattern: int) -> int:
    if _is_beyond(format_, pattern):
        return 2**127 if pattern & FORMATS[format_].sign else 2**127 - 1
    return math.trunc(value_of(format_, pattern)) % MODULUS


def _to_unsigned(format_: str, pattern: int) -> int:
    if pattern & FORMATS[format_].sign:
        return 0
    if _is_beyond(format_, pattern):
        return MODULUS - 1
    return math.trunc(value_of(format_, pattern))


CHECKER = _ConversionChecker()
