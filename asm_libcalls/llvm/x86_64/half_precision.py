"""f16 and bf16 from and to f32 and f64, rounded to nearest, ties to even, once.

With F16C, the conversions use ``vcvtps2ph`` (its rounding mode is the immediate's, not MXCSR's) and
``vcvtph2ps``. Both convert four numbers. The other three are the caller's and could raise
exceptions, so they become 0 before. A double becomes a float first; its last bit is set if any
dropped bit was, so nothing is rounded twice. Without F16C, and for bf16, the conversions are
integer arithmetic.

A narrowing conversion makes NaNs quiet and keeps the upper part of their payload. A widening one
keeps all bits of a NaN, as compiler-rt does; ``vcvtph2ps`` would make it quiet.

An f16 or bf16 is in the low 16 bits of xmm0. A result of 16 bits is also in eax, where LLVM up to
14 expects it.

Source: compiler-rt of LLVM 22, fp_trunc_impl.inc, fp_extend_impl.inc (NaN); Intel SDM volume 2,
VCVTPS2PH, VCVTPH2PS; System V ABI for AMD64, 3.2.3 (_Float16).
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    ADC, ADD, AND, CMP, JA, JB, JNB, JP, JZ, LABEL, MOV, MOVZX, NEG, OR, RET, SHL, SHR, SUB, TEST,
    VCVTPH2PS, VCVTPS2PH, VCVTSD2SS, VINSERTPS, VMOVD, VMOVQ, VPEXTRW, VPMOVZXWQ, VUCOMISS, VXORPS,
    XOR, Label, cl, di, eax, ecx, edi, edx, r8, r8d, r9, rax, rcx, rdx, xmm0, xmm1,
)  # fmt: skip

from asm_libcalls.llvm.x86_64.vex import copying, updating
from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine


class Narrowing:
    """From one format to a narrower one."""

    def __init__(self, is_double: bool, to_fraction: int, to_bias: int) -> None:
        self.is_double = is_double  # whether the wider one is f64; f32 otherwise
        # bits of the wider one's fraction, and its exponent's bias
        self.fraction, self.bias = (52, 1023) if is_double else (23, 127)
        # bits of the fraction that the narrower one lacks
        self.dropped = self.fraction - to_fraction
        # `lowest`, `above`: exponent fields of the wider one: of the narrower one's least normal
        # number; of its infinity
        self.lowest = self.bias - to_bias + 1
        self.above = self.bias + to_bias + 1
        # `infinity`, `quiet`: the narrower one's infinity, and the bit that makes a NaN quiet
        self.infinity = (2 * to_bias + 1) << to_fraction
        self.quiet = 1 << (to_fraction - 1)


F16 = (10, 15)
BF16 = (7, 127)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    if {"f16c", "avx"} <= features:
        yield sequence("__truncsfhf2", _float_to_half)
        yield sequence("__gnu_f2h_ieee", _float_to_half)
        yield sequence("__truncdfhf2", _double_to_half)
        yield sequence("__extendhfsf2", partial(_half_to_float, False))
        yield sequence("__gnu_h2f_ieee", partial(_half_to_float, True))
    else:
        for name in ("truncsfhf2", "gnu_f2h_ieee"):
            yield sequence(f"__{name}", partial(_narrow, features, Narrowing(False, *F16)))
        yield sequence("__truncdfhf2", partial(_narrow, features, Narrowing(True, *F16)))
        yield sequence("__extendhfsf2", partial(_half_to_float_by_hand, features, False))
        yield sequence("__gnu_h2f_ieee", partial(_half_to_float_by_hand, features, True))
    yield sequence("__truncsfbf2", partial(_float_to_bfloat, features))
    yield sequence("__truncdfbf2", partial(_narrow, features, Narrowing(True, *BF16)))
    yield sequence("__extendbfsf2", partial(_bfloat_to_float, features))


def _float_to_half() -> None:
    VINSERTPS(xmm0, xmm0, xmm0, 0b1110)  # the lowest float alone
    VCVTPS2PH(xmm0, xmm0, 0)
    VPEXTRW(eax, xmm0, 0)
    RET()


def _double_to_half() -> None:
    cut_off = (1 << 29) - 1
    VMOVQ(rax, xmm0)
    MOV(ecx, eax)
    AND(ecx, cut_off)
    ADD(ecx, cut_off)  # carries into the last bit that stays
    OR(rax, rcx)
    AND(rax, ~cut_off)
    VMOVQ(xmm0, rax)
    # This conversion is exact in the range that matters: below a float's normal range the half is
    # 0 in any case, and above its range infinity.
    VXORPS(xmm1, xmm1, xmm1)
    VCVTSD2SS(xmm0, xmm1, xmm0)
    VCVTPS2PH(xmm0, xmm0, 0)
    VPEXTRW(eax, xmm0, 0)
    RET()


def _half_to_float(from_integer: bool) -> None:
    nan = Label("nan")
    if from_integer:
        MOVZX(eax, di)
        VMOVD(xmm1, eax)
    else:
        VPMOVZXWQ(xmm1, xmm0)  # the lowest half alone, in the four that are converted
    VCVTPH2PS(xmm0, xmm1)
    VUCOMISS(xmm0, xmm0)
    JP(nan)
    RET()

    LABEL(nan)
    VMOVD(eax, xmm1)
    _extend_nan()
    VMOVD(xmm0, eax)
    RET()


def _extend_nan() -> None:
    """Emit: eax = the f32 of a NaN or an infinity, an f16 in ax. Clobbers ecx."""
    MOV(ecx, eax)
    AND(ecx, 0x8000)
    AND(eax, 0x7FFF)
    SHL(ecx, 16)
    SHL(eax, 13)
    ADD(eax, 0x70000000)
    OR(eax, ecx)


def _half_to_float_by_hand(features: frozenset[str], from_integer: bool) -> None:
    nan, subnormal = Label("nan"), Label("subnormal")
    if from_integer:
        MOV(eax, edi)
    else:
        copying(features, "MOVD")(eax, xmm0)
    MOV(ecx, eax)
    AND(ecx, 0x7FFF)
    CMP(ecx, 0x7C00)
    JNB(nan)
    AND(eax, 0x8000)
    SHL(eax, 16)
    CMP(ecx, 0x400)
    JB(subnormal)
    SHL(ecx, 13)
    ADD(ecx, (127 - 15) << 23)
    OR(eax, ecx)
    copying(features, "MOVD")(xmm0, eax)
    RET()

    LABEL(subnormal)  # a multiple of 2**-24, which a float holds exactly
    updating(features, "XORPS")(xmm0, xmm0)
    updating(features, "CVTSI2SS")(xmm0, ecx)
    MOV(edx, (127 - 24) << 23)
    copying(features, "MOVD")(xmm1, edx)
    updating(features, "MULSS")(xmm0, xmm1)
    copying(features, "MOVD")(xmm1, eax)
    updating(features, "ORPS")(xmm0, xmm1)
    RET()

    LABEL(nan)
    _extend_nan()
    copying(features, "MOVD")(xmm0, eax)
    RET()


def _narrow(features: frozenset[str], narrowing: Narrowing) -> None:
    fraction, dropped = narrowing.fraction, narrowing.dropped
    small, large, nan, zero = map(Label, ("small", "large", "nan", "zero"))

    def leave() -> None:
        OR(eax, r8d)
        copying(features, "MOVD")(xmm0, eax)
        RET()

    # rax = the magnitude, r8d = the sign, in the narrower one's place
    if narrowing.is_double:
        copying(features, "MOVQ")(rax, xmm0)
        MOV(r8, rax)
        SHL(rax, 1)
        SHR(r8, 48)
        SHR(rax, 1)
    else:
        copying(features, "MOVD")(eax, xmm0)
        MOV(r8d, eax)
        AND(eax, 0x7FFFFFFF)
        SHR(r8d, 16)
    AND(r8d, 0x8000)
    MOV(rcx, rax)
    SHR(rcx, fraction)
    CMP(ecx, narrowing.above)
    JNB(large)
    SUB(ecx, narrowing.lowest)
    JB(small)
    # Normal. The dropped bits carry if they are above one half, or equal and the last bit is set. A
    # carry out of the fraction increments the exponent, up to infinity.
    MOV(rcx, rax)
    SHR(rcx, dropped)
    AND(ecx, 1)
    MOV(rdx, (1 << (dropped - 1)) - 1 - ((narrowing.lowest - 1) << fraction))
    ADD(rax, rcx)
    ADD(rax, rdx)
    SHR(rax, dropped)
    leave()

    LABEL(small)  # subnormal: the fewer bits, the smaller
    NEG(ecx)
    ADD(ecx, dropped)
    CMP(ecx, fraction + 1)
    JA(zero)
    MOV(rdx, (1 << fraction) - 1)
    AND(rax, rdx)
    ADD(rdx, 1)
    OR(rax, rdx)
    MOV(r9, rax)
    SHR(rax, cl)
    NEG(ecx)  # 64 - ecx modulo 64, as shifts count
    SHL(r9, cl)
    MOV(ecx, eax)
    AND(ecx, 1)
    MOV(rdx, (1 << 63) - 1)
    ADD(rcx, rdx)
    ADD(r9, rcx)
    ADC(rax, 0)
    leave()

    LABEL(zero)
    XOR(eax, eax)
    leave()

    LABEL(large)
    MOV(rcx, (2 * narrowing.bias + 1) << fraction)
    CMP(rax, rcx)
    JA(nan)
    MOV(eax, narrowing.infinity)
    leave()

    LABEL(nan)
    SHR(rax, dropped)
    AND(eax, narrowing.quiet * 2 - 1)
    OR(eax, narrowing.infinity | narrowing.quiet)
    leave()


def _float_to_bfloat(features: frozenset[str]) -> None:
    nan, exact = Label("nan"), Label("exact")
    copying(features, "MOVD")(eax, xmm0)
    MOV(ecx, eax)
    AND(ecx, 0x7FFFFFFF)
    CMP(ecx, 0x7F800000)
    JA(nan)
    MOV(ecx, eax)
    SHR(ecx, 16)
    AND(ecx, 1)
    ADD(eax, 0x7FFF)
    ADD(eax, ecx)
    SHR(eax, 16)
    copying(features, "MOVD")(xmm0, eax)
    RET()

    LABEL(nan)
    MOV(ecx, eax)
    SHR(eax, 16)
    TEST(ecx, 0xFFFF)
    JZ(exact)
    OR(eax, 0x40)
    LABEL(exact)  # a bf16 already: unchanged
    copying(features, "MOVD")(xmm0, eax)
    RET()


def _bfloat_to_float(features: frozenset[str]) -> None:
    updating(features, "PSLLD")(xmm0, 16)
    RET()
