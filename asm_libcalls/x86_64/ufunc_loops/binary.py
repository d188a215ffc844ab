"""What the NumPy inner loops of two 64-bit operands share: registers, prologue, overlap, flags.

The loop function is NumPy's ``PyUFuncGenericFunction``, ``(char **args, intp *n, intp *steps, void
*data)``; steps are in bytes, of any sign, and may be 0. A loop has up to three kinds of ways
through:

- *contiguous*, with or without an operand of step 0 that is loaded once: whole vectors;
- *strided*: vectors packed from and unpacked to anywhere;
- *sequential*: one element after the other, for the rest, for few elements, and wherever a result
  may be the operand of a later element. ``reduce`` (output step 0, and the output is the first
  operand) and ``accumulate`` (the output is the first operand, shifted by one element) do that.
  NumPy copies operands out of the way of any other overlap, unless the input is read ahead of the
  output.

NumPy gives the GIL up around a loop of more than 500 elements: loops touch nothing but their
arguments, and the stack.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD, AND, CMOVS, CMP, DEC, IMUL, JAE, JB, JMP, JNE, JS, LABEL, LDMXCSR, LEA, MOV, NEG, NOT, OR,
    RET, SAR, STMXCSR, SUB, Label, dword, eax, qword, r8, r9, r10, r11, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "DIVIDE_FLAG",
    "OVERFLOW_FLAG",
    "advance",
    "clear_flags",
    "jump_if_overlapping",
    "jump_if_strided_overlap",
    "jump_unless_contiguous",
    "load_arguments",
    "raise_flag",
    "reg_a",
    "reg_a_step",
    "reg_b",
    "reg_b_step",
    "reg_n",
    "reg_out",
    "reg_out_step",
    "return_with_flags",
]

SIZE = 8
"""Bytes of an element."""

reg_a, reg_b, reg_out = rdi, rsi, r8
reg_a_step, reg_b_step, reg_out_step = r9, r10, r11
reg_n = rcx
# rax and rdx are left for the work.


def load_arguments() -> None:
    """Load the pointers, the steps and the number of elements."""
    MOV(reg_n, [rsi])
    MOV(reg_a_step, [rdx])
    MOV(reg_b_step, [rdx + 8])
    MOV(reg_out_step, [rdx + 16])
    MOV(reg_b, [rdi + 8])
    MOV(reg_out, [rdi + 16])
    MOV(reg_a, [rdi])


def jump_unless_contiguous(elsewhere: Any, *, a: bool = True, b: bool = True) -> None:
    """Jump unless the output is contiguous, and each operand too or, where not, of step 0."""
    for step, contiguous in ((reg_out_step, True), (reg_a_step, a), (reg_b_step, b)):
        CMP(step, SIZE if contiguous else 0)
        JNE(elsewhere)


def jump_if_overlapping(sequential: Any, *, a: bool = True, b: bool = True) -> None:
    """On a contiguous way: jump where an element's result is the operand of a later one.

    That is where the output begins behind the beginning of a contiguous operand, but before its
    end; or where it covers an operand of step 0.
    """
    for pointer, contiguous in ((reg_a, a), (reg_b, b)):
        LEA(rdx, [reg_n * SIZE])
        if contiguous:
            MOV(rax, reg_out)
            SUB(rax, pointer)
            DEC(rax)  # the same array, at distance 0, is now at the far end
        else:
            MOV(rax, pointer)
            SUB(rax, reg_out)
        CMP(rax, rdx)
        JB(sequential)


def jump_if_strided_overlap(sequential: Any, *, a: bool = True) -> None:
    """On a strided way: jump unless it is certain that no result is the operand of a later element.

    It is certain where the ranges are apart; and where both advance by the same step and are less
    than that step apart, as the same array is to itself, and one column of a matrix to the next.
    Without `a`, only the second operand is looked at.
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
    """Leave in rax how many bytes an operand and the output reach towards each other.

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


def advance() -> None:
    """Go to the next element."""
    ADD(reg_a, reg_a_step)
    ADD(reg_b, reg_b_step)
    ADD(reg_out, reg_out_step)


# Exception flags, as MXCSR has them. A loop collects them in the red zone below the stack pointer,
# which signal handlers leave alone, and writes MXCSR once: that takes tens of cycles.
DIVIDE_FLAG, OVERFLOW_FLAG = 1 << 2, 1 << 3
_flags, _mxcsr = dword[rsp - 8], dword[rsp - 4]
_distance, _first_reach = qword[rsp - 16], qword[rsp - 24]


def clear_flags() -> None:
    """Begin to collect flags."""
    MOV(_flags, 0)


def raise_flag(flag: int) -> None:
    """Raise a flag; rax and the other registers stay."""
    OR(_flags, flag)


def return_with_flags() -> None:
    """Return, with the raised flags set in MXCSR, where NumPy looks for them after the loop."""
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
