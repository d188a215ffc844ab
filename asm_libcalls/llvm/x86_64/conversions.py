"""128-bit integers from and to floats.

This file has the family's list and the conversions to integers; ``integers_to_floats.py`` has the
others. The significand is shifted into place: ``cvttsd2si`` is as fast, but has 64 bits, and a
branch on the size costs more. A number of more than 128 bits, or a NaN, becomes the largest or the
smallest integer, by its sign. A signed result of 128 bits wraps around, as compiler-rt's does.

Source: compiler-rt of LLVM 22, fp_fixint_impl.inc, fp_fixuint_impl.inc (results out of range).
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    AND, BTS, CMOVNZ, CMOVS, CMP, JG, JZ, LABEL, MOV, MOVSX, MOVSXD, NOT, OR, RET, SAR, SHL, SHR,
    SUB, TEST, XOR, Label, cl, dx, eax, ecx, edx, esi, r8, rax, rcx, rdx, rsi, xmm0,
)  # fmt: skip

from asm_libcalls.llvm.x86_64.integers_to_floats import (
    F16, F32, F64, MAXIMUM, apply_sign, from_integer, half_from_integer,
)  # fmt: skip
from asm_libcalls.llvm.x86_64.vex import copying
from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.llvm.x86_64.integers_to_floats import Float


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    for format_ in (F64, F32):
        letters = format_.letters
        yield sequence(f"__fix{letters}ti", partial(_to_integer, features, format_, True))
        yield sequence(f"__fixuns{letters}ti", partial(_to_integer, features, format_, False))
    yield sequence("__fixhfti", partial(_half_to_integer, features, True))
    yield sequence("__fixunshfti", partial(_half_to_integer, features, False))
    for format_ in (F64, F32):
        letters = format_.letters
        yield sequence(f"__floatti{letters}", partial(from_integer, features, format_, True))
        yield sequence(f"__floatunti{letters}", partial(from_integer, features, format_, False))
    yield sequence("__floattihf", partial(half_from_integer, features, True))
    yield sequence("__floatuntihf", partial(half_from_integer, features, False))


def _to_integer(features: frozenset[str], format_: Float, is_signed: bool) -> None:
    other = Label("other")
    if format_ is F64:
        copying(features, "MOVQ")(rax, xmm0)
    else:
        copying(features, "MOVD")(eax, xmm0)
    MOV(rcx, rax)
    SHR(rcx, format_.fraction)
    if is_signed:
        if format_ is F64:
            MOV(r8, rax)
        else:
            MOVSXD(r8, eax)
        SAR(r8, 63)
        AND(ecx, 2 * format_.bias + 1)
    SUB(ecx, format_.bias)
    CMP(ecx, 127)
    JG(other)  # so is a negative number that is to become unsigned
    XOR(esi, esi)
    # The significand has its topmost bit in rdx, and the fraction below it. It is shifted right by
    # 127 - ecx. Counts are modulo 64, so a left shift by 64 - count is one by 1 and one by
    # 63 - count.
    MOV(rdx, rax)
    SHL(rax, 64 - format_.fraction)
    SHL(rdx, 63 - format_.fraction)
    BTS(rdx, 63)
    TEST(ecx, ecx)
    CMOVS(rax, rsi)  # below 1
    CMOVS(rdx, rsi)
    SHL(rax, cl)
    NOT(ecx)
    SHR(rdx, cl)
    TEST(cl, 64)
    CMOVNZ(rax, rdx)
    CMOVNZ(rdx, rsi)
    if is_signed:
        apply_sign(rax, rdx, r8)
    RET()

    LABEL(other)
    if is_signed:
        MOV(rdx, MAXIMUM)
        XOR(rdx, r8)
        MOV(rax, r8)
        NOT(rax)
    else:
        if format_ is F32:
            MOVSXD(rax, eax)
        NOT(rax)
        SAR(rax, 63)
        MOV(rdx, rax)
    RET()


def _half_to_integer(features: frozenset[str], is_signed: bool) -> None:
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
