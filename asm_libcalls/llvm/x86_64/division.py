"""128-bit division and remainder.

An i128 is passed in two registers, low half first (rdi:rsi and rdx:rcx), and returned in rax:rdx.
One ``div`` divides 128 bits by 64 if the quotient has 64. A divisor of 64 bits takes one or two:
the remainder of the high half is below the divisor. A longer divisor takes one, by its upper 64
bits, which estimates the quotient to within 1.

Only a zero divisor traps: ``MIN / -1`` is MIN, as in compiler-rt.

Source: System V ABI for AMD64, 3.2.3 (__int128); D. E. Knuth, The Art of Computer
Programming, volume 2, 4.3.1, algorithm D; Intel SDM volume 2, DIV.
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    ADC, ADD, BSR, CMP, DEC, DIV, IMUL, JAE, JB, JMP, JNS, JNZ, JS, JZ, LABEL, LZCNT, MOV, MUL, NEG,
    NOT, OR, RET, SBB, SHL, SHLX, SHR, SHRX, SUB, TEST, XOR, Label, cl, eax, ecx, edx, qword, r8,
    r9, r10, r11, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip

from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import JUMP_IF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

DIVIDE_BY_ZERO = "asm_libcalls_divide_by_zero"
"""The routine of the image that a zero divisor jumps to; it never returns."""

QUOTIENT, REMAINDER, BOTH = "quotient", "remainder", "both"
"""The result of a libcall; BOTH also stores the remainder at r8, unless that is null."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    for name, divide, wanted in (
        ("divti3", _signed, QUOTIENT),
        ("modti3", _signed, REMAINDER),
        ("udivti3", _unsigned, QUOTIENT),
        ("umodti3", _unsigned, REMAINDER),
        ("udivmodti4", _unsigned, BOTH),
    ):
        yield sequence(f"__{name}", partial(divide, features, wanted))


def _unsigned(features: frozenset[str], wanted: str) -> None:
    _divide(features, wanted, _return)


def _signed(features: frozenset[str], wanted: str) -> None:
    dividend_negative, divisor_negative = Label("dividend_negative"), Label("divisor_negative")
    keep_sign, change_sign = Label("keep_sign"), Label("change_sign")
    TEST(rsi, rsi)
    JS(dividend_negative)
    TEST(rcx, rcx)
    JS(divisor_negative)
    LABEL(keep_sign)
    _divide(features, wanted, _return)

    LABEL(dividend_negative)
    _negate(rdi, rsi, r8)
    TEST(rcx, rcx)
    JNS(change_sign)
    _negate(rdx, rcx, r8)
    JMP(keep_sign if wanted == QUOTIENT else change_sign)

    LABEL(divisor_negative)
    _negate(rdx, rcx, r8)
    if wanted == REMAINDER:
        JMP(keep_sign)
    LABEL(change_sign)
    _divide(features, wanted, _return_negated, "to_be_negated_")


def _negate(low: Any, high: Any, scratch: Any) -> None:
    XOR(scratch.as_dword, scratch.as_dword)
    NEG(low)
    SBB(scratch, high)
    MOV(high, scratch)


def _return() -> None:
    RET()


def _return_negated() -> None:
    _negate(rax, rdx, r8)
    RET()


def _divide(
    features: frozenset[str], wanted: str, leave: Callable[[], None], prefix: str = ""
) -> None:
    """Emit: divide rdi:rsi by rdx:rcx, unsigned, and leave. Keeps r8."""
    long_divisor, twice = Label(f"{prefix}long_divisor"), Label(f"{prefix}twice")
    smaller, close = Label(f"{prefix}smaller"), Label(f"{prefix}close")
    MOV(r9, rdx)
    TEST(rcx, rcx)
    JNZ(long_divisor)
    CMP(rsi, r9)
    JAE(twice)
    MOV(rax, rdi)
    MOV(rdx, rsi)
    DIV(r9)
    _hand_over(wanted, None, rdx, None, f"{prefix}once_stored")
    leave()

    LABEL(twice)
    TEST(r9, r9)
    JUMP_IF("z", DIVIDE_BY_ZERO)
    MOV(rax, rsi)
    XOR(edx, edx)
    DIV(r9)
    if wanted != REMAINDER:
        MOV(r10, rax)
    MOV(rax, rdi)
    DIV(r9)
    _hand_over(wanted, r10, rdx, None, f"{prefix}twice_stored")
    leave()

    LABEL(long_divisor)
    CMP(rsi, rcx)
    JB(smaller)
    JZ(close)
    _divide_by_long_divisor(features, wanted, prefix)
    _hand_over(wanted, None, rdi, rsi, f"{prefix}long_stored")
    leave()

    LABEL(close)  # the high halves are equal, so the quotient is 1 or 0
    CMP(rdi, r9)
    JB(smaller)
    if wanted != REMAINDER:
        MOV(eax, 1)
    SUB(rdi, r9)
    _hand_over(wanted, None, rdi, None, f"{prefix}close_stored")
    leave()

    LABEL(smaller)
    if wanted != REMAINDER:
        XOR(eax, eax)
    _hand_over(wanted, None, rdi, rsi, f"{prefix}smaller_stored")
    leave()


def _hand_over(wanted: str, quotient_high: Any, low: Any, high: Any, label: str) -> None:
    """Emit: rax:rdx = the wanted result, from the quotient rax:`quotient_high` and the remainder.

    A high half of None is 0.
    """
    if wanted == REMAINDER:
        MOV(rax, low)
        quotient_high = high
    elif wanted == BOTH:
        stored = Label(label)
        TEST(r8, r8)
        JZ(stored)
        MOV([r8], low)
        if high is None:
            MOV(qword[r8 + 8], 0)
        else:
            MOV([r8 + 8], high)
        LABEL(stored)
    if quotient_high is None:
        XOR(edx, edx)
    else:
        MOV(rdx, quotient_high)


def _divide_by_long_divisor(features: frozenset[str], wanted: str, prefix: str) -> None:
    """Emit: rax, rdi:rsi = rdi:rsi divided by r9:rcx, a smaller number of more than 64 bits.

    Both are shifted until the divisor's first bit is set. The dividend's upper 128 bits divided by
    the divisor's upper 64 are the quotient or, seldom, one more: the divisor's other bits change it
    by less than 1. The sign of the remainder decides. (It cannot where the divisor is above 2**127;
    but there the estimate, 1, is always right.)
    """
    # r10 = the divisor's upper 64 bits, rdx:rax = the dividend's upper 128, both shifted. Counts
    # are modulo 64, so a right shift by 64 - count is done as one by 1 and one by 63 - count.
    if {"bmi2", "lzcnt"} <= features:
        LZCNT(r11, rcx)
        SHLX(r10, rcx, r11)
        SHLX(rax, rsi, r11)
        NOT(r11)
        MOV(rdx, r9)
        SHR(rdx, 1)
        SHRX(rdx, rdx, r11)
        OR(r10, rdx)
        MOV(rdx, rdi)
        SHR(rdx, 1)
        SHRX(rdx, rdx, r11)
        OR(rax, rdx)
        MOV(rdx, rsi)
        SHR(rdx, 1)
        SHRX(rdx, rdx, r11)
        MOV(r11, rcx)
        DIV(r10)
    else:
        MOV(r11, rcx)
        BSR(rcx, rcx)  # 63 less the leading zeros
        MOV(rdx, r9)
        SHR(rdx, 1)
        SHR(rdx, cl)
        MOV(rax, rdi)
        SHR(rax, 1)
        SHR(rax, cl)
        XOR(ecx, 63)
        MOV(r10, r11)
        SHL(r10, cl)
        OR(r10, rdx)
        MOV(rdx, rsi)
        SHL(rdx, cl)
        OR(rax, rdx)
        XOR(ecx, 63)
        MOV(rdx, rsi)
        SHR(rdx, 1)
        SHR(rdx, cl)
        MOV(rcx, r11)
        DIV(r10)
    MOV(r10, rax)
    IMUL(r11, rax)
    MUL(r9)
    ADD(rdx, r11)
    SUB(rdi, rax)
    SBB(rsi, rdx)
    MOV(rax, rdi)
    MOV(rdx, rsi)
    SUB(rax, r9)
    SBB(rdx, rcx)
    right = Label(f"{prefix}right")
    JB(right)
    DEC(r10)
    ADD(rdi, r9)
    ADC(rsi, rcx)
    LABEL(right)
    if wanted != REMAINDER:
        MOV(rax, r10)
