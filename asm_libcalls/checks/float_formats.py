"""The numbers of the binary float formats, for cases and oracles.

The fallback of LLVM's libcalls has its own, so that a mistake in one of them is found.
Source: IEEE 754-2019, 3.4 (interchange formats).
"""

from __future__ import annotations


class FloatFormat:
    """A format, by its width and the bits of its exponent."""

    def __init__(self, bits: int, exponent_bits: int) -> None:
        self.bits = bits
        self.fraction_bits = bits - 1 - exponent_bits
        # `sign`, `infinity`, `quiet`, `one`: the patterns of the sign, of infinity, of the bit that
        # makes a NaN quiet, and of 1.0
        self.sign = 1 << (bits - 1)
        self.infinity = self.sign - (1 << self.fraction_bits)
        self.quiet = 1 << (self.fraction_bits - 1)
        self.largest_field = (1 << exponent_bits) - 1  # of the exponent: infinity's and that of NaN
        self.bias = self.largest_field >> 1
        self.one = self.bias << self.fraction_bits

    def is_nan(self, pattern: int) -> bool:
        """Return whether a pattern is a NaN's."""
        return pattern & ~self.sign > self.infinity


FORMATS = {
    "f16": FloatFormat(16, 5),
    "bf16": FloatFormat(16, 8),
    "f32": FloatFormat(32, 8),
    "f64": FloatFormat(64, 11),
}
