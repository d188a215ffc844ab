"""128-bit multiplication, and multiplications that report overflow.

The product wraps around, as in compiler-rt, and the ``int`` that the last argument points to
becomes 1 or 0.

Source: System V ABI for AMD64, 3.2.3 (__int128); Intel SDM volume 2, IMUL, MUL.
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    ADD, AND, IMUL, JNZ, LABEL, MOV, MOVZX, MUL, OR, RET, SAR, SETB, SETNZ, SETO, SHR, TEST, XOR,
    Label, al, cl, dword, eax, ecx, edi, esi, r8, r9, r10, r11, r11b, rax, rcx, rdi, rdx, rsi, sil,
)  # fmt: skip
from peachpy.x86_64.registers import r9b

from asm_libcalls.llvm.x86_64.integers_to_floats import apply_sign, take_magnitude
from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    yield sequence("__multi3", _multi3)
    yield sequence("__muloti4", _muloti4)
    yield sequence("__mulodi4", partial(_mulo, rax, rdi, rsi))
    yield sequence("__mulosi4", partial(_mulo, eax, edi, esi))


def _multi3() -> None:
    MOV(rax, rdi)
    IMUL(rcx, rdi)
    IMUL(rsi, rdx)
    MUL(rdx)
    ADD(rcx, rsi)
    ADD(rdx, rcx)
    RET()


def _mulo(product: Any, a: Any, b: Any) -> None:
    XOR(ecx, ecx)
    MOV(product, a)
    IMUL(product, b)
    SETO(cl)
    MOV([rdx], ecx)
    RET()


def _muloti4() -> None:
    wide = Label("wide")
    MOV(r10, rdi)
    MOV(r11, rdx)
    SAR(r10, 63)
    SAR(r11, 63)
    XOR(r10, rsi)
    XOR(r11, rcx)
    OR(r10, r11)
    JNZ(wide)
    # Both are sign-extended from 64 bits.
    MOV(rax, rdi)
    IMUL(rdx)
    MOV(dword[r8], 0)
    RET()

    LABEL(wide)  # multiply the magnitudes; r9 keeps the product's sign, in all its bits
    take_magnitude(rdi, rsi, r9)
    take_magnitude(rdx, rcx, rax)
    XOR(r9, rax)
    # rdi:rsi times rdx:rcx. It overflows if both high halves are not 0; otherwise one of the cross
    # products is 0.
    MOV(r10, rdx)
    TEST(rsi, rsi)
    SETNZ(r11b)
    TEST(rcx, rcx)
    SETNZ(al)
    AND(r11b, al)
    MOV(rax, rcx)
    MUL(rdi)
    SETO(cl)
    OR(r11b, cl)
    MOV(rcx, rax)
    MOV(rax, rsi)
    MUL(r10)
    SETO(sil)
    OR(r11b, sil)
    MOV(rsi, rax)
    ADD(rsi, rcx)  # no carry out, unless both were not 0
    MOV(rax, r10)
    MUL(rdi)
    ADD(rdx, rsi)
    SETB(cl)
    OR(r11b, cl)
    # With its sign applied, it overflowed if it is not 0 and has the other sign.
    apply_sign(rax, rdx, r9)
    XOR(r9, rdx)
    SHR(r9, 63)
    MOV(rcx, rax)
    OR(rcx, rdx)
    SETNZ(cl)
    AND(cl, r9b)
    OR(cl, r11b)
    MOVZX(ecx, cl)
    MOV([r8], ecx)
    RET()
