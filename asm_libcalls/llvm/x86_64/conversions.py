"""128-bit integers from and to floats.

This file has the family's list and the conversions to integers; ``integers_to_floats.py`` has the
others. ``cvttsd2si`` converts what fits 63 bits. Larger numbers are shifted into place. A number of
more than 128 bits, or a NaN, becomes the largest or the smallest integer, by its sign. A signed
result of 128 bits wraps around, as compiler-rt's does.

Source: compiler-rt of LLVM 22, fp_fixint_impl.inc, fp_fixuint_impl.inc (results out of range);
Intel SDM volume 2, CVTTSD2SI.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.llvm.x86_64.integers_to_floats import (
    F16,
    F32,
    F64,
    MAXIMUM,
    from_integer,
    half_from_integer,
)
from asm_libcalls.llvm.x86_64.vex import copying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.llvm.x86_64.integers_to_floats import Float

__all__ = ["routines"]


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
        yield sequence(f"__floatti{letters}", partial(from_integer, features, format_, True))
        yield sequence(f"__floatunti{letters}", partial(from_integer, features, format_, False))
    yield sequence("__floattihf", partial(half_from_integer, features, True))
    yield sequence("__floatuntihf", partial(half_from_integer, features, False))


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
    CMP(rax, 1)  # overflows only for MIN, the result of cvttsd2si for what does not fit
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
    MOV(rdx, MAXIMUM)
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
    NOT(ecx)  # 63 - ecx modulo 64, as shifts count
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
    # A number below 1 becomes 0, and no number is longer than 16 bits.
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
        MOV(rcx, MAXIMUM)
        XOR(rdx, rcx)
    else:
        MOV(rdx, rax)
    RET()
