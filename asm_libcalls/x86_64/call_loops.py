"""Loops in machine code that call a C function once for each element, as compiled code would.

They call libcalls often, without Python: the exhaustive check calls each f32 rounding libcall four
billion times, and the benchmark times calls at the C address. A loop takes the address of the
function, the operands' arrays, the result's array and the number of elements.
"""

from __future__ import annotations

import ctypes
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

__all__ = ["CALL_EACH_RECORD", "RECORD_WORDS", "SIGNATURES", "NativeLoops", "routines"]

SIGNATURES = {
    "(f32) -> f32": "call_each_f32",
    "(f64) -> f64": "call_each_f64",
    "(f32) -> u32": "call_each_f32_to_u32",
    "(u32) -> f32": "call_each_u32_to_f32",
    "(i64, i64) -> i64": "call_each_i64",
}
"""The routine that calls functions of each signature."""


CALL_EACH_RECORD = "call_each_record"
"""A loop for any signature of few arguments: ``(function, records, count)``. A record is five words
for integer arguments and one for a float; results are dropped."""

RECORD_WORDS = 6


class NativeLoops:
    """The loops, loaded."""

    def __init__(self) -> None:
        from asm_libcalls.x86_64 import code_cache

        self._image = code_cache.load("native_loops")

    def function(self, signature: str) -> Any:
        """Return the ctypes function ``(function, first, ..., result, count)`` for a signature.

        All but `count` are addresses; the GIL is released during the call.
        """
        operands = signature.count(",") + 1
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (operands + 2), ctypes.c_size_t)
        return prototype(self._image.routine(SIGNATURES[signature]))

    def record_function(self) -> Any:
        """Return the ctypes function of :data:`CALL_EACH_RECORD`."""
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
        return prototype(self._image.routine(CALL_EACH_RECORD))


def routines() -> Iterator[Routine]:
    """Assemble the loops."""
    from peachpy.x86_64 import MOV, MOVSD, MOVSS, eax, edi, xmm0

    from asm_libcalls.x86_64.assembler import sequence

    in_f32, in_f64, in_u32, out_u32 = (MOVSS, xmm0), (MOVSD, xmm0), (MOV, edi), (MOV, eax)
    yield sequence("call_each_f32", partial(_call_each, in_f32, in_f32, 4))
    yield sequence("call_each_f64", partial(_call_each, in_f64, in_f64, 8))
    yield sequence("call_each_f32_to_u32", partial(_call_each, in_f32, out_u32, 4))
    yield sequence("call_each_u32_to_f32", partial(_call_each, in_u32, in_f32, 4))
    yield sequence("call_each_i64", _call_each_i64)
    yield sequence(CALL_EACH_RECORD, _call_each_record)


def _call_each(operand: tuple[Any, Any], result: tuple[Any, Any], size: int) -> None:
    """Emit a loop over numbers of some bytes; operand and result: a move, and its register."""
    from peachpy.x86_64 import (
        ADD, CALL, JNZ, JZ, LABEL, MOV, POP, PUSH, RET, SUB, TEST, Label,
        r12, r13, rbx, rcx, rdi, rdx, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp, rsp

    loop, none = Label("loop"), Label("none")
    reg_function, reg_in, reg_out, reg_count = rbx, rbp, r12, r13
    saved = (rbx, rbp, r12, r13)
    for register in saved:
        PUSH(register)
    SUB(rsp, 8)  # a multiple of 16 at each call, as the ABI requires
    for register, argument in zip(
        (reg_function, reg_in, reg_out, reg_count), (rdi, rsi, rdx, rcx), strict=True
    ):
        MOV(register, argument)
    TEST(reg_count, reg_count)
    JZ(none)
    LABEL(loop)
    load, register_in = operand
    load(register_in, [reg_in])
    CALL(reg_function)
    store, register_out = result
    store([reg_out], register_out)
    ADD(reg_in, size)
    ADD(reg_out, size)
    SUB(reg_count, 1)
    JNZ(loop)
    LABEL(none)
    ADD(rsp, 8)
    for register in reversed(saved):
        POP(register)
    RET()


def _call_each_i64() -> None:
    from peachpy.x86_64 import (
        ADD, CALL, JNZ, JZ, LABEL, MOV, POP, PUSH, RET, SUB, TEST, Label,
        r8, r12, r13, r14, rax, rbx, rcx, rdi, rdx, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp

    loop, none = Label("loop"), Label("none")
    reg_function, reg_first, reg_second, reg_out, reg_count = rbx, rbp, r12, r13, r14
    saved = (rbx, rbp, r12, r13, r14)  # five, which leaves rsp at a multiple of 16
    for register in saved:
        PUSH(register)
    for register, argument in zip(
        (reg_function, reg_first, reg_second, reg_out, reg_count),
        (rdi, rsi, rdx, rcx, r8),
        strict=True,
    ):
        MOV(register, argument)
    TEST(reg_count, reg_count)
    JZ(none)
    LABEL(loop)
    MOV(rdi, [reg_first])
    MOV(rsi, [reg_second])
    CALL(reg_function)
    MOV([reg_out], rax)
    for pointer in (reg_first, reg_second, reg_out):
        ADD(pointer, 8)
    SUB(reg_count, 1)
    JNZ(loop)
    LABEL(none)
    for register in reversed(saved):
        POP(register)
    RET()


def _call_each_record() -> None:
    from peachpy.x86_64 import (
        ADD, CALL, JNZ, JZ, LABEL, MOV, MOVQ, POP, PUSH, RET, SUB, TEST, Label, r8, r12, rbx, rcx,
        rdi, rdx, rsi, xmm0,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp

    loop, none = Label("loop"), Label("none")
    saved = (rbx, rbp, r12)  # three, which leaves rsp at a multiple of 16
    for register in saved:
        PUSH(register)
    MOV(rbx, rdi)
    MOV(rbp, rsi)
    MOV(r12, rdx)
    TEST(r12, r12)
    JZ(none)
    LABEL(loop)
    for i, register in enumerate((rdi, rsi, rdx, rcx, r8)):
        MOV(register, [rbp + 8 * i])
    MOVQ(xmm0, [rbp + 40])
    CALL(rbx)
    ADD(rbp, 8 * RECORD_WORDS)
    SUB(r12, 1)
    JNZ(loop)
    LABEL(none)
    for register in reversed(saved):
        POP(register)
    RET()
