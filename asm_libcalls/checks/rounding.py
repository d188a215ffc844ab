"""Checks of the rounding libcalls. The oracle computes with exact integers, not with patterns.

:func:`math.floor` and its relatives turn a float into an exact Python integer, which an f64
represents exactly if the float has a fraction. What an integer cannot represent (the sign of zero,
infinities, NaN) is decided here, by WebAssembly 2.0, 4.3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.checks.float_formats import FORMATS, FloatFormat
from asm_libcalls.libcall import Libcall
from asm_libcalls.signatures import ValueType

_TO_INTEGER: dict[str, Callable[[float], int]] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "nearest": round,  # to even, as Python defines it
}


def _around_the_point(form: FloatFormat, exponent: int, whole: int) -> Iterator[int]:
    """Yield magnitudes of one exponent, at and beside halves and integers.

    The exponent is unbiased: the magnitudes are from 2**exponent up to twice that. `whole` is a
    fraction; its digits after the binary point are ignored.
    """
    base = (exponent + form.bias) << form.fraction_bits
    unit = 1 << min(max(form.fraction_bits - exponent, 0), form.fraction_bits)
    fraction = whole & (1 << form.fraction_bits) - unit
    half = unit // 2
    for behind_point in dict.fromkeys((0, 1, half - 1, half, half + 1, unit - 1)):
        if 0 <= behind_point < unit:
            yield base | fraction | behind_point


class _RoundingChecker(PatternChecker):
    """Rounding: near the binary point, at the ends of the range, and every kind of NaN."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int]]:
        form = FORMATS[libcall.signature.parameters[0].name]
        ones = (1 << form.fraction_bits) - 1
        magnitudes = [0, 1, ones, ones + 1, form.infinity - 1, form.infinity]
        magnitudes += [form.infinity | p for p in (1, form.quiet - 1, form.quiet, ones)]
        for exponent in range(-3, form.fraction_bits + 3):
            # The last digit before the point decides a tie: even, odd, and odd with a carry.
            for whole in (0, 1 << max(form.fraction_bits - exponent, 0), ones):
                magnitudes += _around_the_point(form, exponent, whole)
        for magnitude in dict.fromkeys(magnitudes):
            yield (magnitude,)
            yield (magnitude | form.sign,)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int]]:
        """Yield patterns: half uniform, half with digits on both sides of the point."""
        form = FORMATS[libcall.signature.parameters[0].name]
        while True:
            pattern = source.getrandbits(form.bits)
            yield (pattern,)
            exponent = source.getrandbits(6) % (form.fraction_bits + 4) - 2
            near = list(_around_the_point(form, exponent, pattern % (1 << form.fraction_bits)))
            near.append(
                (exponent + form.bias) << form.fraction_bits | pattern % (1 << form.fraction_bits)
            )
            yield (near[source.getrandbits(8) % len(near)] | pattern & form.sign,)

    def oracle(self, libcall: Libcall) -> Callable[[int], int]:
        value_type = libcall.signature.parameters[0]
        return _oracle(value_type, _TO_INTEGER[libcall.name.partition("_")[2]])


def _oracle(value_type: ValueType, to_integer: Callable[[float], int]) -> Callable[[int], int]:
    form = FORMATS[value_type.name]

    def expected(pattern: int) -> int:
        magnitude = pattern & ~form.sign
        if magnitude > form.infinity:
            return pattern | form.quiet
        if magnitude == form.infinity:
            return pattern
        number = value_type.from_bits(pattern)
        return value_type.to_bits(math.copysign(float(to_integer(number)), number), "oracle")

    return expected


CHECKER = _RoundingChecker()
