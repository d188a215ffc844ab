"""128-bit integers from and to floats.

To an integer: ``cvttsd2si`` does what fits 63 bits. What does not is shifted into place; what has
more than 128 bits, and NaN, becomes the largest or the smallest integer, by its sign. (A signed
result of 128 bits wraps around, as compiler-rt's does.)

From an integer: ``cvtsi2sd`` does what the float holds exactly. All others are rounded to nearest,
ties to even, as integers, so that it does not matter what MXCSR says: the topmost 64 bits, the last
of which stands for all below, lose their last ones.

Source: compiler-rt of LLVM 22, fp_fixint_impl.inc, fp_fixuint_impl.inc, int_to_fp_impl.inc (what
happens out of range); Intel SDM volume 2, CVTTSD2SI, CVTSI2SD, SHLD.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.llvm.x86_64.vex import copying, updating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

__all__ = ["routines"]


class Float:
    """A format: the letters in the libcalls' names, bits of the fraction, the exponent's bias."""

    __slots__ = ("bias", "fraction", "letters")

    def __init__(self, letters: str, fraction: int, bias: int) -> None:
        self.letters = letters
        self.fraction = fraction
        self.bias = bias


F16, F32, F64 = Float("hf", 10, 15), Float("sf", 23, 127), Float("df", 52, 1023)

_MAXIMUM = (1 << 63) - 1


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64.assembler import sequence

    for format_ in (F64, F32):
        letters = format_.letters
        yield sequence(f"__fix{letters}ti", partial(_to_signed, features, format_))
        yield sequence(f"__fixuns{letters}ti", partial(_to_unsigned, features, format_))
    yield sequence("__fixhfti", partial(_half_to_integer, features, True))
    yield sequence("__fixunshfti", partial(_half_to_integer, features, False))
    for format_ in (F64, F32):
        letters = format_.letters
        yield sequence(f"__floatti{letters}", partial(_from_integer, features, format_, True))
        yield sequence(f"__floatunti{letters}", partial(_from_integer, features, format_, False))
    yield sequence("__floattihf", partial(_half_from_integer, features, True))
    yield sequence("__floatuntihf", partial(_half_from_integer, features, False))


def _to_signed(features: frozenset[str], format_: Float) -> None:
    from peachpy.x86_64 import (
        CMP,
        JMP,
        JNE,
        JO,
        LABEL,
        MOV,
        NOT,
        RET,
        SAR,
        SBB,
        SUB,
        XOR,
        Label,
        eax,
        r8,
        rax,
        rdx,
        xmm0,
    )  # fmt: skip

    large, very_large, too_large = Label("large"), Label("very_large"), Label("too_large")
    give_sign = Label("give_sign")
    copying(features, _truncate(format_))(rax, xmm0)
    MOV(rdx, rax)
    SAR(rdx, 63)
    CMP(rax, 1)  # overflows for MIN alone, which stands for what does not fit
    JO(large)
    RET()

    LABEL(large)
    _split(features, format_, very_large)
    LABEL(give_sign)
    SAR(r8, 63)
    XOR(rax, r8)
    XOR(rdx, r8)
    SUB(rax, r8)
    SBB(rdx, r8)
    RET()

    LABEL(very_large)
    JNE(too_large)
    MOV(rdx, rax)
    XOR(eax, eax)
    JMP(give_sign)

    LABEL(too_large)
    SAR(r8, 63)
    MOV(rdx, _MAXIMUM)
    XOR(rdx, r8)
    MOV(rax, r8)
    NOT(rax)
    RET()


def _to_unsigned(features: frozenset[str], format_: Float) -> None:
    from peachpy.x86_64 import (
        JNE,
        JS,
        LABEL,
        MOV,
        RET,
        TEST,
        XOR,
        Label,
        eax,
        edx,
        r8,
        rax,
        rdx,
        xmm0,
    )  # fmt: skip

    large, very_large, too_large = Label("large"), Label("very_large"), Label("too_large")
    negative = Label("negative")
    copying(features, _truncate(format_))(rax, xmm0)
    XOR(edx, edx)
    TEST(rax, rax)
    JS(large)
    RET()

    LABEL(large)
    _split(features, format_, very_large)
    TEST(r8, r8)
    JS(negative)
    RET()

    LABEL(very_large)
    JNE(too_large)
    MOV(rdx, rax)
    XOR(eax, eax)
    TEST(r8, r8)
    JS(negative)
    RET()

    LABEL(too_large)
    MOV(rax, -1)
    MOV(rdx, rax)
    TEST(r8, r8)
    JS(negative)
    RET()

    LABEL(negative)
    XOR(eax, eax)
    XOR(edx, edx)
    RET()


def _truncate(format_: Float) -> str:
    return "CVTTSD2SI" if format_ is F64 else "CVTTSS2SI"


def _split(features: frozenset[str], format_: Float, very_large: Any) -> None:
    """Emit: rax:rdx = the magnitude of xmm0, of 64 to 127 bits; r8's sign bit = its sign.

    Goes to `very_large`, with the significand as the high half in rax, if there are more bits; ZF
    is set if they are 128.
    """
    from peachpy.x86_64 import (
        AND,
        CMP,
        JNB,
        MOV,
        MOVSXD,
        NOT,
        OR,
        SHL,
        SHR,
        SUB,
        cl,
        ecx,
        r8,
        r8d,
        rax,
        rcx,
        rdx,
        xmm0,
    )  # fmt: skip

    if format_ is F64:
        copying(features, "MOVQ")(r8, xmm0)
        MOV(rcx, r8)
        SHR(rcx, format_.fraction)
    else:
        copying(features, "MOVD")(r8d, xmm0)
        MOV(ecx, r8d)
        SHR(ecx, format_.fraction)
        MOVSXD(r8, r8d)
    MOV(rdx, 1 << 63)
    MOV(rax, r8)
    SHL(rax, 63 - format_.fraction)
    OR(rax, rdx)
    AND(ecx, 2 * format_.bias + 1)
    SUB(ecx, format_.bias + 63)
    CMP(ecx, 64)
    JNB(very_large)
    MOV(rdx, rax)
    SHL(rax, cl)
    NOT(ecx)  # modulo 64, as shifts count: 63 less it
    SHR(rdx, 1)
    SHR(rdx, cl)


def _half_to_integer(features: frozenset[str], is_signed: bool) -> None:
    from peachpy.x86_64 import (
        AND,
        CMP,
        JZ,
        LABEL,
        MOV,
        MOVSX,
        NOT,
        OR,
        RET,
        SAR,
        SHL,
        SHR,
        SUB,
        XOR,
        Label,
        cl,
        dx,
        eax,
        ecx,
        edx,
        rax,
        rcx,
        rdx,
        xmm0,
    )  # fmt: skip

    too_large = Label("too_large")
    copying(features, "MOVD")(ecx, xmm0)
    MOV(eax, ecx)
    MOV(edx, ecx)
    AND(eax, 0x3FF)
    OR(eax, 0x400)
    SHR(ecx, F16.fraction)
    MOVSX(rdx, dx)
    AND(ecx, 31)
    CMP(ecx, 31)
    JZ(too_large)
    # Below 1 nothing is left of it, and no number is longer than 16 bits.
    SHL(rax, cl)
    SHR(rax, F16.bias + F16.fraction)
    SAR(rdx, 63)
    if is_signed:
        XOR(rax, rdx)
        SUB(rax, rdx)
        MOV(rdx, rax)
        SAR(rdx, 63)
    else:
        NOT(rdx)
        AND(rax, rdx)
        XOR(edx, edx)
    RET()

    LABEL(too_large)
    SAR(rdx, 63)
    MOV(rax, rdx)
    NOT(rax)
    if is_signed:
        MOV(rcx, _MAXIMUM)
        XOR(rdx, rcx)
    else:
        MOV(rdx, rax)
    RET()


def _from_integer(features: frozenset[str], format_: Float, is_signed: bool) -> None:
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
    exact = format_.fraction + 1  # a float holds all integers of so many bits
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
    updating(features, "XORPS")(xmm0, xmm0)  # else it would wait for what was in there
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
    NOT(ecx)  # modulo 64, as shifts count: 63 less it
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


def _half_from_integer(features: frozenset[str], is_signed: bool) -> None:
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
    """Emit: return rax, whose topmost bit is set and stands for 2**(rdx - rcx), with r8's sign."""
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
    # Carry if what is cut off is above one half, or is that and the last bit is set.
    MOV(r9d, eax)
    AND(r9d, 1)
    MOV(rsi, _MAXIMUM)
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
