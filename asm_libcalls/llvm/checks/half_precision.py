"""Checks of f16 and bf16 from and to f32 and f64: the oracle searches the nearest float.

The results for NaNs are compiler-rt's: fp_trunc_impl.inc, fp_extend_impl.inc (LLVM 22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.nearest import (
    WIDTHS,
    edge_patterns,
    is_nan,
    nearest,
    random_pattern,
    value_of,
)

__all__ = ["CHECKER", "formats"]

_POWERS = (-149, -134, -133, -132, -127, -126, -26, -25, -24, -23, -15, -14, 14, 15, 16, 127, 128)


def formats(libcall: Libcall) -> tuple[str, str]:
    """Return the formats converted from and to; some libcalls pass an f16 as an integer."""
    result = libcall.signature.result
    assert result is not None
    source, target = libcall.signature.parameters[0].name, result.name
    return "f16" if source == "u32" else source, "f16" if target == "u32" else target


class HalfPrecisionChecker(PatternChecker):
    """The ends of all ranges, normal and subnormal, and ties."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int]]:
        """Yield numbers of the parameter's type."""
        return ((pattern,) for pattern in edge_patterns(formats(libcall)[0], _POWERS))

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int]]:
        """Yield numbers of every size."""
        upper = source.getrandbits(16) << 16 if libcall.name == "gnu_h2f_ieee" else 0
        while True:
            yield (random_pattern(formats(libcall)[0], source) | upper,)

    def oracle(self, libcall: Libcall) -> Callable[[int], int]:
        """Return the same by exact fractions."""
        source, target = formats(libcall)
        source_bits, source_fraction = _widths(source)
        target_bits, target_fraction = _widths(target)
        sign, target_sign = 1 << (source_bits - 1), 1 << (target_bits - 1)
        widening = target_fraction - source_fraction

        def convert(pattern: int) -> int:
            pattern &= 2 * sign - 1
            negative = bool(pattern & sign)
            if not is_nan(source, pattern):
                if pattern & (sign - 1) == _infinity(source):
                    return _infinity(target) | target_sign * negative
                return nearest(target, abs(value_of(source, pattern)), negative)
            payload = pattern % (1 << source_fraction)
            if widening >= 0:
                payload *= 1 << widening
            else:
                is_bf16 = (source, target) == ("f32", "bf16") and payload % (1 << -widening) == 0
                payload //= 1 << -widening
                if not is_bf16:
                    payload |= 1 << (target_fraction - 1)
            return _infinity(target) + payload + target_sign * negative

        return convert


def _widths(format_: str) -> tuple[int, int]:
    bits, exponent = WIDTHS[format_]
    return bits, bits - 1 - exponent


def _infinity(format_: str) -> int:
    bits, fraction = _widths(format_)
    return (1 << (bits - 1)) - (1 << fraction)


CHECKER = HalfPrecisionChecker()
