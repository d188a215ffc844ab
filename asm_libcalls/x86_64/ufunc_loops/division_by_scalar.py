"""Division of many elements by one divisor, as a multiplication: for CPUs without AVX-512.

For a divisor d >= 1 of l = ceil(log2 d) bits, let m = floor(2^64 (2^l - d)/d) + 1. Then for every n
below 2^64, with t = floor(m n / 2^64),

    floor(n / d) = (t + ((n - t) >> min(l, 1))) >> max(l - 1, 0)

and no intermediate value overflows. Signed operands are divided by their magnitudes.

Vectors multiply halves of 32 bits and add the partial products to the high half of the product.
For single elements CPUs have an instruction.

Source: T. Granlund and P. L. Montgomery, "Division by Invariant Integers using Multiplication",
PLDI 1994, figure 4.1; Intel SDM volume 2, MUL, MULX, SHRX.
"""

from __future__ import annotations

from typing import Any

import peachpy.x86_64 as x86
from peachpy.x86_64 import (
    ADD, BSR, CMP, DIV, IMUL, INC, JAE, JB, JE, JMP, JNE, JNZ, JZ, LABEL, MOV, MUL, MULX, SAR, SHL,
    SHR, SHRX, SUB, TEST, XOR, Label, cl, eax, ecx, edx, qword, r10, r12, r13, r14, r15, rax, rbx,
    rcx, rdx,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.x86_64.ufunc_loops.binary import (
    jump_if_output_begins_inside, jump_if_strided_overlap, load_divisor, reg_a, reg_a_step, reg_b,
    reg_b_step, reg_n, reg_out, reg_out_step,
)  # fmt: skip

_FEWEST = 8
"""The number of elements from which on this is faster: finding the multiplier takes a division."""

# The registers of operand b become free. The flags stay in the red zone.
reg_divisor, reg_multiplier = reg_b, r10
reg_count, reg_shift_first, reg_shift = rbx, r12, rcx
reg_divisor_sign, reg_sign, reg_magnitude = r13, r14, r15
_SAVED = (rbx, r12, r13, r14, r15)


def scalar_division(
    *, signed: bool, remainder: bool, features: frozenset[str], sequential: Any, finish: Any
) -> None:
    """Emit the paths of a division loop for a divisor of step 0.

    They jump to `sequential` with operands that they do not handle, and to `finish` at the end.
    """
    loop, restore = Label("multiply"), Label("restore")
    bmi2 = "bmi2" in features
    CMP(reg_n, _FEWEST)
    JB(sequential)
    TEST(reg_b_step, reg_b_step)
    JNZ(sequential)
    jump_if_strided_overlap(sequential, a=False)
    load_divisor(sequential, signed=signed, remainder=remainder)
    if not bmi2:
        CMP(rax, 1)  # here the first shift is always by 1
        JE(sequential)
        if signed:
            CMP(rax, -1)
            JE(sequential)

    for i, register in enumerate(_SAVED):
        MOV(qword[rsp - 16 - 8 * i], register)
    MOV(reg_count, reg_n)
    MOV(reg_divisor, rax)
    if signed:
        MOV(reg_divisor_sign, reg_divisor)
        SAR(reg_divisor_sign, 63)
        XOR(reg_divisor, reg_divisor_sign)
        SUB(reg_divisor, reg_divisor_sign)
    _find_multiplier()
    if not remainder:  # which would need the low half of one more product
        _Vectors("avx2" in features, signed).write(otherwise=loop)
        TEST(reg_count, reg_count)
        JZ(restore)

    LABEL(loop)
    MOV(reg_magnitude, [reg_a])
    if signed:
        MOV(reg_sign, reg_magnitude)
        SAR(reg_sign, 63)
        XOR(reg_magnitude, reg_sign)
        SUB(reg_magnitude, reg_sign)
    if bmi2:
        MOV(rdx, reg_magnitude)
        MULX(rax, rax, reg_multiplier)  # the high half alone: t
        SUB(rdx, rax)
        SHRX(rdx, rdx, reg_shift_first)
        ADD(rax, rdx)
        SHRX(rax, rax, reg_shift)
    else:
        MOV(rax, reg_magnitude)
        MUL(reg_multiplier)
        MOV(rax, reg_magnitude)
        SUB(rax, rdx)
        SHR(rax, 1)
        ADD(rax, rdx)
        SHR(rax, cl)
    result = rax
    if remainder:
        IMUL(rax, reg_divisor)
        SUB(reg_magnitude, rax)
        result = reg_magnitude
    elif signed:
        XOR(reg_sign, reg_divisor_sign)
    if signed:
        XOR(result, reg_sign)
        SUB(result, reg_sign)
    MOV([reg_out], result)
    ADD(reg_a, reg_a_step)
    ADD(reg_out, reg_out_step)
    SUB(reg_count, 1)
    JNZ(loop)
    LABEL(restore)
    for i, register in enumerate(_SAVED):
        MOV(register, qword[rsp - 16 - 8 * i])
    JMP(finish)


def _find_multiplier() -> None:
    # Leaves both shifts and the multiplier; rax and rdx are free.
    found = Label("shifts_found")
    XOR(ecx, ecx)
    XOR(eax, eax)
    MOV(reg_shift_first, rcx)
    MOV(rdx, reg_divisor)
    SUB(rdx, 1)
    JZ(found)  # d = 1: l = 0 and 2^l - d = 0, in rdx
    BSR(rcx, rdx)  # l - 1
    MOV(reg_shift_first, 1)
    MOV(edx, 2)
    SHL(rdx, cl)  # 2^l; for l = 64 the bit falls out, and what follows is right modulo 2^64
    SUB(rdx, reg_divisor)
    LABEL(found)
    DIV(reg_divisor)  # of 2^64 (2^l - d), and 2^l - d < d
    MOV(reg_multiplier, rax)
    INC(reg_multiplier)


class _Vectors:
    """The contiguous path, of quotients only: 256-bit vectors with AVX2, else 128-bit ones."""

    def __init__(self, avx2: bool, signed: bool) -> None:
        self.avx2 = avx2
        self.signed = signed
        self.width = 32 if avx2 else 16
        prefix = "ymm" if avx2 else "xmm"
        registers = [getattr(x86, f"{prefix}{i}") for i in range(13)]
        self.n, self.n_high, self.sign, *self.products = registers[:7]
        self.multiplier, self.multiplier_high, self.low_mask, self.divisor_sign = registers[7:11]
        self.xmm_shift_first, self.xmm_shift = x86.xmm11, x86.xmm12

    def write(self, *, otherwise: Any) -> None:
        """Emit it; jump to `otherwise` if it does not apply; fall through with the rest."""
        together = 2
        lanes, loop = together * self.width // 8, Label("multiply_vectors")
        CMP(reg_a_step, 8)
        JNE(otherwise)
        CMP(reg_out_step, 8)
        JNE(otherwise)
        jump_if_output_begins_inside(reg_a, reg_count, otherwise)
        MOV(rax, reg_multiplier)
        self._broadcast(self.multiplier)
        self._op("PSRLQ", self.multiplier_high, self.multiplier, 32)
        MOV(eax, 0xFFFFFFFF)
        self._broadcast(self.low_mask)
        if self.signed:
            MOV(rax, reg_divisor_sign)
            self._broadcast(self.divisor_sign)
        move = x86.VMOVQ if self.avx2 else x86.MOVQ
        move(self.xmm_shift_first, reg_shift_first)
        move(self.xmm_shift, reg_shift)
        SUB(reg_count, lanes)  # at least 0, as _FEWEST is
        LABEL(loop)
        load_or_store = x86.VMOVDQU if self.avx2 else x86.MOVDQU
        for i in range(together):
            load_or_store(self.n, [reg_a + i * self.width])
            load_or_store([reg_out + i * self.width], self._quotients())
        ADD(reg_a, together * self.width)
        ADD(reg_out, together * self.width)
        SUB(reg_count, lanes)
        JAE(loop)
        ADD(reg_count, lanes)
        if self.avx2:
            x86.VZEROUPPER()

    def _op(self, name: str, result: Any, first: Any, second: Any) -> None:
        """Emit ``result = first OP second``; AVX has three operands, SSE two."""
        if self.avx2:
            getattr(x86, f"V{name}")(result, first, second)
            return
        if result is not first:
            x86.MOVDQA(result, first)
        getattr(x86, name)(result, second)

    def _broadcast(self, register: Any) -> None:
        """Fill a register with rax."""
        if self.avx2:
            x86.VMOVQ(register.as_xmm, rax)
            x86.VPBROADCASTQ(register, register.as_xmm)
        else:
            x86.MOVQ(register, rax)
            x86.PUNPCKLQDQ(register, register)

    def _quotients(self) -> Any:
        op, n, sign = self._op, self.n, self.sign
        low_low, high_low, low_high, high = self.products
        if self.signed:
            op("PSRAD", sign, n, 31)
            (x86.VPSHUFD if self.avx2 else x86.PSHUFD)(sign, sign, 0b11_11_01_01)
            op("PXOR", n, n, sign)
            op("PSUBQ", n, n, sign)
        op("PSRLQ", self.n_high, n, 32)
        # PMULUDQ takes the low halves of its operands.
        op("PMULUDQ", low_low, n, self.multiplier)
        op("PMULUDQ", high_low, self.n_high, self.multiplier)
        op("PMULUDQ", low_high, n, self.multiplier_high)
        op("PMULUDQ", high, self.n_high, self.multiplier_high)
        op("PSRLQ", low_low, low_low, 32)
        op("PADDQ", high_low, high_low, low_low)  # below 2^64, as (2^32 - 1)^2 + 2^32 - 1 is
        op("PAND", low_low, high_low, self.low_mask)
        op("PADDQ", low_high, low_high, low_low)
        op("PSRLQ", high_low, high_low, 32)
        op("PSRLQ", low_high, low_high, 32)
        op("PADDQ", high, high, high_low)
        op("PADDQ", high, high, low_high)  # t
        op("PSUBQ", n, n, high)
        op("PSRLQ", n, n, self.xmm_shift_first)
        op("PADDQ", high, high, n)
        op("PSRLQ", high, high, self.xmm_shift)
        if self.signed:
            op("PXOR", sign, sign, self.divisor_sign)
            op("PXOR", high, high, sign)
            op("PSUBQ", high, high, sign)
        return high
