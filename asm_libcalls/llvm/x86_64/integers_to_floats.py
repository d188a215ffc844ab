"""128-bit integers to floats, rounded to nearest, ties to even; the float formats of both ways.

``cvtsi2sd`` converts what the float holds exactly. All others are rounded in integer arithmetic, so
MXCSR's rounding mode has no effect. Their topmost 64 bits are rounded; the last of these is set if
any bit below is.

Source: compiler-rt of LLVM 22, int_to_fp_impl.inc; Intel SDM volume 2, CVTSI2SD.
"""

from __future__ import annotations

from asm_libcalls.llvm.x86_64.vex import copying, updating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["F16", "F32", "F64", "MAXIMUM", "Float", "from_integer", "half_from_integer"]


class Float:
    """A format: its letters in libcalls' names, its fraction's bits, its exponent's bias."""

    __slots__ = ("bias", "fraction", "letters")

    def __init__(self, letters: str, fraction: int, bias: int) -> None:
        self.letters = letters
        self.fraction = fraction
        self.bias = bias


F16, F32, F64 = Float("hf", 10, 15), Float("sf", 23, 127), Float("df", 52, 1023)

MAXIMUM = (1 << 63) - 1


def from_integer(features: frozenset[str], format_: Float, is_signed: bool) -> None:
    """Emit the conversion of rdi:rsi."""
    from peachpy.x86_64 import (
        JNZ,
        LABEL,
        MOV,
        NOT,
        OR,
        RET,
        SAR,
        SETNZ,
        SHL,
        SHR,
        TEST,
        XOR,
        Label,
        cl,
        ecx,
        edx,
        r9,
        r9b,
        r9d,
        rax,
        rcx,
        rdi,
        rsi,
        xmm0,
    )  # fmt: skip

    general, long = Label("general"), Label("long")
    exact = format_.fraction + 1  # bits of integers that all are exact in a float
    MOV(rax, rdi)
    if is_signed:
        MOV(rcx, rdi)
        SAR(rax, exact)
        SAR(rcx, 63)
        XOR(rax, rcx)
        XOR(rcx, rsi)
        OR(rax, rcx)
    else:
        SHR(rax, exact)
        OR(rax, rsi)
    JNZ(general)
    updating(features, "XORPS")(xmm0, xmm0)  # removes the dependency on the old xmm0
    updating(features, "CVTSI2SD" if format_ is F64 else "CVTSI2SS")(xmm0, rdi)
    RET()

    LABEL(general)
    if is_signed:
        _take_magnitude()
    TEST(rsi, rsi)
    JNZ(long)
    _count_leading_zeros(features, rdi)
    MOV(rax, rdi)
    SHL(rax, cl)
    MOV(edx, 63)
    _round(features, format_, is_signed)

    LABEL(long)
    _count_leading_zeros(features, rsi)
    MOV(rax, rdi)
    SHL(rdi, cl)
    SHL(rsi, cl)
    NOT(ecx)  # 63 - ecx modulo 64, as shifts count
    SHR(rax, 1)
    SHR(rax, cl)
    NOT(ecx)
    OR(rax, rsi)
    XOR(r9d, r9d)
    TEST(rdi, rdi)
    SETNZ(r9b)
    OR(rax, r9)
    MOV(edx, 127)
    _round(features, format_, is_signed)


def half_from_integer(features: frozenset[str], is_signed: bool) -> None:
    """Emit the conversion of rdi:rsi."""
    from peachpy.x86_64 import (
        AND,
        JNZ,
        JZ,
        LABEL,
        MOV,
        OR,
        RET,
        SHL,
        SHR,
        TEST,
        XOR,
        Label,
        cl,
        eax,
        edx,
        r8d,
        rax,
        rdi,
        rsi,
        xmm0,
    )  # fmt: skip

    infinite, zero = Label("infinite"), Label("zero")
    if is_signed:
        _take_magnitude()
    MOV(rax, rdi)
    SHR(rax, 16)
    OR(rax, rsi)
    JNZ(infinite)
    TEST(rdi, rdi)
    JZ(zero)
    _count_leading_zeros(features, rdi)
    MOV(rax, rdi)
    SHL(rax, cl)
    MOV(edx, 63)
    _round(features, F16, is_signed)

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


def _take_magnitude() -> None:
    """Emit: rdi:rsi = its magnitude; r8 = its sign, in all bits."""
    from peachpy.x86_64 import MOV, SAR, SBB, SUB, XOR, r8, rdi, rsi

    MOV(r8, rsi)
    SAR(r8, 63)
    XOR(rdi, r8)
    XOR(rsi, r8)
    SUB(rdi, r8)
    SBB(rsi, r8)


def _count_leading_zeros(features: frozenset[str], register: Any) -> None:
    """Emit: rcx = the count in a register that is not 0."""
    from peachpy.x86_64 import BSR, LZCNT, XOR, ecx, rcx

    if "lzcnt" in features:
        LZCNT(rcx, register)
    else:
        BSR(rcx, register)
        XOR(ecx, 63)


def _round(features: frozenset[str], format_: Float, is_signed: bool) -> None:
    """Emit: return rax, whose topmost bit is set and is worth 2**(rdx - rcx), with r8's sign."""
    from peachpy.x86_64 import (
        ADC,
        ADD,
        AND,
        MOV,
        MOVZX,
        OR,
        RET,
        SHL,
        SHR,
        SUB,
        ax,
        eax,
        ecx,
        edx,
        r8,
        r9,
        r9d,
        rax,
        rcx,
        rdx,
        rsi,
        xmm0,
    )  # fmt: skip

    SUB(edx, ecx)
    ADD(edx, format_.bias - 1)  # the topmost bit adds 1 more
    SHL(rdx, format_.fraction)
    MOV(rcx, rax)
    SHL(rcx, format_.fraction + 1)
    SHR(rax, 63 - format_.fraction)
    # Carry if the dropped bits are above one half, or equal and the last bit is set.
    MOV(r9d, eax)
    AND(r9d, 1)
    MOV(rsi, MAXIMUM)
    ADD(r9, rsi)
    ADD(rcx, r9)
    ADC(rax, rdx)
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
