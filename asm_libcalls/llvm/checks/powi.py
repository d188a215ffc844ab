"""Checks of powers. The oracle multiplies exact fractions and rounds each product to nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.nearest import WIDTHS, is_nan, nearest, random_pattern, value_of

__all__ = ["CHECKER"]

_EXPONENTS = (0, 1, 2, 3, 13, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 7)


class PowerChecker(PatternChecker):
    """Numbers near 1, ends of the range and NaN, with small and large exponents."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, int]]:
        """Yield pairs."""
        return product(_edge_patterns(libcall.signature.parameters[0].name), _EXPONENTS)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield numbers near 1, and some of any size."""
        format_ = libcall.signature.parameters[0].name
        bits, exponent = WIDTHS[format_]
        fraction = bits - 1 - exponent
        one = (1 << (exponent - 1)) - 1
        while True:
            field = one + source.randrange(-2, 3)
            near = field << fraction | source.getrandbits(fraction)
            yield (
                near | source.getrandbits(1) << (bits - 1), source.randrange(-200, 200) % 2**32
            )  # fmt: skip
            yield (random_pattern(format_, source), source.randrange(-6, 7) % 2**32)

    def oracle(self, libcall: Libcall) -> Callable[[int, int], int]:
        """Return the same by exact fractions."""
        format_ = libcall.signature.parameters[0].name
        bits, exponent_bits = WIDTHS[format_]
        one = ((1 << (exponent_bits - 1)) - 1) << (bits - 1 - exponent_bits)

        def power(x: int, exponent: int) -> int:
            signed = exponent - 2**32 if exponent >= 2**31 else exponent
            # The digits of the exponent, the lowest first, each with the square before it.
            result = one
            for digit in reversed(f"{abs(signed):b}"):
                if digit == "1":
                    result = _product(format_, result, x)
                x = _product(format_, x, x)
            return _quotient(format_, one, result) if signed < 0 else result

        return power


def _edge_patterns(format_: str) -> list[int]:
    bits, exponent = WIDTHS[format_]
    fraction = bits - 1 - exponent
    bias = (1 << (exponent - 1)) - 1
    sign, infinity = 1 << (bits - 1), ((1 << exponent) - 1) << fraction
    one = bias << fraction
    magnitudes = (
        0, 1, 1 << fraction, one - 1, one, one + 1, one + (1 << fraction), (one + 3) * 11 // 10,
        infinity - 1, infinity, infinity + 1, infinity | 1 << (fraction - 1), sign - 1,
    )  # fmt: skip
    return [magnitude | s for magnitude in magnitudes for s in (0, sign)]


def _split(format_: str, x: int) -> tuple[int, bool, bool]:
    """Return the sign bit of a number, and whether it is infinite or zero."""
    bits, exponent = WIDTHS[format_]
    sign, infinity = 1 << (bits - 1), ((1 << exponent) - 1) << (bits - 1 - exponent)
    return x & sign, x & ~sign == infinity, x & ~sign == 0


def _quiet(format_: str, x: int) -> int:
    bits, exponent = WIDTHS[format_]
    return x | 1 << (bits - 2 - exponent)


def _product(format_: str, x: int, y: int) -> int:
    for each in (x, y):
        if is_nan(format_, each):
            return _quiet(format_, each)
    (sign_x, infinite_x, _), (sign_y, infinite_y, _) = _split(format_, x), _split(format_, y)
    if infinite_x or infinite_y:  # times no zero: both are powers of one number
        return (x if infinite_x else y) & ~(sign_x | sign_y) | sign_x ^ sign_y
    return nearest(format_, abs(value_of(format_, x) * value_of(format_, y)), bool(sign_x ^ sign_y))


def _quotient(format_: str, one: int, x: int) -> int:
    if is_nan(format_, x):
        return _quiet(format_, x)
    sign, infinite, zero = _split(format_, x)
    if infinite:
        return sign
    if zero:
        bits, exponent = WIDTHS[format_]
        return sign | ((1 << exponent) - 1) << (bits - 1 - exponent)
    return nearest(format_, abs(value_of(format_, one) / value_of(format_, x)), bool(sign))


CHECKER = PowerChecker()
