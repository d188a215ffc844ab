"""Routines that read CPython's objects: unboxing of ints, and collection of a function's state.

Each integer layout of ``object_layouts.py`` has its own code. The routines that CPython's garbage
collector calls for a function's state get its address from the API, so they depend on no layout.
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    ADD, AND, CLC, CMOVS, CMP, DEC, IMUL, INC, JA, JAE, JC, JE, JMP, JNE, JNS, JNZ, JZ, LABEL, LEA,
    MOV, MOVSX, MOVSXD, MOVZX, NEG, OR, POP, PUSH, RET, SHL, SHR, STC, SUB, TEST, XOR, Label, al,
    ax, byte, dword, eax, ecx, qword, r10, r10d, rax, rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.x86_64.python_functions.object_layouts import INTEGER_LAYOUTS, FunctionState
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_ROUTINE, CALL_SLOT, LOAD_SLOT, TAIL_JUMP, TAIL_JUMP_SLOT,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.x86_64.python_functions.object_layouts import IntegerLayout

__all__ = ["routines"]


def routines() -> Iterator[Routine]:
    """Assemble the unboxing routines, and the garbage collector's slots of a function's state."""
    for layout in INTEGER_LAYOUTS.values():
        for unbox in (_unbox_64, _unbox_53, _unbox_32, _unbox_pointer):
            name = f"{unbox.__name__.lstrip('_')}_{layout.name}"
            yield sequence(name, partial(unbox, layout))
        for name, narrow in _NARROW.items():
            yield sequence(f"unbox_{name}_{layout.name}", partial(_unbox_narrow, layout, narrow))
    yield sequence("unbox_bool", _unbox_bool)
    for name, body in (
        ("function_state_traverse", _traverse),
        ("function_state_clear", _clear),
        ("function_state_free", _free),
        ("return_first_argument", _return_first_argument),
    ):
        yield sequence(name, body)


# --- reading integers -----------------------------------------------------------------------------
# Called with an object in rax; returns its value in rax and CF clear, or CF set if the object is
# not an exact int that fits. Clobbers only r10, since argument registers are in use.


def _check_int(layout: IntegerLayout, no: Any) -> None:
    LOAD_SLOT(r10, "PyLong_Type")
    CMP([rax + layout.object_type], r10)
    JNE(no)


def _unbox_compact(layout: IntegerLayout, more: Any) -> None:
    """Return an integer of at most one digit; else jump to `more`, the digit count in r10."""
    many = Label("many")
    MOV(r10, [rax + layout.size])
    if layout.tagged:
        CMP(r10, 2 << 3)
        JAE(many)
        AND(r10d, 3)
        NEG(r10)
        INC(r10)  # the sign as a factor: 1 - (tag & 3)
    else:
        INC(r10)
        CMP(r10, 2)
        JA(many)
        DEC(r10)  # -1, 0 or 1: the size is the sign
    MOV(eax, [rax + layout.digits])  # the digit of zero is undefined
    IMUL(rax, r10)
    RET()  # the product fits, so CF is clear
    LABEL(many)
    if layout.tagged:
        SHR(r10, 3)
    else:
        SUB(r10, 1)
        NEG(r10)
        CMOVS(r10, [rax + layout.size])
    CMP(r10, 3)
    JA(more)


def _test_sign(layout: IntegerLayout) -> None:
    """Clear ZF for a negative integer, and clear CF."""
    offset, mask = layout.sign
    TEST(byte[rax + offset], mask)


def _unbox_two_digits(layout: IntegerLayout) -> None:
    """Read an integer of two digits into rax; ZF is clear after it if it must be negated."""
    MOV(r10d, [rax + layout.digits + 4])
    SHL(r10, 30)
    _test_sign(layout)
    MOV(eax, [rax + layout.digits])
    LEA(rax, [rax + r10 * 1])


def _return_two_digits(layout: IntegerLayout) -> None:
    negative = Label("negative")
    _unbox_two_digits(layout)
    JNZ(negative)
    RET()
    LABEL(negative)
    NEG(rax)
    CLC()
    RET()


def _unbox_64(layout: IntegerLayout) -> None:
    no, three, most_negative = Label("no"), Label("three"), Label("most_negative")
    _check_int(layout, no)
    _unbox_compact(layout, no)
    JE(three)
    _return_two_digits(layout)
    LABEL(three)
    MOV(r10d, [rax + layout.digits + 8])
    CMP(r10d, 1 << 64 - 60)
    JAE(no)
    PUSH(rcx)
    MOV(ecx, [rax + layout.digits + 4])
    SHL(r10, 60)
    SHL(rcx, 30)
    OR(r10, rcx)
    MOV(ecx, [rax + layout.digits])
    OR(r10, rcx)
    POP(rcx)
    _test_sign(layout)
    MOV(rax, r10)
    JNZ(most_negative)
    RET()
    LABEL(most_negative)
    NEG(rax)
    JNS(no)  # below -2**63
    CLC()
    RET()
    LABEL(no)
    STC()
    RET()


def _unbox_53(layout: IntegerLayout) -> None:
    """Read an integer of less than 53 bits and a sign, which every double can hold."""
    no = Label("no")
    _check_int(layout, no)
    _unbox_compact(layout, no)
    JE(no)  # three digits
    CMP(dword[rax + layout.digits + 4], 1 << 53 - 30)
    JAE(no)
    _return_two_digits(layout)
    LABEL(no)
    STC()
    RET()


def _unbox_32(layout: IntegerLayout) -> None:
    no, fits, positive = Label("no"), Label("fits"), Label("positive")
    _check_int(layout, no)
    _unbox_compact(layout, no)
    JE(no)
    _unbox_two_digits(layout)
    JZ(positive)
    NEG(rax)
    LABEL(positive)
    MOVSXD(r10, eax)
    CMP(r10, rax)
    JE(fits)
    MOV(r10d, eax)
    CMP(r10, rax)
    JNE(no)
    LABEL(fits)
    RET()  # equal, so CF is clear
    LABEL(no)
    STC()
    RET()


_NARROW: dict[str, Callable[[], object]] = {
    "i8": lambda: MOVSX(r10, al),
    "u8": lambda: MOVZX(r10d, al),
    "i16": lambda: MOVSX(r10, ax),
    "u16": lambda: MOVZX(r10d, ax),
}


def _unbox_narrow(layout: IntegerLayout, extend: Callable[[], object]) -> None:
    """Return it extended to 64 bits by its sign: a caller passes 32 bits of it."""
    no = Label("no")
    CALL_ROUTINE(f"unbox_32_{layout.name}")
    JC(no)
    extend()
    CMP(r10, rax)
    JNE(no)
    RET()  # equal, so CF is clear
    LABEL(no)
    STC()
    RET()


def _unbox_bool() -> None:
    yes, no = Label("yes"), Label("no")
    LOAD_SLOT(r10, "_Py_TrueStruct")
    CMP(rax, r10)
    JE(yes)
    LOAD_SLOT(r10, "_Py_FalseStruct")
    CMP(rax, r10)
    JNE(no)
    XOR(eax, eax)
    RET()
    LABEL(yes)
    MOV(eax, 1)
    RET()  # equal, so CF is clear
    LABEL(no)
    STC()
    RET()


def _unbox_pointer(layout: IntegerLayout) -> None:
    no, null = Label("no"), Label("null")
    LOAD_SLOT(r10, "_Py_NoneStruct")
    CMP(rax, r10)
    JE(null)
    _check_int(layout, no)
    _test_sign(layout)
    JNZ(no)
    TAIL_JUMP(f"unbox_64_{layout.name}")
    LABEL(null)
    XOR(eax, eax)
    RET()
    LABEL(no)
    STC()
    RET()


# --- garbage collection of a function's state -----------------------------------------------------


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
