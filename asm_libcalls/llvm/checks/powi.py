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


class _PowerChecker(PatternChecker):
    """Numbers near 1, ends of the range and NaN, with small and large exponents."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, int]]:
        return product(_edge_patterns(libcall.signature.parameters[0].name), _EXPONENTS)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        format_ = libcall.signature.parameters[0].name
        form = FORMATS[format_]
        while True:
            field = form.bias + source.randrange(-2, 3)
            near = field << form.fraction_bits | source.getrandbits(form.fraction_bits)
            near |= source.getrandbits(1) * form.sign
            yield (near, source.randrange(-200, 200) % 2**32)
            yield (random_pattern(format_, source), source.randrange(-6, 7) % 2**32)

    def oracle(self, libcall: Libcall) -> Callable[[int, int], int]:
        format_ = libcall.signature.parameters[0].name

        def power(x: int, exponent: int) -> int:
            signed = exponent - 2**32 if exponent >= 2**31 else exponent
            # The exponent's binary digits, the lowest first; x is squared after each.
            result = FORMATS[format_].one
            for digit in reversed(f"{abs(signed):b}"):
                if digit == "1":
                    result = _product(format_, result, x)
                x = _product(format_, x, x)
            return _reciprocal(format_, result) if signed < 0 else result

        return power


def _edge_patterns(format_: str) -> list[int]:
    form = FORMATS[format_]
    sign, infinity, one, least = form.sign, form.infinity, form.one, 1 << form.fraction_bits
    magnitudes = (
        0, 1, least, one - 1, one, one + 1, one + least, (one + 3) * 11 // 10,
        infinity - 1, infinity, infinity + 1, infinity | form.quiet, sign - 1,
    )  # fmt: skip
    return [magnitude | s for magnitude in magnitudes for s in (0, sign)]


def _product(format_: str, x: int, y: int) -> int:
    form = FORMATS[format_]
    for each in (x, y):
        if form.is_nan(each):
            return each | form.quiet
    sign = (x ^ y) & form.sign
    if form.infinity in (x & ~form.sign, y & ~form.sign):
        return sign | form.infinity  # times no zero: both are powers of one number
    return nearest(format_, abs(value_of(format_, x) * value_of(format_, y)), bool(sign))


def _reciprocal(format_: str, x: int) -> int:
    form = FORMATS[format_]
    if form.is_nan(x):
        return x | form.quiet
    sign, magnitude = x & form.sign, x & ~form.sign
    if magnitude == form.infinity:
        return sign
    if magnitude == 0:
        return sign | form.infinity
    return nearest(format_, 1 / value_of(format_, magnitude), bool(sign))


CHECKER = _PowerChecker()
