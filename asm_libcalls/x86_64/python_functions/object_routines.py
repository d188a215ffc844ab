"""Routines for a function's state that CPython calls: its garbage collection, and the self-test.

Those of the garbage collection get the state's address from Python's API, so they depend on no
layout.
"""

from __future__ import annotations

from collections.abc import Iterator

from peachpy.x86_64 import (
    ADD, JMP, JZ, LABEL, MOV, POP, PUSH, RET, TEST, XOR, Label, eax, qword, rax, rbx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.python_functions import unboxing, wide_integers
from asm_libcalls.x86_64.python_functions.object_layouts import FunctionState
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT, TAIL_JUMP_SLOT


def routines() -> Iterator[Routine]:
    """Assemble the unboxing routines, and the garbage collector's slots of a function's state."""
    yield from unboxing.routines()
    yield from wide_integers.routines()
    for name, body in (
        ("function_state_traverse", _traverse),
        ("function_state_clear", _clear),
        ("function_state_free", _free),
        ("return_first_argument", _return_first_argument),
    ):
        yield sequence(name, body)


def _traverse() -> None:
    """``int traverse(PyObject *module, visitproc visit, void *argument)``."""
    nothing = Label("nothing")
    PUSH(rsi)
    PUSH(rdx)
    PUSH(rax)  # aligns the stack
    CALL_SLOT("PyModule_GetState")
    ADD(rsp, 8)
    POP(rsi)
    POP(rdx)
    MOV(rdi, [rax + FunctionState.slow.offset])
    TEST(rdi, rdi)
    JZ(nothing)
    JMP(rdx)
    LABEL(nothing)
    XOR(eax, eax)
    RET()


def _clear() -> None:
    """``int clear(PyObject *module)``: break cycles, but keep the definition."""
    PUSH(rax)  # aligns the stack
    CALL_SLOT("PyModule_GetState")
    MOV(rdi, [rax + FunctionState.slow.offset])
    MOV(qword[rax + FunctionState.slow.offset], 0)
    CALL_SLOT("Py_DecRef")  # ignores null
    XOR(eax, eax)
    POP(rdx)
    RET()


def _free() -> None:
    """``void free(void *module)``."""
    PUSH(rbx)
    CALL_SLOT("PyModule_GetState")
    MOV(rbx, rax)
    MOV(rdi, [rbx + FunctionState.slow.offset])
    CALL_SLOT("Py_DecRef")
    MOV(rdi, [rbx + FunctionState.text.offset])
    POP(rbx)
    TAIL_JUMP_SLOT("Py_DecRef")


def _return_first_argument() -> None:
    """Return the first integer in rax, and the first float in xmm0: for the self-test."""
    MOV(rax, rdi)
    RET()
