"""Native code calls Python: the thunks of a :class:`~asm_libcalls.HostFunction`.

A *thunk* is a C address that calls one Python callable. Thunks differ only in their slot, which
holds the address of a ``HostCallRecord`` with the callable and the conversions. So thunks are made
in whole pages, and a new host function writes data only.

``asm_libcalls_call_python``, the body of every thunk, converts the arguments to Python objects,
calls, and converts the result to C. A ctypes callback would discard exceptions. Here a failed call
leaves the thread's error indicator set while ``asm_libcalls_raise_exception`` unwinds the native
frames of the caller. No Python frame is on the stack above the entry then.

While Python runs, a *departure* records the activation that was left (``departures.py``). The body
returns by its own frame and callee-saved registers, which a greenlet restores with the stack.

Python runs with the thread state of the entry into native code, so in the interpreter of the entry.
Native code that was not entered through an activation (by a plain ctypes call, or in a thread of a
C library) is *unentered*: it gets a thread state by ``PyGILState_Ensure``. Its frames are unknown
and cannot be unwound, so an exception ends the process.

Source: System V ABI for AMD64, 3.2.3; CPython C API (stable ABI, and PyObject_VectorcallDict).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

from peachpy.x86_64 import (
    ADD, AND, CMP, CVTSD2SS, CVTSS2SD, DEC, INC, JB, JE, JMP, JNE, JNS, JNZ, JZ, LABEL, LEA, MOV,
    MOVSD, MOVSS, MOVSXD, PUSH, RET, SUB, TEST, UD2, XOR, Label, dword, eax, ecx, edi, edx, r12,
    r12d, r13, r14, r15, rax, rbx, rcx, rdi, rdx, rsi, xmm0,
)  # fmt: skip
from peachpy.x86_64.registers import rbp, rsp

from asm_libcalls.activation import Activation, ThreadRecord
from asm_libcalls.calling_convention import (
    CALLEE_SAVED, CALLEE_SAVED_SIZE, FLOAT_REGISTERS, INTEGER_REGISTERS,
)  # fmt: skip
from asm_libcalls.emitter.image import Reference, Routine
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.x86_64.assembler import registers, sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_SLOT, LOAD_SLOT, LOAD_SLOT_ADDRESS, TAIL_JUMP, TAIL_JUMP_SLOT,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import CALL_PYTHON, RAISE_TRAP
from asm_libcalls.x86_64.trampolines.call_records import (
    ADDRESS, F32, F64, FLOATS, FRAME, GIL_STATE, I32, I64, INTEGERS, NOTHING, RESULT, RESULT_HIGH,
    THUNKS, U32, U64, HostCallRecord, Parameter,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines.departures import (
    allocate_departure, leave_native, load_record, release_record, return_to_native,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines.enter_and_raise import RAISE_EXCEPTION, pop_frame
from asm_libcalls.x86_64.trampolines.thread_records import load_or_make_thread_record

ARGUMENTS_BELOW_LIMIT = 1024
"""Bytes below the stack limit that the arguments of a call from just above it may take."""


def routines() -> Iterator[Routine]:
    """Assemble the body of the thunks."""
    yield sequence(CALL_PYTHON, _call_python, framed=True)


def thunk_routines() -> list[Routine]:
    """Assemble one image's worth of thunks, each with a slot of its name."""
    pattern = sequence("thunk", _thunk)
    return [
        Routine(
            name,
            pattern.code,
            pattern.size,
            tuple(
                Reference(r.offset, name if r.symbol == "record" else r.symbol, r.is_slot)
                for r in pattern.references
            ),
            alignment=32,
            frames=pattern.frames,
        )
        for name in THUNKS
    ]


def _thunk() -> None:
    PUSH(rbp)
    MOV(rbp, rsp)
    LOAD_SLOT_ADDRESS(rax, "record")
    TAIL_JUMP_SLOT(CALL_PYTHON)


def _call_python() -> None:
    record = HostCallRecord

    for register in registers(CALLEE_SAVED):
        PUSH(register)
    SUB(rsp, FRAME - CALLEE_SAVED_SIZE)
    MOV(rbx, rax)  # the address of the slot; the record, once the GIL is held
    for i, register in enumerate(registers(INTEGER_REGISTERS)):
        MOV([rbp + INTEGERS + 8 * i], register)
    for i, register in enumerate(registers(FLOAT_REGISTERS)):
        MOVSD([rbp + FLOATS + 8 * i], register)

    # r15: the activation, or 0 for unentered code. r12: the thread's record.
    unentered, abort = Label("unentered"), Label("abort")
    left, no_departure = Label("left"), Label("no_departure")
    too_deep, has_gil, allocated = Label("too_deep"), Label("has_gil"), Label("allocated")
    load_or_make_thread_record(abort)
    MOV(r12, rax)
    MOV(r15, [r12 + ThreadRecord.innermost.offset])
    TEST(r15, r15)
    JZ(unentered)
    MOV(rax, rsp)
    SUB(rax, [r12 + ThreadRecord.stack_low.offset])
    CMP(rax, [r12 + ThreadRecord.stack_reserve.offset])
    JB(too_deep)
    LEA(rax, [rbp + ARGUMENTS_BELOW_LIMIT])
    CMP(rax, [r12 + ThreadRecord.stack_limit.offset])
    JB(too_deep)
    MOV(dword[rbp + GIL_STATE], 0)
    CALL_SLOT("PyThreadState_GetUnchecked")
    MOV(rdi, [r15 + Activation.thread_state.offset])
    CMP(rax, rdi)
    JE(has_gil)
    INC(dword[rbp + GIL_STATE])
    CALL_SLOT("PyEval_RestoreThread")
    LABEL(has_gil)

    # Native code is left: [rbp + DEPARTURE] is the departure.
    LABEL(left)
    leave_native(no_departure, allocated)

    load_record()

    # r12: the number of parameters; r13: the number of Python objects at [rsp] so far.
    MOV(r12d, [rbx + record.count.offset])
    LEA(rax, [r12 * 8 + 15])
    AND(rax, -16)
    SUB(rsp, rax)
    XOR(r13.as_dword, r13.as_dword)
    next_argument, boxed, call = Label("next_argument"), Label("boxed"), Label("call")
    LABEL(next_argument)
    CMP(r13, r12)
    JE(call)
    MOVSXD(rax, dword[rbx + r13 * 8 + ctypes.sizeof(record) + Parameter.offset.offset])
    MOV(ecx, [rbx + r13 * 8 + ctypes.sizeof(record) + Parameter.conversion.offset])
    ADD(rax, rbp)
    as_i64, as_u32, as_i32 = Label("as_i64"), Label("as_u32"), Label("as_i32")
    as_f64, as_f32, as_address = Label("as_f64"), Label("as_f32"), Label("as_address")
    from_unsigned, from_signed = Label("from_unsigned"), Label("from_signed")
    from_double = Label("from_double")
    for conversion, label in ((I64, as_i64), (U32, as_u32), (I32, as_i32), (F64, as_f64),
                              (F32, as_f32), (ADDRESS, as_address)):  # fmt: skip
        CMP(ecx, conversion)
        JE(label)
    MOV(rdi, [rax])
    LABEL(from_unsigned)
    CALL_SLOT("PyLong_FromUnsignedLongLong")
    JMP(boxed)
    LABEL(as_address)
    MOV(rdi, rax)
    JMP(from_unsigned)
    LABEL(as_u32)
    MOV(edi, [rax])  # the upper half of a 32-bit argument is undefined: this clears it
    JMP(from_unsigned)
    LABEL(as_i64)
    MOV(rdi, [rax])
    LABEL(from_signed)
    CALL_SLOT("PyLong_FromLongLong")
    JMP(boxed)
    LABEL(as_i32)
    MOVSXD(rdi, dword[rax])
    JMP(from_signed)
    LABEL(as_f32)
    MOVSS(xmm0, [rax])
    CVTSS2SD(xmm0, xmm0)
    JMP(from_double)
    LABEL(as_f64)
    MOVSD(xmm0, [rax])
    LABEL(from_double)
    CALL_SLOT("PyFloat_FromDouble")
    LABEL(boxed)
    # r14: the result of the call, or 0.
    no_memory = Label("no_memory")
    TEST(rax, rax)
    JZ(no_memory)
    MOV([rsp + r13 * 8], rax)
    INC(r13)
    JMP(next_argument)

    LABEL(call)
    MOV(rdi, [rbx + record.callable.offset])
    MOV(rsi, rsp)
    MOV(rdx, r12)
    XOR(ecx, ecx)
    CALL_SLOT("PyObject_VectorcallDict")
    release, released = Label("release"), Label("released")
    LABEL(no_memory)
    MOV(r14, rax)
    LABEL(release)
    TEST(r13, r13)
    JZ(released)
    DEC(r13)
    MOV(rdi, [rsp + r13 * 8])
    CALL_SLOT("Py_DecRef")
    JMP(release)
    LABEL(released)

    failed, release_result = Label("failed"), Label("release_result")
    to_float, keep_f64, check = Label("to_float"), Label("keep_f64"), Label("check")
    as_u64, as_u32_result, as_i32_result = Label("to_u64"), Label("to_u32"), Label("to_i32")
    misfit, error, convert = Label("misfit"), Label("error"), Label("convert")
    as_double = Label("as_double")
    TEST(r14, r14)
    JZ(failed)
    MOV(eax, [rbx + record.result.offset])
    CMP(eax, NOTHING)
    JE(release_result)
    MOV(rdi, r14)
    CMP(eax, F64)
    JE(to_float)
    CMP(eax, F32)
    JE(to_float)
    LEA(rsi, [rbp + RESULT])
    CALL_SLOT("PyLong_AsLongLongAndOverflow")
    MOV(ecx, [rbp + RESULT])
    MOV([rbp + RESULT], rax)
    TEST(ecx, ecx)
    JNZ(misfit)
    MOV(ecx, [rbx + record.result.offset])
    for conversion, label in ((U64, as_u64), (U32, as_u32_result), (I32, as_i32_result)):
        CMP(ecx, conversion)
        JE(label)
    JMP(check)
    LABEL(as_u64)
    TEST(rax, rax)
    JNS(check)
    JMP(misfit)
    LABEL(as_u32_result)
    MOV(ecx, eax)
    CMP(rcx, rax)
    JE(check)
    JMP(misfit)
    LABEL(as_i32_result)
    MOVSXD(rcx, eax)
    CMP(rcx, rax)
    JNE(misfit)
    MOV(eax, eax)  # toy_jit takes it zero-extended; the ABI leaves the upper half undefined
    MOV([rbp + RESULT], rax)
    JMP(check)
    LABEL(to_float)
    # Of other types `convert` decides: NumPy's complex numbers can be converted too.
    CALL_SLOT("PyObject_Type")
    MOV(r13, rax)
    MOV(rdi, rax)
    CALL_SLOT("Py_DecRef")
    LOAD_SLOT(rax, "PyFloat_Type")
    CMP(r13, rax)
    JE(as_double)
    LOAD_SLOT(rax, "PyLong_Type")
    CMP(r13, rax)
    JNE(convert)
    LABEL(as_double)
    MOV(rdi, r14)
    CALL_SLOT("PyFloat_AsDouble")
    MOVSD([rbp + RESULT], xmm0)
    CMP(dword[rbx + record.result.offset], F64)
    JE(keep_f64)
    CVTSD2SS(xmm0, xmm0)
    MOVSS([rbp + RESULT], xmm0)
    LABEL(keep_f64)
    LABEL(check)
    CALL_SLOT("PyErr_Occurred")
    TEST(rax, rax)
    JNZ(error)
    LABEL(release_result)
    MOV(rdi, r14)
    CALL_SLOT("Py_DecRef")
    release_record()
    return_to_native()
    _release_gil()
    MOV(rax, [rbp + RESULT])
    MOV(rdx, [rbp + RESULT_HIGH])
    MOVSD(xmm0, [rbp + RESULT])
    pop_frame()
    RET()

    # `convert` handles a result that does not fit or is no number: it accepts other values with a
    # pattern (2**63 as an i64, None as a null pointer), and raises for the rest.
    release_failed = Label("release_failed")
    LABEL(misfit)
    CALL_SLOT("PyErr_Occurred")
    TEST(rax, rax)
    JZ(convert)
    LABEL(error)
    clear = Label("clear")
    for exception in ("PyExc_TypeError", "PyExc_OverflowError"):
        LOAD_SLOT(rdi, exception)
        MOV(rdi, [rdi])
        CALL_SLOT("PyErr_ExceptionMatches")
        TEST(eax, eax)
        JNZ(clear)
    JMP(release_failed)
    LABEL(clear)
    CALL_SLOT("PyErr_Clear")
    LABEL(convert)
    MOV([rbp + RESULT], r14)
    MOV(rdi, [rbx + record.convert.offset])
    LEA(rsi, [rbp + RESULT])
    MOV(edx, 1)
    XOR(ecx, ecx)
    CALL_SLOT("PyObject_VectorcallDict")
    MOV(r13, rax)
    MOV(rdi, r14)
    CALL_SLOT("Py_DecRef")
    MOV(r14, r13)
    TEST(r14, r14)
    JZ(failed)
    MOV(rdi, r14)
    CALL_SLOT("PyLong_AsUnsignedLongLongMask")
    MOV([rbp + RESULT], rax)
    JMP(release_result)
    LABEL(release_failed)
    MOV(rdi, r14)
    CALL_SLOT("Py_DecRef")

    unraisable = Label("unraisable")
    LABEL(failed)
    TEST(r15, r15)
    JZ(unraisable)
    release_record()  # destructors preserve the error indicator
    return_to_native()
    _release_gil()
    TAIL_JUMP(RAISE_EXCEPTION)

    LABEL(unentered)
    CALL_SLOT("PyGILState_Ensure")
    MOV([rbp + GIL_STATE], eax)
    JMP(left)

    allocate_departure(no_departure, allocated)
    TEST(r15, r15)
    JZ(abort)
    CALL_SLOT("PyErr_NoMemory")
    _release_gil()
    TAIL_JUMP(RAISE_EXCEPTION)

    # Raised from the caller's frame, so that the trap's trace begins with the call of the thunk.
    LABEL(too_deep)
    pop_frame()
    MOV(edi, int(TrapCode.STACK_OVERFLOW))
    TAIL_JUMP(RAISE_TRAP)

    # Unentered: no frame to unwind to, and no result.
    LABEL(unraisable)
    MOV(rdi, [rbx + record.callable.offset])
    CALL_SLOT("PyErr_WriteUnraisable")
    LABEL(abort)
    UD2()


def _release_gil() -> None:
    """Emit: release the GIL, or the thread state of unentered code, if the body took it."""
    unentered, released = Label("unentered_gil"), Label("released")
    TEST(r15, r15)
    JZ(unentered)
    CMP(dword[rbp + GIL_STATE], 0)
    JE(released)
    CALL_SLOT("PyEval_SaveThread")
    JMP(released)
    LABEL(unentered)
    MOV(edi, [rbp + GIL_STATE])
    CALL_SLOT("PyGILState_Release")
    LABEL(released)
