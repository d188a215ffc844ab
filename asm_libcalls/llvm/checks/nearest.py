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

__all__ = ["WIDTHS", "edge_patterns", "is_nan", "nearest", "random_pattern", "value_of"]

WIDTHS = {"f16": (16, 5), "bf16": (16, 8), "f32": (32, 8), "f64": (64, 11)}
"""Bits of each format, and of its exponent."""


def _infinity(format_: str) -> int:
    bits, exponent = WIDTHS[format_]
    return ((1 << exponent) - 1) << (bits - 1 - exponent)


def is_nan(format_: str, pattern: int) -> bool:
    """Return whether a pattern is a NaN's."""
    return pattern & ~(1 << (WIDTHS[format_][0] - 1)) > _infinity(format_)


def value_of(format_: str, pattern: int) -> Fraction:
    """Return the exact value of a pattern that is no NaN; infinity as the next number."""
    bits, exponent = WIDTHS[format_]
    sign = 1 << (bits - 1)
    if pattern & sign:
        return -value_of(format_, pattern & ~sign)
    if pattern == _infinity(format_):
        return Fraction(2) ** (1 << (exponent - 1))
    if format_ == "bf16":
        format_, pattern = "f32", pattern << 16
    code = {"f16": "<e", "f32": "<f", "f64": "<d"}[format_]
    raw = pattern.to_bytes(WIDTHS[format_][0] // 8, "little")
    return Fraction(struct.unpack(code, raw)[0])


def nearest(format_: str, value: Fraction, negative: bool) -> int:
    """Return the pattern nearest to a magnitude, with a sign."""
    low, high = 0, _infinity(format_)
    if value >= value_of(format_, high):
        low = high
    else:
        # Search only near the guess if the value is there; the guess is never trusted.
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
    return magnitude | (1 << (WIDTHS[format_][0] - 1) if negative else 0)


def _guess(format_: str, value: Fraction) -> int:
    try:
        number = float(value)
        if format_ == "f64":
            return int.from_bytes(struct.pack("<d", number), "little")
        as_f32 = int.from_bytes(struct.pack("<f", number), "little")
        return as_f32 >> 16 if format_ == "bf16" else as_f32 if format_ == "f32" else 0
    except OverflowError:
        return _infinity(format_)


def edge_patterns(format_: str, exponents: tuple[int, ...] = ()) -> Iterator[int]:
    """Yield patterns where mistakes are likely.

    Parameters
    ----------
    format_ : str
    exponents : tuple of int
        Powers of two to include; the ends of the format's own range always are.
    """
    bits, exponent_bits = WIDTHS[format_]
    fraction_bits = bits - 1 - exponent_bits
    largest = (1 << exponent_bits) - 1
    bias = largest >> 1
    fields = {0, 1, bias - 1, bias, largest - 1, largest} | {
        field for power in exponents if 0 <= (field := power + bias) <= largest
    }
    full, half = (1 << fraction_bits) - 1, 1 << (fraction_bits - 1)
    fractions = {0, 1, half - 1, half, half + 1, full - 1, full}
    for kept in (7, 10):  # ties of the narrower formats, and their neighbours
        if kept < fraction_bits:
            unit = 1 << (fraction_bits - kept)
            for odd in (0, 1):
                tie = unit * odd + unit // 2
                fractions |= {tie - 1, tie, tie + 1, full - tie, full - tie + 1, full - tie + 2}
    for sign in (0, 1 << (bits - 1)):
        for field in sorted(fields):
            for fraction in sorted(fractions):
                yield sign | field << fraction_bits | fraction & full


def random_pattern(format_: str, source: Random) -> int:
    """Return a pattern; every second one is of moderate size."""
    bits, exponent_bits = WIDTHS[format_]
    pattern = source.getrandbits(bits)
    if source.getrandbits(1):
        fraction_bits = bits - 1 - exponent_bits
        bias = (1 << exponent_bits) // 2 - 1
        spread = min(bias - 1, 140)
        field = bias + source.randrange(-spread, spread + 1)
        mask = ((1 << exponent_bits) - 1) << fraction_bits
        pattern = pattern & ~mask | field << fraction_bits
    if source.getrandbits(2) == 0:  # few bits set, so that ties are frequent
        pattern &= -1 << source.randrange(bits)
    return pattern & ((1 << bits) - 1)
