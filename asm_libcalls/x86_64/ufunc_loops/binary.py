"""Common parts of NumPy inner loops of two 64-bit operands: registers, prologue, overlap, flags.

The loop function is NumPy's ``PyUFuncGenericFunction``, ``(char **args, intp *n, intp *steps, void
*data)``; steps are in bytes, of any sign, and may be 0. A loop has up to three kinds of paths:

- *contiguous*: whole vectors; an operand of step 0 is loaded once;
- *strided*: vectors gathered from and scattered to any addresses;
- *sequential*: one element at a time, for the rest, for few elements, and if a result may be the
  operand of a later element. That happens in ``reduce`` (output step 0, and the output is the first
  operand) and ``accumulate`` (the output is the first operand, shifted by one element). NumPy
  copies operands with any other overlap, unless the input is read ahead of the output.

NumPy releases the GIL around a loop of more than 500 elements, so loops touch only their arguments
and the stack.
"""

from __future__ import annotations

from typing import Any

from peachpy.x86_64 import (
    ADD, AND, CMOVS, CMP, DEC, IMUL, JAE, JB, JE, JMP, JNE, JS, JZ, LABEL, LDMXCSR, LEA, MOV, NEG,
    NOT, OR, RET, SAR, STMXCSR, SUB, TEST, VEXTRACTF128, VEXTRACTF64X4, VINSERTF128, VINSERTF64X4,
    VMOVDQA64, VMOVHPD, VMOVSD, Label, dword, eax, qword, r8, r9, r10, r11, rax, rcx, rdi, rdx, rsi,
    xmm4, xmm5, xmm6, xmm7, ymm4, ymm6, zmm4,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

SIZE = 8
"""Bytes of an element."""

reg_a, reg_b, reg_out = rdi, rsi, r8
reg_a_step, reg_b_step, reg_out_step = r9, r10, r11
reg_n = rcx
# rax and rdx are scratch.


def load_arguments() -> None:
    """Load the pointers, the steps and the number of elements."""
    MOV(reg_n, [rsi])
    MOV(reg_a_step, [rdx])
    MOV(reg_b_step, [rdx + 8])
    MOV(reg_out_step, [rdx + 16])
    MOV(reg_b, [rdi + 8])
    MOV(reg_out, [rdi + 16])
    MOV(reg_a, [rdi])


def load_divisor(sequential: Any, *, signed: bool, remainder: bool) -> None:
    """Load a divisor of step 0 to rax; jump if it may raise a flag, which only that path does."""
    MOV(rax, [reg_b])
    TEST(rax, rax)
    JZ(sequential)
    if signed and not remainder:
        CMP(rax, -1)
        JE(sequential)


def jump_unless_contiguous(elsewhere: Any, *, a: bool, b: bool) -> None:
    """Jump unless the output is contiguous, and each operand too or, where not, of step 0."""
    for step, contiguous in ((reg_out_step, True), (reg_a_step, a), (reg_b_step, b)):
        CMP(step, SIZE if contiguous else 0)
        JNE(elsewhere)


def jump_if_overlapping(sequential: Any, *, a: bool, b: bool) -> None:
    """On a contiguous path: jump if an element's result may be the operand of a later one.

    That is if the output begins inside a contiguous operand, after its beginning, or covers an
    operand of step 0.
    """
    for pointer, contiguous in ((reg_a, a), (reg_b, b)):
        if contiguous:
            jump_if_output_begins_inside(pointer, reg_n, sequential)
        else:
            LEA(rdx, [reg_n * SIZE])
            MOV(rax, pointer)
            SUB(rax, reg_out)
            CMP(rax, rdx)
            JB(sequential)


def jump_if_output_begins_inside(pointer: Any, count: Any, sequential: Any) -> None:
    """Jump if the output begins inside an operand, but not where the operand begins."""
    LEA(rdx, [count * SIZE])
    MOV(rax, reg_out)
    SUB(rax, pointer)
    DEC(rax)  # the same array, at distance 0, is now at the far end
    CMP(rax, rdx)
    JB(sequential)


def jump_if_strided_overlap(sequential: Any, *, a: bool = True) -> None:
    """On a strided path: jump unless no result can be the operand of a later element.

    None can if the ranges are disjoint, or if both advance by the same step and are less than that
    step apart, as one array and itself, or neighbouring columns of a matrix. Without `a`, only the
    second operand is tested.
    """
    operands = ((reg_a, reg_a_step), (reg_b, reg_b_step))
    for pointer, step in operands if a else operands[1:]:
        below, compare, close, apart = (
            Label(f"{n}_{pointer}") for n in ("below", "compare", "close", "apart")
        )
        MOV(rdx, reg_out)
        SUB(rdx, pointer)
        JS(below)
        _reach(step, upwards=True)
        JMP(compare)
        LABEL(below)
        NEG(rdx)
        _reach(step, upwards=False)
        LABEL(compare)
        CMP(rdx, SIZE)
        JB(close)
        CMP(rdx, rax)
        JAE(apart)
        LABEL(close)
        CMP(step, reg_out_step)
        JNE(sequential)
        MOV(rax, step)
        NEG(rax)
        CMOVS(rax, step)  # its magnitude
        CMP(rdx, rax)
        JAE(sequential)
        LABEL(apart)


def _reach(step: Any, *, upwards: bool) -> None:
    """Leave in rax how many bytes an operand and the output extend towards each other.

    That is the operand upwards from its first element and the output downwards, or the reverse.
    """
    MOV(_distance, rdx)
    for i, (register, negate) in enumerate(((step, not upwards), (reg_out_step, upwards))):
        MOV(rax, register)
        if negate:
            NEG(rax)
        MOV(rdx, rax)
        SAR(rdx, 63)
        NOT(rdx)
        AND(rax, rdx)  # 0 where it goes the other way
        if i == 0:
            MOV(_first_reach, rax)
    ADD(rax, _first_reach)
    IMUL(rax, reg_n)
    MOV(rdx, _distance)


def _places(pointer: Any, step: Any) -> list[Any]:
    # The addresses of eight elements: an address holds one register and another times 1, 2, 4 or 8.
    LEA(rax, [pointer + step * 4])
    LEA(rdx, [step + step * 2])
    return [
        place
        for base in (pointer, rax)
        for place in (base, base + step * 1, base + step * 2, base + rdx * 1)
    ]


def pack(zmm: Any, pointer: Any, step: Any) -> None:
    """Load eight elements as a vector, and move the pointer on. Clobbers rax, rdx, xmm4 to xmm7."""
    places = iter(_places(pointer, step))
    for xmm in (xmm4, xmm5, xmm6, xmm7):
        VMOVSD(xmm, [next(places)])
        VMOVHPD(xmm, xmm, [next(places)])
    VINSERTF128(ymm4, ymm4, xmm5, 1)
    VINSERTF128(ymm6, ymm6, xmm7, 1)
    VINSERTF64X4(zmm, zmm4, ymm6, 1)
    LEA(pointer, [pointer + step * 8])


def unpack(pointer: Any, step: Any, zmm: Any) -> None:
    """Store a vector as eight elements, and move the pointer on. Clobbers rax, rdx, xmm4 to 7."""
    places = iter(_places(pointer, step))
    VMOVDQA64(zmm4, zmm)
    VEXTRACTF128(xmm5, ymm4, 1)
    VEXTRACTF64X4(ymm6, zmm4, 1)
    VEXTRACTF128(xmm7, ymm6, 1)
    for xmm in (xmm4, xmm5, xmm6, xmm7):
        VMOVSD([next(places)], xmm)
        VMOVHPD([next(places)], xmm)
    LEA(pointer, [pointer + step * 8])


def advance() -> None:
    """Advance all pointers to the next element."""
    ADD(reg_a, reg_a_step)
    ADD(reg_b, reg_b_step)
    ADD(reg_out, reg_out_step)


# Exception flags, by their bits in MXCSR. A loop collects them in the red zone below the stack
# pointer, which signal handlers preserve, and writes MXCSR once, which takes tens of cycles.
DIVIDE_FLAG, OVERFLOW_FLAG = 1 << 2, 1 << 3
_flags, _mxcsr = dword[rsp - 8], dword[rsp - 4]
_distance, _first_reach = qword[rsp - 16], qword[rsp - 24]


def clear_flags() -> None:
    """Clear the collected flags."""
    MOV(_flags, 0)


def raise_flag(flag: int) -> None:
    """Collect a flag; all registers are preserved."""
    OR(_flags, flag)


def return_with_flags() -> None:
    """Return, with the collected flags set in MXCSR, which NumPy reads after the loop."""
    raised = Label("raised")
    CMP(_flags, 0)
    JNE(raised)
    RET()
    LABEL(raised)
    MOV(eax, _flags)
    STMXCSR(_mxcsr)
    OR(_mxcsr, eax)
    LDMXCSR(_mxcsr)
    RET()
