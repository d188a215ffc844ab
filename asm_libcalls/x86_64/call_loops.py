"""Loops in machine code that call a C function once for each element, as compiled code would.

No Python code runs between the calls: the exhaustive check calls each f32 rounding libcall four
billion times, and the benchmark times calls at the C address. A loop takes the address of the
function, the operands' arrays, the result's array and the number of elements.
"""

from __future__ import annotations

import ctypes
from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from asm_libcalls.emitter.image import Routine

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
        self._image.keep()

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
    from peachpy.x86_64 import (
        MOV, MOVQ, MOVSD, MOVSS, eax, edi, r8, rax, rcx, rdi, rdx, rsi, xmm0,
    )  # fmt: skip

    from asm_libcalls.x86_64.assembler import sequence

    f32, f64, in_u32, out_u32 = (MOVSS, xmm0), (MOVSD, xmm0), (MOV, edi), (MOV, eax)
    integers = [(MOV, register) for register in (rdi, rsi, rdx, rcx, r8)]
    for name, operands, result, size in (
        ("call_each_f32", ([f32],), f32, 4),
        ("call_each_f64", ([f64],), f64, 8),
        ("call_each_f32_to_u32", ([f32],), out_u32, 4),
        ("call_each_u32_to_f32", ([in_u32],), f32, 4),
        ("call_each_i64", ([integers[0]], [integers[1]]), (MOV, rax), 8),
        (CALL_EACH_RECORD, ([*integers, (MOVQ, xmm0)],), None, 8 * RECORD_WORDS),
    ):
        yield sequence(name, partial(_call_each, operands, result, size))


def _call_each(
    operands: Sequence[Sequence[tuple[Any, Any]]], result: tuple[Any, Any] | None, size: int
) -> None:
    """Emit a loop.

    An operand has for each 8-byte word of its elements the instruction and the register that load
    it; the result has those that store it to the last array. `size` is the bytes of an element, in
    all arrays.
    """
    from peachpy.x86_64 import (
        ADD, CALL, JNZ, JZ, LABEL, MOV, POP, PUSH, RET, SUB, TEST, Label, r8, r12, r13, r14, rbx,
        rcx, rdi, rdx, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp, rsp

    loop, none = Label("loop"), Label("none")
    pointers = (rbp, r12, r13)[: len(operands) + (result is not None)]
    saved = (rbx, rbp, r12, r13, r14)[: len(pointers) + 2]
    reg_function, reg_count = rbx, saved[-1]
    for register in saved:
        PUSH(register)
    if len(saved) % 2 == 0:
        SUB(rsp, 8)  # a multiple of 16 at each call, as the ABI requires
    for register, argument in zip(saved, (rdi, rsi, rdx, rcx, r8), strict=False):
        MOV(register, argument)
    TEST(reg_count, reg_count)
    JZ(none)
    LABEL(loop)
    for pointer, words in zip(pointers, operands, strict=False):
        for i, (load, register) in enumerate(words):
            load(register, [pointer + 8 * i])
    CALL(reg_function)
    if result is not None:
        store, register = result
        store([pointers[-1]], register)
    for pointer in pointers:
        ADD(pointer, size)
    SUB(reg_count, 1)
    JNZ(loop)
    LABEL(none)
    if len(saved) % 2 == 0:
        ADD(rsp, 8)
    for register in reversed(saved):
        POP(register)
    RET()
