"""Checks of f16 and bf16 from and to f32 and f64: the oracle searches the nearest float.

The results for NaNs are compiler-rt's: fp_trunc_impl.inc, fp_extend_impl.inc (LLVM 22).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.checks.float_formats import FORMATS
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.nearest import edge_patterns, nearest, random_pattern, value_of

_POWERS = (-149, -134, -133, -132, -127, -126, -26, -25, -24, -23, -15, -14, 14, 15, 16, 127, 128)


def formats(libcall: Libcall) -> tuple[str, str]:
    """Return the formats converted from and to; some libcalls pass an f16 as an integer."""
    result = libcall.signature.result
    assert result is not None
    source, target = libcall.signature.parameters[0].name, result.name
    return "f16" if source == "u32" else source, "f16" if target == "u32" else target


class _HalfPrecisionChecker(PatternChecker):
    """The ends of all ranges, normal and subnormal, and ties."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int]]:
        return ((pattern,) for pattern in edge_patterns(formats(libcall)[0], _POWERS))

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int]]:
        upper = source.getrandbits(16) << 16 if libcall.name == "gnu_h2f_ieee" else 0
        while True:
            yield (random_pattern(formats(libcall)[0], source) | upper,)

    def oracle(self, libcall: Libcall) -> Callable[[int], int]:
        source, target = formats(libcall)
        form, to = FORMATS[source], FORMATS[target]
        widening = to.fraction_bits - form.fraction_bits

        def convert(pattern: int) -> int:
            pattern &= 2 * form.sign - 1
            negative = bool(pattern & form.sign)
            if not form.is_nan(pattern):
                if pattern & ~form.sign == form.infinity:
                    return to.infinity | to.sign * negative
                return nearest(target, abs(value_of(source, pattern)), negative)
            payload = pattern % (1 << form.fraction_bits)
            if widening >= 0:
                payload *= 1 << widening
            else:
                is_bf16 = (source, target) == ("f32", "bf16") and payload % (1 << -widening) == 0
                payload //= 1 << -widening
                if not is_bf16:
                    payload |= to.quiet
            return to.infinity + payload + to.sign * negative

        return convert


CHECKER = _HalfPrecisionChecker()
