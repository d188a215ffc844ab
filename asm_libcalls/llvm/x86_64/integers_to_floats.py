"""128-bit integers to floats, rounded to nearest, ties to even; the float formats of both ways.

MXCSR's rounding mode has no effect. Where the CPU has AVX-512, an instruction with a rounding mode
of its own converts what fits 64 bits. Elsewhere, ``cvtsi2sd`` converts what the float holds
exactly. All others are rounded in integer arithmetic.

Source: compiler-rt of LLVM 22, int_to_fp_impl.inc; Intel SDM volume 1, 15.6.4 (static rounding
mode), volume 2, CVTSI2SD.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from peachpy.x86_64 import (
    ADC, AND, BSR, BT, CMP, JNE, JNZ, JZ, LABEL, LZCNT, MOV, MOVZX, NOT, OR, RCR, RET, SAR, SBB,
    SHL, SHR, SUB, TEST, XOR, Label, ax, cl, eax, ecx, r8, r8d, rax, rcx, rdi, rdx, rsi, xmm0,
)  # fmt: skip

from asm_libcalls.llvm.x86_64.vex import copying, updating
from asm_libcalls.x86_64.assembler.instructions import CONVERT_TO_NEAREST


class Float(NamedTuple):
    """A format: its letters in libcalls' names, its fraction's bits, its exponent's bias."""

    letters: str
    fraction: int
    bias: int


F16, F32, F64 = Float("hf", 10, 15), Float("sf", 23, 127), Float("df", 52, 1023)

MAXIMUM = (1 << 63) - 1


def from_integer(features: frozenset[str], format_: Float, is_signed: bool) -> None:
    """Emit the conversion of rdi:rsi."""
    is_exact, one_word, long = Label("is_exact"), Label("one_word"), Label("long")
    if is_signed:
        MOV(r8, rdi)
        SAR(r8, 63)
        CMP(r8, rsi)
        JNE(long)
    else:
        TEST(rsi, rsi)
        JNZ(long)
    rounds = "avx512f" in features
    if rounds:
        updating(features, "XORPS")(xmm0, xmm0)  # removes the dependency on the old xmm0
        CONVERT_TO_NEAREST(xmm0, rdi, is_signed, format_ is F64)
        RET()
    else:
        MOV(rax, rdi)
        if is_signed:
            XOR(rax, r8)  # the magnitude, or one less
        MOV(rcx, rax)
        SHR(rcx, format_.fraction + 1)  # not 0 if a float may not hold it exactly
        JZ(is_exact)
        if is_signed:
            SUB(rax, r8)

    if is_signed or not rounds:
        LABEL(one_word)
        _count_leading_zeros(features, rax)
        SHL(rax, cl)
        _round(features, format_, is_signed, 63)

    if not rounds:
        LABEL(is_exact)
        updating(features, "XORPS")(xmm0, xmm0)
        updating(features, "CVTSI2SD" if format_ is F64 else "CVTSI2SS")(xmm0, rdi)
        RET()

    LABEL(long)
    if is_signed:
        take_magnitude(rdi, rsi, r8)
        MOV(rax, rdi)
        TEST(rsi, rsi)
        JZ(one_word)
    _count_leading_zeros(features, rsi)
    MOV(rax, rdi)
    SHL(rdi, cl)
    SHL(rsi, cl)
    NOT(ecx)  # 63 - ecx modulo 64, as shifts count
    SHR(rax, 1)
    SHR(rax, cl)
    NOT(ecx)
    OR(rax, rsi)
    _round(features, format_, is_signed, 127, rdi)


def half_from_integer(features: frozenset[str], is_signed: bool) -> None:
    """Emit the conversion of rdi:rsi."""
    infinite, zero = Label("infinite"), Label("zero")
    if is_signed:
        take_magnitude(rdi, rsi, r8)
    MOV(rax, rdi)
    SHR(rax, 16)
    OR(rax, rsi)
    JNZ(infinite)
    TEST(rdi, rdi)
    JZ(zero)
    _count_leading_zeros(features, rdi)
    MOV(rax, rdi)
    SHL(rax, cl)
    _round(features, F16, is_signed, 63)

    LABEL(infinite)
    MOV(eax, 0x7C00)
    if is_signed:
        AND(r8d, 0x8000)
        OR(eax, r8d)
    copying(features, "MOVD")(xmm0, eax)
    RET()

    LABEL(zero)
    XOR(eax, eax)
    copying(features, "MOVD")(xmm0, eax)
    RET()


def take_magnitude(low: Any, high: Any, sign: Any) -> None:
    """Emit: two registers = their magnitude; `sign` = their sign, in all bits."""
    MOV(sign, high)
    SAR(sign, 63)
    apply_sign(low, high, sign)


def apply_sign(low: Any, high: Any, sign: Any) -> None:
    """Emit: negate two registers if all bits of `sign` are set, which otherwise is 0."""
    XOR(low, sign)
    XOR(high, sign)
    SUB(low, sign)
    SBB(high, sign)


def _count_leading_zeros(features: frozenset[str], register: Any) -> None:
    """Emit: rcx = the count in a register that is not 0."""
    if "lzcnt" in features:
        LZCNT(rcx, register)
    else:
        BSR(rcx, register)
        XOR(ecx, 63)


def _round(
    features: frozenset[str], format_: Float, is_signed: bool, top: int, rest: Any = None
) -> None:
    """Emit: return rax, whose topmost bit is set and is worth 2**(top - rcx), with r8's sign.

    The register `rest` has further bits, below rax's.
    """
    dropped = 63 - format_.fraction
    # Carry into the last bit that stays if the dropped ones are above one half, or equal and that
    # bit is set: add that bit and one less than one half.
    addend: Any = (1 << (dropped - 1)) - 1
    if addend >= 1 << 31:
        MOV(rdx, addend)
        addend = rdx
    BT(rax, dropped)
    if rest is not None:
        ADC(rest, -1)
    ADC(rax, addend)
    RCR(rax, 1)
    SHR(rax, dropped - 1)
    SUB(ecx, format_.bias - 1 + top)  # the topmost bit adds 1 more
    SHL(rcx, format_.fraction)
    SUB(rax, rcx)
    if is_signed:
        SHL(r8, {F64: 63, F32: 31, F16: 15}[format_])
        OR(rax, r8)
    if format_ is F64:
        copying(features, "MOVQ")(xmm0, rax)
    else:
        copying(features, "MOVD")(xmm0, eax)
    if format_ is F16:
        MOVZX(eax, ax)
    RET()
