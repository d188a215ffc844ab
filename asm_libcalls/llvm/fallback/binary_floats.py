"""The binary float formats, and rounding of exact numbers to them: to nearest, ties to even.

All arithmetic is on integers, so the CPU's rounding mode and its NaNs have no effect.

Source: IEEE 754-2019, 3.4 (interchange formats), 4.3.1 (roundTiesToEven).
"""

from __future__ import annotations


class Format:
    """A binary interchange format."""

    __slots__ = ("bias", "bits", "fraction", "infinity", "quiet", "sign")

    def __init__(self, bits: int, fraction: int) -> None:
        self.bits = bits  # its width
        self.fraction = fraction  # bits of the fraction
        # `sign`, `infinity`, `quiet`: the patterns of the sign, of infinity, and of the bit that
        # makes a NaN quiet
        self.sign = 1 << (bits - 1)
        self.infinity = self.sign - (1 << fraction)
        self.quiet = 1 << (fraction - 1)
        self.bias = (self.infinity >> fraction) // 2  # of the exponent

    def magnitude(self, pattern: int) -> int:
        """Return a pattern without its sign."""
        return pattern & (self.sign - 1)

    def is_nan(self, pattern: int) -> bool:
        """Return whether a pattern is a NaN's."""
        return self.magnitude(pattern) > self.infinity

    def split(self, pattern: int) -> tuple[int, int]:
        """Return (significand, exponent) of a finite number, without its sign."""
        exponent, fraction = divmod(self.magnitude(pattern), 1 << self.fraction)
        if exponent:
            fraction += 1 << self.fraction
        return fraction, max(exponent, 1) - self.bias - self.fraction

    def round(self, numerator: int, exponent: int, denominator: int = 1) -> int:
        """Return the pattern nearest to numerator * 2**exponent / denominator, both >= 0."""
        if numerator == 0:
            return 0
        # The result's last bit is worth 2**unit; all subnormal numbers have the least unit.
        length = numerator.bit_length() - denominator.bit_length()  # or one less
        if (numerator << max(-length, 0)) < (denominator << max(length, 0)):
            length -= 1
        unit = max(length + exponent, 1 - self.bias) - self.fraction
        shift = exponent - unit
        whole, rest = divmod(numerator << max(shift, 0), divisor := denominator << max(-shift, 0))
        whole += rest * 2 > divisor or (rest * 2 == divisor and whole & 1)
        # A number of `fraction` + 1 bits is normal: its topmost bit, or a carry, increments the
        # exponent.
        pattern = whole + ((unit + self.fraction + self.bias - 1) << self.fraction)
        return min(pattern, self.infinity)


F16 = Format(16, 10)
BF16 = Format(16, 7)
F32 = Format(32, 23)
F64 = Format(64, 52)
