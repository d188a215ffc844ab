"""The entry trampoline into native code, and the exit from native code by a trap.

``asm_libcalls_enter`` pushes an activation on this thread's list, releases the GIL, loads the
registers of a ``NativeCall`` and calls. ``asm_libcalls_raise_trap`` takes the innermost activation,
records where the trap comes from, restores the activation's stack and jumps to its landing pad. All
native frames above are dropped without running again. So code that raises must own nothing (the
second rule of a libcall), and no Python or libffi frame may be between the raise and the landing.
While native code calls Python, there is no innermost activation: see ``call_python.py``.

Releasing and taking the GIL costs more than a short call, so ``asm_libcalls_enter_holding_gil`` is
a variant of ``asm_libcalls_enter`` that keeps it.

The stack of ``asm_libcalls_enter``, from the top (all offsets from rbp)::

     +8  return address
      0  the caller's rbp           <- rbp: the canary of a stack walk
     -8  rbx, r12, r13, r14, r15    callee-saved registers of the caller
         Activation                 <- r12, Activation.stack_pointer
         arguments on the stack, a multiple of 16 bytes
         return address of the callee

Source: System V ABI for AMD64, 3.2 (calling sequence; rbx, rbp, r12 to r15, the control bits of
MXCSR and the x87 control word belong to the caller; DF is clear at every call).
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial

from peachpy.x86_64 import (
    ADD, AND, CALL, CLD, CMP, DEC, DIV, INC, JAE, JBE, JE, JMP, JNZ, JZ, LABEL, LDMXCSR, LEA,
    MOV, MOVUPS, OR, POP, PUSH, RET, STMXCSR, SUB, TEST, UD2, XOR, Label, eax, ecx, edi, esi,
    qword, r8, r12, r13, r14, rax, rbx, rcx, rdi, rdx, rsi, xmm0,
)  # fmt: skip
from peachpy.x86_64.registers import rbp, rsp

from asm_libcalls.activation import (
    EXCEPTION, MAXIMUM_TRACE, NO_MEMORY, TRAPPED, Activation, NativeCall, ThreadRecord,
)  # fmt: skip
from asm_libcalls.calling_convention import (
    CALLEE_SAVED, CALLEE_SAVED_SIZE, FLOAT_REGISTERS, INTEGER_REGISTERS, INTEGER_RESULTS,
)  # fmt: skip
from asm_libcalls.emitter.image import Routine
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.x86_64.assembler import registers, sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_SLOT, FLDCW, FNSTCW, LOAD_ADDRESS, LOAD_SLOT, TAIL_JUMP,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import (
    ENTER, ENTER_HOLDING_GIL, GREENLET_GETCURRENT, RAISE_DIVISION_BY_ZERO, RAISE_TRAP, step_lock,
    store_locks, thread_records,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines.thread_records import (
    load_or_make_thread_record,
    load_thread_record,
)

RAISE_EXCEPTION = "asm_libcalls_raise_exception"
"""``void raise()``: end the innermost activation with the exception in the error indicator."""

_RAISE_STATUS = "asm_libcalls_raise_status"
_FRAME = -(-(CALLEE_SAVED_SIZE + ctypes.sizeof(Activation)) // 16) * 16  # aligns rsp at the call


def routines() -> Iterator[Routine]:
    """Assemble the entries, the raises, and the routines for thread records."""
    yield from thread_records.routines()
    yield from store_locks.routines()
    yield from step_lock.routines()
    for name in (ENTER, ENTER_HOLDING_GIL):
        yield sequence(name, partial(_enter, name))
    yield sequence(RAISE_TRAP, _raise_trap)
    yield sequence(RAISE_DIVISION_BY_ZERO, _raise_division_by_zero)
    yield sequence(RAISE_EXCEPTION, _raise_exception)
    yield sequence(_RAISE_STATUS, _raise_status)


def get_owner() -> None:
    """Emit: rax = the running greenlet, or 0; needs the GIL. Clobbers what a C call clobbers.

    The reference is borrowed: the caller runs in this greenlet. The C function may run Python code,
    also in other greenlets, because it ends those that have no references.
    """
    done, failed = Label("owner_known"), Label("no_owner")
    LOAD_SLOT(rax, GREENLET_GETCURRENT)
    TEST(rax, rax)
    JZ(done)
    CALL(rax)
    TEST(rax, rax)
    JZ(failed)
    PUSH(rax)
    SUB(rsp, 8)
    MOV(rdi, rax)
    CALL_SLOT("Py_DecRef")
    ADD(rsp, 8)
    POP(rax)
    JMP(done)
    LABEL(failed)
    CALL_SLOT("PyErr_Clear")
    XOR(eax, eax)
    LABEL(done)


def push_activation(landing: str) -> None:
    """Emit: make the Activation at [rsp] this thread's innermost; ZF is clear if that failed.

    `landing` is the symbol that a raise continues at. Clobbers what a C call clobbers.
    """
    failed, pushed, owned = Label("no_record"), Label("pushed"), Label("owned")
    MOV(qword[rsp + Activation.owner.offset], 0)
    MOV(qword[rsp + Activation.store.offset], 0)
    load_or_make_thread_record(failed)
    MOV([rsp + Activation.thread.offset], rax)
    CMP(qword[rax + ThreadRecord.departures.offset], 0)
    JE(owned)
    get_owner()
    MOV([rsp + Activation.owner.offset], rax)
    MOV(rax, [rsp + Activation.thread.offset])
    LABEL(owned)
    MOV(rcx, [rax + ThreadRecord.innermost.offset])
    MOV([rsp + Activation.previous.offset], rcx)
    LOAD_ADDRESS(rcx, landing)
    MOV([rsp + Activation.landing.offset], rcx)
    MOV([rsp + Activation.stack_pointer.offset], rsp)
    MOV([rsp + Activation.frame_pointer.offset], rbp)
    MOV(qword[rsp + Activation.status.offset], 0)
    STMXCSR([rsp + Activation.mxcsr.offset])
    FNSTCW([rsp + Activation.x87_control.offset])
    MOV(qword[rax + ThreadRecord.stack_limit.offset], 0)
    MOV([rax + ThreadRecord.innermost.offset], rsp)
    XOR(eax, eax)
    JZ(pushed)
    LABEL(failed)
    OR(eax, 1)
    LABEL(pushed)


def pop_frame() -> None:
    """Emit: restore the callee-saved registers that were pushed below rbp, and rbp."""
    LEA(rsp, [rbp - CALLEE_SAVED_SIZE])
    for register in reversed(registers(CALLEE_SAVED)):
        POP(register)
    POP(rbp)


def pop_activation() -> None:
    """Emit: pop the Activation at [rsp] off this thread's list. Clobbers rax and rcx."""
    MOV(rax, [rsp + Activation.thread.offset])
    MOV(rcx, [rsp + Activation.previous.offset])
    MOV([rax + ThreadRecord.innermost.offset], rcx)


def _enter(name: str) -> None:
    stack_ready, copy, leave = Label("stack_ready"), Label("copy"), Label("leave")
    landing, no_memory = Label("landing"), Label("no_memory")
    holds_gil = name == ENTER_HOLDING_GIL

    PUSH(rbp)
    MOV(rbp, rsp)
    for register in registers(CALLEE_SAVED):
        PUSH(register)
    SUB(rsp, _FRAME - CALLEE_SAVED_SIZE)
    MOV(rbx, rdi)  # the NativeCall, from here to the end
    push_activation(f"{name}.landing")
    JNZ(no_memory)
    MOV(r12, rsp)
    CALL_SLOT("PyThreadState_GetUnchecked" if holds_gil else "PyEval_SaveThread")
    MOV([rsp + Activation.thread_state.offset], rax)

    # Arguments on the stack are pushed from the last to the first, which is then at [rsp].
    MOV(rcx, [rbx + NativeCall.stack_count.offset])
    MOV(rsi, [rbx + NativeCall.stack_arguments.offset])
    LEA(rax, [rcx * 8 + 15])
    AND(rax, -16)
    SUB(rsp, rax)
    LABEL(copy)
    TEST(rcx, rcx)
    JZ(stack_ready)
    DEC(rcx)
    MOV(rax, [rsi + rcx * 8])
    MOV([rsp + rcx * 8], rax)
    JMP(copy)
    LABEL(stack_ready)

    for i, xmm in enumerate(registers(FLOAT_REGISTERS)):
        MOVUPS(xmm, [rbx + NativeCall.floats.offset + 16 * i])
    for i, register in enumerate(registers(INTEGER_REGISTERS)):
        MOV(register, [rbx + NativeCall.integers.offset + 8 * i])
    MOV(eax, 8)  # the number of vector registers in use, for variadic callees
    CALL([rbx + NativeCall.address.offset])
    for i, register in enumerate(registers(INTEGER_RESULTS)):
        MOV([rbx + NativeCall.integer_results.offset + 8 * i], register)
    MOVUPS([rbx + NativeCall.float_result.offset], xmm0)
    MOV(rsp, r12)

    LABEL(landing)  # a raise continues here, with rsp at the activation and rbp at the frame
    store_locks.leave_store_of_activation()
    if not holds_gil:
        MOV(rdi, [rsp + Activation.thread_state.offset])
        CALL_SLOT("PyEval_RestoreThread")
    pop_activation()
    MOV(rax, [rsp + Activation.status.offset])
    LABEL(leave)
    pop_frame()
    RET()

    LABEL(no_memory)
    MOV(rax, NO_MEMORY)
    JMP(leave)


def _raise_trap() -> None:
    MOV(edi, edi)  # the bits above the 32-bit code are undefined in C
    MOV(rax, TRAPPED)
    OR(rdi, rax)
    XOR(esi, esi)
    TAIL_JUMP(_RAISE_STATUS)


def _raise_division_by_zero() -> None:
    MOV(rdi, TRAPPED | TrapCode.INTEGER_DIVISION_BY_ZERO)
    MOV(esi, 1)
    TAIL_JUMP(_RAISE_STATUS)


def _raise_exception() -> None:
    MOV(rdi, EXCEPTION)
    XOR(esi, esi)
    TAIL_JUMP(_RAISE_STATUS)


def _raise_status() -> None:
    uncaught, traced, next_frame = Label("uncaught"), Label("traced"), Label("next_frame")
    illegal = Label("illegal")
    MOV(rbx, rdi)  # callee-saved registers are free: this never returns to its caller
    MOV(r14, rsi)  # not 0: divide by zero if nothing catches it
    MOV(r12, rsp)
    AND(rsp, -16)  # reached by call or by jump, from frames of any alignment
    load_thread_record()
    TEST(rax, rax)
    JZ(uncaught)
    # None while Python runs: native code that raises then was not entered through an activation,
    # and the interpreter's frames below it cannot be unwound.
    MOV(r13, [rax + ThreadRecord.innermost.offset])
    TEST(r13, r13)
    JZ(uncaught)
    MOV([r13 + Activation.status.offset], rbx)

    # The trace: the return address on top of the stack, then the chain of frame pointers, as long
    # as they point between here and the entry's frame, where the stack is in use.
    MOV(r8, [r13 + Activation.frame_pointer.offset])
    MOV(rdx, [r12])
    XOR(ecx, ecx)
    LABEL(next_frame)
    MOV([rax + rcx * 8 + ThreadRecord.trace.offset], rdx)
    INC(rcx)
    MOV([rax + ThreadRecord.trace_count.offset], rcx)
    CMP(rbp, r12)
    JBE(traced)
    CMP(rbp, r8)
    JAE(traced)
    CMP(rcx, MAXIMUM_TRACE)
    JAE(traced)
    MOV(rdx, [rbp + 8])
    MOV(r12, rbp)
    MOV(rbp, [rbp])
    JMP(next_frame)
    LABEL(traced)

    CLD()
    LDMXCSR([r13 + Activation.mxcsr.offset])
    FLDCW([r13 + Activation.x87_control.offset])
    MOV(rsp, [r13 + Activation.stack_pointer.offset])
    MOV(rbp, [r13 + Activation.frame_pointer.offset])
    JMP([r13 + Activation.landing.offset])
    LABEL(uncaught)
    MOV(rax, rbx)  # the uncaught status, for a core dump
    TEST(r14, r14)
    JZ(illegal)
    XOR(ecx, ecx)
    DIV(ecx)
    LABEL(illegal)
    UD2()
