"""f16 and bf16 from and to f32 and f64, on bit patterns.

A narrowing conversion rounds once, to nearest, ties to even. A NaN becomes quiet and keeps the
upper part of its payload. A widening conversion keeps all bits of a NaN, as does the conversion of
an f32 that is already a bf16.

Source: compiler-rt of LLVM 22, fp_trunc_impl.inc, fp_extend_impl.inc.
"""

from __future__ import annotations

from functools import partial

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


truncsfhf2 = gnu_f2h_ieee = partial(_convert, F32, F16)
truncdfhf2, truncdfbf2 = partial(_convert, F64, F16), partial(_convert, F64, BF16)
extendhfsf2 = partial(_convert, F16, F32)


def gnu_h2f_ieee(x: int) -> int:
    """Convert an f16, the low bits of an integer, to f32."""
    return extendhfsf2(x & 0xFFFF)


def truncsfbf2(x: int) -> int:
    """Convert an f32 to bf16."""
    return x >> 16 if x & 0xFFFF == 0 else _convert(F32, BF16, x)


def extendbfsf2(x: int) -> int:
    """Convert a bf16 to f32."""
    return x << 16
