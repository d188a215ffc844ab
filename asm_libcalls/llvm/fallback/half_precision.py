"""f16 and bf16 from and to f32 and f64, on bit patterns.

A narrowing conversion rounds once, to nearest, ties to even. A NaN becomes quiet and keeps the
upper part of its payload. A widening conversion keeps all bits of a NaN, as does the conversion of
an f32 that is already a bf16.

Source: compiler-rt of LLVM 22, fp_trunc_impl.inc, fp_extend_impl.inc.
"""

from __future__ import annotations

from asm_libcalls.llvm.fallback.binary_floats import BF16, F16, F32, F64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.llvm.fallback.binary_floats import Format


def _convert(source: Format, target: Format, pattern: int) -> int:
    sign = target.sign if pattern & source.sign else 0
    magnitude = source.magnitude(pattern)
    if magnitude < source.infinity:
        return sign | target.round(*source.split(pattern))
    payload = magnitude - source.infinity
    widening = target.fraction - source.fraction
    if widening >= 0:
        return sign | target.infinity | payload << widening
    return sign | target.infinity | (payload >> -widening | target.quiet if payload else 0)


def truncsfhf2(x: int) -> int:
    """Convert an f32 to f16."""
    return _convert(F32, F16, x)


def truncdfhf2(x: int) -> int:
    """Convert an f64 to f16."""
    return _convert(F64, F16, x)


def extendhfsf2(x: int) -> int:
    """Convert an f16 to f32."""
    return _convert(F16, F32, x)


def gnu_f2h_ieee(x: int) -> int:
    """Convert an f32 to f16, as an integer."""
    return _convert(F32, F16, x)


def gnu_h2f_ieee(x: int) -> int:
    """Convert an f16, as an integer, to f32."""
    return _convert(F16, F32, x & 0xFFFF)


def truncsfbf2(x: int) -> int:
    """Convert an f32 to bf16."""
    return x >> 16 if x & 0xFFFF == 0 else _convert(F32, BF16, x)


def truncdfbf2(x: int) -> int:
    """Convert an f64 to bf16."""
    return _convert(F64, BF16, x)


def extendbfsf2(x: int) -> int:
    """Convert a bf16 to f32."""
    return x << 16
