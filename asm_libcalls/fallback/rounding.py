"""Float rounding on bit patterns, correct for every pattern on any CPU and byte order.

An IEEE 754 pattern is sign, exponent, fraction from the top. For a magnitude of at least 1 the
fraction's low bits are the digits after the binary point. Rounding towards zero clears them.
Rounding away from zero also adds one to the digit before the point; a carry goes into the exponent,
which is right because patterns of one sign are ordered as the numbers are. Magnitudes below 1 give
0 or 1.

Source: WebAssembly 2.0, 4.3.3 (fceil, ffloor, ftrunc, fnearest); IEEE 754-2008, 3.4 and 5.9.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _rounding(
    exponent_bits: int, fraction_bits: int, away: Callable[[bool, int, bool], bool]
) -> Callable[[int], int]:
    """Make the rounding function of one format and one direction.

    ``away(negative, versus_half, odd)`` returns whether a value that is not integral rounds away
    from zero. `versus_half` is -1, 0 or 1 for a fractional part below, at or above one half; `odd`
    is whether the integral part is odd.
    """
    sign_mask = 1 << (exponent_bits + fraction_bits)
    bias = (1 << (exponent_bits - 1)) - 1
    infinity = ((1 << exponent_bits) - 1) << fraction_bits
    one = bias << fraction_bits
    half = (bias - 1) << fraction_bits
    first_integral = (bias + fraction_bits) << fraction_bits  # from here on no fractional digits
    quiet = 1 << (fraction_bits - 1)

    def round_pattern(pattern: int) -> int:
        sign = pattern & sign_mask
        magnitude = pattern & ~sign_mask
        if magnitude > infinity:
            return pattern | quiet
        if magnitude >= first_integral or magnitude == 0:
            return pattern
        if magnitude < one:
            versus_half = (magnitude > half) - (magnitude < half)
            return sign | (one if away(sign != 0, versus_half, False) else 0)
        unit = 1 << (fraction_bits - ((magnitude >> fraction_bits) - bias))
        rest = magnitude & (unit - 1)
        truncated = magnitude - rest
        if rest:
            versus_half = (2 * rest > unit) - (2 * rest < unit)
            # For 1.x the digit before the point is the implicit 1, and the pattern has the
            # exponent's lowest bit in its place; that is 1 too, because the bias is odd.
            if away(sign != 0, versus_half, truncated & unit != 0):
                truncated += unit
        return sign | truncated

    return round_pattern


def _ceil(negative: bool, versus_half: int, odd: bool) -> bool:
    return not negative


def _floor(negative: bool, versus_half: int, odd: bool) -> bool:
    return negative


def _trunc(negative: bool, versus_half: int, odd: bool) -> bool:
    return False


def _nearest(negative: bool, versus_half: int, odd: bool) -> bool:
    return versus_half > 0 or (versus_half == 0 and odd)


f32_ceil = _rounding(8, 23, _ceil)
f32_floor = _rounding(8, 23, _floor)
f32_trunc = _rounding(8, 23, _trunc)
f32_nearest = _rounding(8, 23, _nearest)
f64_ceil = _rounding(11, 52, _ceil)
f64_floor = _rounding(11, 52, _floor)
f64_trunc = _rounding(11, 52, _trunc)
f64_nearest = _rounding(11, 52, _nearest)
