"""Checks of powers. The oracle multiplies exact fractions and rounds each product to nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.checks.float_formats import FORMATS
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.nearest import nearest, random_pattern, value_of

_EXPONENTS = (0, 1, 2, 3, 13, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 7)


class PowerChecker(PatternChecker):
    """Numbers near 1, ends of the range and NaN, with small and large exponents."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, int]]:
        """Yield pairs."""
        return product(_edge_patterns(libcall.signature.parameters[0].name), _EXPONENTS)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield numbers near 1, and some of any size."""
        format_ = libcall.signature.parameters[0].name
        form = FORMATS[format_]
        while True:
            field = form.bias + source.randrange(-2, 3)
            near = field << form.fraction_bits | source.getrandbits(form.fraction_bits)
            yield (
                near | source.getrandbits(1) * form.sign, source.randrange(-200, 200) % 2**32
            )  # fmt: skip
            yield (random_pattern(format_, source), source.randrange(-6, 7) % 2**32)

    def oracle(self, libcall: Libcall) -> Callable[[int, int], int]:
        """Return the same by exact fractions."""
        format_ = libcall.signature.parameters[0].name
        one = FORMATS[format_].one

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
    form = FORMATS[format_]
    sign, infinity, one, least = form.sign, form.infinity, form.one, 1 << form.fraction_bits
    magnitudes = (
        0, 1, least, one - 1, one, one + 1, one + least, (one + 3) * 11 // 10,
        infinity - 1, infinity, infinity + 1, infinity | form.quiet, sign - 1,
    )  # fmt: skip
    return [magnitude | s for magnitude in magnitudes for s in (0, sign)]


def _split(format_: str, x: int) -> tuple[int, bool, bool]:
    """Return the sign bit of a number, and whether it is infinite or zero."""
    form = FORMATS[format_]
    return x & form.sign, x & ~form.sign == form.infinity, x & ~form.sign == 0


def _product(format_: str, x: int, y: int) -> int:
    for each in (x, y):
        if FORMATS[format_].is_nan(each):
            return each | FORMATS[format_].quiet
    (sign_x, infinite_x, _), (sign_y, infinite_y, _) = _split(format_, x), _split(format_, y)
    if infinite_x or infinite_y:  # times no zero: both are powers of one number
        return (x if infinite_x else y) & ~(sign_x | sign_y) | sign_x ^ sign_y
    return nearest(format_, abs(value_of(format_, x) * value_of(format_, y)), bool(sign_x ^ sign_y))


def _quotient(format_: str, one: int, x: int) -> int:
    form = FORMATS[format_]
    if form.is_nan(x):
        return x | form.quiet
    sign, infinite, zero = _split(format_, x)
    if infinite:
        return sign
    if zero:
        return sign | form.infinity
    return nearest(format_, abs(value_of(format_, one) / value_of(format_, x)), bool(sign))


CHECKER = PowerChecker()
