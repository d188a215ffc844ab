"""The oracle of rounding: finds the pattern of a format whose value is nearest.

Values are exact fractions, and patterns of one sign are in the order of their values. So bisection
finds the nearest one, without shifting or truncating.

Source: IEEE 754-2019, 4.3.1: ties to even; infinity counts as the number after the largest one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from random import Random

from asm_libcalls.checks.float_formats import FORMATS


def value_of(format_: str, pattern: int) -> Fraction:
    """Return the exact value of a pattern that is no NaN; infinity as the next number."""
    form = FORMATS[format_]
    if pattern & form.sign:
        return -value_of(format_, pattern & ~form.sign)
    if pattern == form.infinity:
        return Fraction(2) ** (form.bias + 1)
    if format_ == "bf16":
        format_, pattern = "f32", pattern << 16
    code = {"f16": "<e", "f32": "<f", "f64": "<d"}[format_]
    raw = pattern.to_bytes(FORMATS[format_].bits // 8, "little")
    return Fraction(struct.unpack(code, raw)[0])


def nearest(format_: str, value: Fraction, negative: bool) -> int:
    """Return the pattern nearest to a magnitude, with a sign."""
    low, high = 0, FORMATS[format_].infinity
    if value >= value_of(format_, high):
        low = high
    else:
        # Search only near the guess if the value is there, which is checked.
        guess = _guess(format_, value)
        around = max(guess - 2, low), min(guess + 2, high)
        if value_of(format_, around[0]) <= value < value_of(format_, around[1]):
            low, high = around
    while high - low > 1:
        middle = (low + high) // 2
        if value_of(format_, middle) <= value:
            low = middle
        else:
            high = middle
    below, above = value - value_of(format_, low), value_of(format_, high) - value
    magnitude = high if above < below or (above == below and low % 2) else low
    return magnitude | (FORMATS[format_].sign if negative else 0)


def _guess(format_: str, value: Fraction) -> int:
    try:
        number = float(value)
        if format_ == "f64":
            return int.from_bytes(struct.pack("<d", number), "little")
        as_f32 = int.from_bytes(struct.pack("<f", number), "little")
        return as_f32 >> 16 if format_ == "bf16" else as_f32 if format_ == "f32" else 0
    except OverflowError:
        return FORMATS[format_].infinity


def edge_patterns(format_: str, exponents: tuple[int, ...] = ()) -> Iterator[int]:
    """Yield patterns where mistakes are likely.

    The powers of two of these exponents are among them; those at the ends of the format's own range
    always are.
    """
    form = FORMATS[format_]
    fraction_bits, largest, bias = form.fraction_bits, form.largest_field, form.bias
    fields = {0, 1, bias - 1, bias, largest - 1, largest} | {
        field for power in exponents if 0 <= (field := power + bias) <= largest
    }
    full, half = (1 << fraction_bits) - 1, form.quiet
    fractions = {0, 1, half - 1, half, half + 1, full - 1, full}
    for kept in (7, 10):  # ties of the narrower formats, and their neighbours
        if kept < fraction_bits:
            unit = 1 << (fraction_bits - kept)
            for odd in (0, 1):
                tie = unit * odd + unit // 2
                fractions |= {tie - 1, tie, tie + 1, full - tie, full - tie + 1, full - tie + 2}
    for sign in (0, form.sign):
        for field in sorted(fields):
            for fraction in sorted(fractions):
                yield sign | field << fraction_bits | fraction & full


def random_pattern(format_: str, source: Random) -> int:
    """Return a pattern; every second one is of moderate size."""
    form = FORMATS[format_]
    pattern = source.getrandbits(form.bits)
    if source.getrandbits(1):
        spread = min(form.bias - 1, 140)
        field = form.bias + source.randrange(-spread, spread + 1)
        pattern = pattern & ~form.infinity | field << form.fraction_bits
    if source.getrandbits(2) == 0:  # few bits set, so that ties are frequent
        pattern &= -1 << source.randrange(form.bits)
    return pattern & ((1 << form.bits) - 1)
