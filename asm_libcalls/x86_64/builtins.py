"""The machine code of native functions: CPython builtins round any C address.

A builtin is called as CPython calls any: ``(self, argument)`` with METH_O, ``(self, arguments,
count)`` with METH_FASTCALL, ``(self, NULL)`` with METH_NOARGS. `self` is a module object of its
own, whose C state is a :class:`FunctionState`: the C address, and the Python function that takes
over where the fast path ends. So the code depends on nothing but the *shape* of a signature, and
all functions of one shape share one routine, composed from the stencils below and never freed.

The fast path takes exact ``float`` and ``int`` objects, and for a vmctx the Instance, by the
member that has its address. None of them can run Python code while it is read. There are two kinds
of it:

*bare*
    for leaf routines. On the stack: ``self``; r11: the arguments; rax: the object at hand; then
    the C argument registers, which nothing in between clobbers. A straight-line routine of ours
    is copied in place of the call, or a stencil stands there (``memories.py`` has some)::

        enter_bare take (object_* (integer_K | float64_K | float32_K | vmctx))* [guard]
        (call_bare | routine | stencil) leave_bare box_*

*entered*
    for callees that may trap, raise, or release the GIL: arguments go into a
    :class:`~asm_libcalls.entry.NativeCall` on the stack, and ``asm_libcalls_enter`` (or its twin
    that holds the GIL) makes the call. rbx: ``self``, later the status::

        enter_entered take (object_* spill_*)* call_entered leave_entered box_*

Whatever does not fit leaves for ``PyObject_VectorcallDict(slow, arguments, count, NULL)`` with
the arguments as they came.

Source: CPython ``Include/methodobject.h``; System V ABI for AMD64, 3.2.3.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.entry import NativeCall
from asm_libcalls.x86_64.python_objects import (
    FLOAT_VALUE,
    MODULE_STATE,
    OBJECT_TYPE,
    FunctionState,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.x86_64.image import Routine

    Hole = Callable[[str], int]

__all__ = [
    "STACK_ARGUMENTS",
    "STENCIL_PREFIX",
    "entered_frame_size",
    "routines",
]

STENCIL_PREFIX = "builtin."

STACK_ARGUMENTS = ctypes.sizeof(NativeCall)
"""In the frame of an entered call: where the arguments that registers can not hold begin."""


def entered_frame_size(stack_arguments: int) -> int:
    """Return the bytes between rsp and the saved rbx, a multiple of 16: the ABI's alignment."""
    return -(-(STACK_ARGUMENTS + 8 * stack_arguments) // 16) * 16


def routines() -> Iterator[Routine]:
    """Assemble what all native functions share, and the stencils."""
    from peachpy.x86_64 import (
        r8, r9, rcx, rdi, rdx, rsi, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7,
    )  # fmt: skip

    from asm_libcalls.x86_64 import python_objects
    from asm_libcalls.x86_64.stencils import assemble

    yield from python_objects.routines()
    for name, stencil in _STENCILS.items():
        yield assemble(STENCIL_PREFIX + name, stencil, has_effects=True)
    for i, register in enumerate((rdi, rsi, rdx, rcx, r8, r9)):
        yield assemble(f"{STENCIL_PREFIX}integer_{i}", _integer(register), has_effects=True)
    for i, xmm in enumerate((xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7)):
        yield assemble(f"{STENCIL_PREFIX}float64_{i}", _float64(xmm), has_effects=True)
        yield assemble(f"{STENCIL_PREFIX}float32_{i}", _float32(xmm), has_effects=True)


# --- stencils: arguments --------------------------------------------------------------------------


def _enter_bare(hole: Hole) -> None:
    from peachpy.x86_64 import PUSH, rdi

    PUSH(rdi)  # self, and 16-byte alignment for calls


def _check_count(hole: Hole) -> None:
    from peachpy.x86_64 import CMP, rdx

    from asm_libcalls.x86_64.instructions import JUMP_IF

    CMP(rdx, hole("count"))
    JUMP_IF("nz", "call_slow")


def _enter_entered(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, PUSH, SUB, rbx, rdi
    from peachpy.x86_64.registers import rsp

    PUSH(rbx)
    SUB(rsp, hole("frame"))
    MOV(rbx, rdi)


def _take(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, r11, rsi

    MOV(r11, rsi)


def _object_one(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, r11, rax

    MOV(rax, r11)


def _object_vector(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, r11, rax

    MOV(rax, [r11 + hole("argument")])


def _unbox() -> None:
    from asm_libcalls.x86_64.instructions import CALL_SLOT, JUMP_IF

    CALL_SLOT("unbox")
    JUMP_IF("c", "slow")


def _check_float() -> None:
    from peachpy.x86_64 import CMP, r10, rax

    from asm_libcalls.x86_64.instructions import JUMP_IF, LOAD_SLOT

    LOAD_SLOT(r10, "PyFloat_Type")
    CMP([rax + OBJECT_TYPE], r10)
    JUMP_IF("nz", "slow")


def _integer(register: Any) -> Callable[[Hole], None]:
    def body(hole: Hole) -> None:
        from peachpy.x86_64 import MOV, rax

        _unbox()
        MOV(register, rax)

    return body


def _vmctx(hole: Hole) -> None:
    """Load rdi with the address that an Instance keeps in a member: 0, or none, if it is closed."""
    from peachpy.x86_64 import CMP, MOV, TEST, r10, rax, rdi

    from asm_libcalls.x86_64.instructions import JUMP_IF, LOAD_SLOT

    LOAD_SLOT(r10, "vmctx_class")
    CMP([rax + OBJECT_TYPE], r10)
    JUMP_IF("nz", "slow")
    MOV(rax, [rax + hole("vmctx_member")])
    TEST(rax, rax)
    JUMP_IF("z", "slow")
    _unbox()
    TEST(rax, rax)
    JUMP_IF("z", "slow")
    MOV(rdi, rax)


def _float64(xmm: Any) -> Callable[[Hole], None]:
    def body(hole: Hole) -> None:
        from peachpy.x86_64 import MOVSD, rax

        _check_float()
        MOVSD(xmm, [rax + FLOAT_VALUE])

    return body


def _float32(xmm: Any) -> Callable[[Hole], None]:
    def body(hole: Hole) -> None:
        from peachpy.x86_64 import CVTSD2SS, MOVSD, rax

        _check_float()
        MOVSD(xmm, [rax + FLOAT_VALUE])  # the whole register: no dependency on what was there
        CVTSD2SS(xmm, xmm)

    return body


def _spill_integer(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, rax
    from peachpy.x86_64.registers import rsp

    _unbox()
    MOV([rsp + hole("offset")], rax)


def _spill_float64(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, rax
    from peachpy.x86_64.registers import rsp

    _check_float()
    MOV(rax, [rax + FLOAT_VALUE])
    MOV([rsp + hole("offset")], rax)


def _spill_float32(hole: Hole) -> None:
    from peachpy.x86_64 import CVTSD2SS, MOVSD, rax, xmm0
    from peachpy.x86_64.registers import rsp

    _check_float()
    MOVSD(xmm0, [rax + FLOAT_VALUE])
    CVTSD2SS(xmm0, xmm0)
    MOVSD([rsp + hole("offset")], xmm0)


# --- stencils: guards, which keep a bare call from trapping ---------------------------------------


def _divisor_not_zero(hole: Hole) -> None:
    from peachpy.x86_64 import TEST, rsi

    from asm_libcalls.x86_64.instructions import JUMP_IF

    TEST(rsi, rsi)
    JUMP_IF("z", "slow")


def _quotient_fits(hole: Hole) -> None:
    from peachpy.x86_64 import CMP, JNE, LABEL, MOV, NEG, Label, rax, rdi, rsi

    from asm_libcalls.x86_64.instructions import JUMP_IF

    fits = Label("fits")
    _divisor_not_zero(hole)
    CMP(rsi, -1)
    JNE(fits)
    MOV(rax, rdi)
    NEG(rax)  # overflows for -2**63 alone
    JUMP_IF("o", "slow")
    LABEL(fits)


# --- stencils: the call ---------------------------------------------------------------------------


def _call_bare(hole: Hole) -> None:
    from peachpy.x86_64 import CALL, MOV, eax, r10
    from peachpy.x86_64.registers import rsp

    MOV(r10, [rsp])
    MOV(r10, [r10 + MODULE_STATE])
    MOV(eax, 8)  # a variadic callee wants to know how many vector registers are in use
    CALL([r10 + FunctionState.address.offset])


def _leave_bare(hole: Hole) -> None:
    from peachpy.x86_64 import ADD
    from peachpy.x86_64.registers import rsp

    ADD(rsp, 8)


def _call_entered(hole: Hole) -> None:
    from peachpy.x86_64 import LEA, MOV, TEST, qword, rax, rbx, rdi
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.instructions import CALL_SLOT, JUMP_IF

    MOV(rax, [rbx + MODULE_STATE])
    MOV(rax, [rax + FunctionState.address.offset])
    MOV([rsp + NativeCall.address.offset], rax)
    LEA(rax, [rsp + STACK_ARGUMENTS])
    MOV([rsp + NativeCall.stack_arguments.offset], rax)
    MOV(qword[rsp + NativeCall.stack_count.offset], hole("stack_count"))
    MOV(rdi, rsp)
    CALL_SLOT("enter")
    MOV(rbx, rax)  # the status; self is alive as long as our caller runs
    CALL_SLOT("PyErr_Occurred")
    TEST(rax, rax)
    JUMP_IF("nz", "fail")  # a callback raised, or a C function of CPython's did
    TEST(rbx, rbx)
    JUMP_IF("nz", "raise")


def _leave_entered(hole: Hole) -> None:
    from peachpy.x86_64 import ADD, MOV, MOVSD, POP, rax, rbx, xmm0
    from peachpy.x86_64.registers import rsp

    MOV(rax, [rsp + NativeCall.integer_result.offset])
    MOVSD(xmm0, [rsp + NativeCall.float_result.offset])
    ADD(rsp, hole("frame"))
    POP(rbx)


def _raise(hole: Hole) -> None:
    """Call ``raise_status(status)`` with the status in rbx, and go on to ``fail``."""
    from peachpy.x86_64 import JZ, LABEL, MOV, TEST, XOR, Label, ecx, edx, rax, rbx, rdi, rsi
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.instructions import CALL_SLOT, LOAD_SLOT

    no_memory = Label("no_memory")
    MOV(rdi, rbx)
    CALL_SLOT("PyLong_FromUnsignedLongLong")
    TEST(rax, rax)
    JZ(no_memory)
    MOV(rbx, rax)
    MOV([rsp], rax)
    LOAD_SLOT(rdi, "raise_status")
    MOV(rsi, rsp)
    MOV(edx, 1)
    XOR(ecx, ecx)
    CALL_SLOT("PyObject_VectorcallDict")  # returns NULL: it raises
    MOV(rdi, rbx)
    CALL_SLOT("Py_DecRef")
    LABEL(no_memory)


def _fail(hole: Hole) -> None:
    from peachpy.x86_64 import ADD, POP, RET, XOR, eax, rbx
    from peachpy.x86_64.registers import rsp

    XOR(eax, eax)
    ADD(rsp, hole("frame"))
    POP(rbx)
    RET()


# --- stencils: the result -------------------------------------------------------------------------


def _box_none(counted: bool) -> Callable[[Hole], None]:
    def body(hole: Hole) -> None:
        from peachpy.x86_64 import INC, RET, qword, rax

        from asm_libcalls.x86_64.instructions import LOAD_SLOT

        LOAD_SLOT(rax, "_Py_NoneStruct")
        if counted:
            INC(qword[rax])
        RET()

    return body


def _box_integer(bits: int, signed: bool) -> Callable[[Hole], None]:
    def body(hole: Hole) -> None:
        from peachpy.x86_64 import MOV, MOVSXD, eax, edi, rax, rdi

        from asm_libcalls.x86_64.instructions import TAIL_JUMP_SLOT

        if bits == 64:
            MOV(rdi, rax)
        elif signed:
            MOVSXD(rdi, eax)
        else:
            MOV(edi, eax)
        wide = bits == 64 and not signed
        TAIL_JUMP_SLOT("PyLong_FromUnsignedLongLong" if wide else "PyLong_FromLongLong")

    return body


def _box_f64(hole: Hole) -> None:
    from asm_libcalls.x86_64.instructions import TAIL_JUMP_SLOT

    TAIL_JUMP_SLOT("PyFloat_FromDouble")


def _box_f32(hole: Hole) -> None:
    from peachpy.x86_64 import CVTSS2SD, xmm0

    CVTSS2SD(xmm0, xmm0)
    _box_f64(hole)


# --- stencils: the slow path ----------------------------------------------------------------------


def _slow_bare(hole: Hole) -> None:
    from peachpy.x86_64 import POP, rdi

    POP(rdi)


def _slow_entered(hole: Hole) -> None:
    from peachpy.x86_64 import ADD, MOV, POP, rbx, rdi
    from peachpy.x86_64.registers import rsp

    MOV(rdi, rbx)
    ADD(rsp, hole("frame"))
    POP(rbx)


def _slow_vector(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, edx, r11, rsi

    MOV(rsi, r11)
    MOV(edx, hole("count"))


def _load_slow() -> None:
    from peachpy.x86_64 import CMOVZ, MOV, TEST, XOR, ecx, rax, rdi

    from asm_libcalls.x86_64.instructions import LOAD_SLOT

    MOV(rdi, [rdi + MODULE_STATE])
    MOV(rdi, [rdi + FunctionState.slow.offset])
    LOAD_SLOT(rax, "raise_collected")
    TEST(rdi, rdi)
    CMOVZ(rdi, rax)
    XOR(ecx, ecx)


def _call_slow(hole: Hole) -> None:
    from asm_libcalls.x86_64.instructions import TAIL_JUMP_SLOT

    _load_slow()
    TAIL_JUMP_SLOT("PyObject_VectorcallDict")


def _call_slow_one(hole: Hole) -> None:
    from peachpy.x86_64 import MOV, POP, PUSH, RET, edx, r11, rdx, rsi
    from peachpy.x86_64.registers import rsp

    from asm_libcalls.x86_64.instructions import CALL_SLOT

    _load_slow()
    PUSH(r11)  # an array of one argument, and 16-byte alignment
    MOV(rsi, rsp)
    MOV(edx, 1)
    CALL_SLOT("PyObject_VectorcallDict")
    POP(rdx)
    RET()


_STENCILS: dict[str, Callable[[Hole], None]] = {
    "check_count": _check_count,
    "enter_bare": _enter_bare,
    "enter_entered": _enter_entered,
    "take": _take,
    "object_one": _object_one,
    "object_vector": _object_vector,
    "spill_integer": _spill_integer,
    "spill_float64": _spill_float64,
    "spill_float32": _spill_float32,
    "vmctx": _vmctx,
    "divisor_not_zero": _divisor_not_zero,
    "quotient_fits": _quotient_fits,
    "call_bare": _call_bare,
    "leave_bare": _leave_bare,
    "call_entered": _call_entered,
    "leave_entered": _leave_entered,
    "raise": _raise,
    "fail": _fail,
    "box_none_counted": _box_none(True),
    "box_none_immortal": _box_none(False),
    "box_i32": _box_integer(32, True),
    "box_u32": _box_integer(32, False),
    "box_i64": _box_integer(64, True),
    "box_u64": _box_integer(64, False),
    "box_f32": _box_f32,
    "box_f64": _box_f64,
    "slow_bare": _slow_bare,
    "slow_entered": _slow_entered,
    "slow_vector": _slow_vector,
    "call_slow": _call_slow,
    "call_slow_one": _call_slow_one,
}
