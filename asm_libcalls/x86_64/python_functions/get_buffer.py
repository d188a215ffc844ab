"""The buffer slot of a Python class, for CPython before 3.12: calls its ``_get_buffer``.

That method calls ``__buffer__`` and checks the result, as CPython 3.12 does itself.

``asm_libcalls_get_buffer(self, view, flags)`` is a ``getbufferproc``: called with the GIL held,
it returns 0, or -1 with the error indicator set and ``view->obj`` NULL.

Source: CPython's ``slot_bf_getbuffer`` (3.12), PEP 688, and the buffer protocol of the C API.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

GET_BUFFER = "asm_libcalls_get_buffer"

_VIEW_OBJ = 8  # Py_buffer: buf, obj, ...
_NAME = b"_get_buffer".ljust(16, b"\0")


def routines() -> Iterator[Routine]:
    """Assemble the getbufferproc."""
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence(GET_BUFFER, _body)


def _body() -> None:
    from peachpy.x86_64 import (
        ADD, JMP, JZ, LABEL, LEA, MOV, MOVSXD, POP, PUSH, RET, SUB, TEST, XOR, Label, eax, ebp, ecx,
        edx, qword, r12, rax, rbx, rdi, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT

    failed, no_argument, leave = Label("failed"), Label("no_argument"), Label("leave")
    for register in (rbx, rbp, r12):
        PUSH(register)
    SUB(rsp, 32)  # the name, and the argument; rsp is aligned
    MOV(rbx, rsi)  # the view
    MOV(ebp, edx)  # the flags
    MOV(rax, int.from_bytes(_NAME[:8], "little"))
    MOV([rsp], rax)
    MOV(qword[rsp + 8], int.from_bytes(_NAME[8:], "little"))
    MOV(rsi, rsp)
    CALL_SLOT("PyObject_GetAttrString")
    MOV(r12, rax)  # the bound method
    TEST(rax, rax)
    JZ(failed)
    MOVSXD(rdi, ebp)
    CALL_SLOT("PyLong_FromLongLong")
    MOV([rsp + 16], rax)
    TEST(rax, rax)
    JZ(no_argument)
    MOV(rdi, r12)
    XOR(ecx, ecx)
    MOV(edx, 1)
    LEA(rsi, [rsp + 16])
    CALL_SLOT("PyObject_VectorcallDict")
    MOV([rsp], rax)  # the exporter, or NULL
    MOV(rdi, [rsp + 16])
    CALL_SLOT("Py_DecRef")
    MOV(rax, [rsp])
    LABEL(no_argument)
    MOV([rsp], rax)
    MOV(rdi, r12)
    CALL_SLOT("Py_DecRef")
    MOV(r12, [rsp])
    TEST(r12, r12)
    JZ(failed)
    MOV(rdi, r12)
    MOV(rsi, rbx)
    MOV(edx, ebp)
    CALL_SLOT("PyObject_GetBuffer")
    MOV(ebp, eax)
    MOV(rdi, r12)  # the view owns the exporter now, if there is one
    CALL_SLOT("Py_DecRef")
    MOV(eax, ebp)
    JMP(leave)
    LABEL(failed)
    MOV(qword[rbx + _VIEW_OBJ], 0)
    MOV(eax, -1)
    LABEL(leave)
    ADD(rsp, 32)
    for register in (r12, rbp, rbx):
        POP(register)
    RET()
