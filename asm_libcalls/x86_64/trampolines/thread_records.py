"""Thread records, the bounds of a thread's stack, and the stack limit of native code.

A thread's record is made when the thread first enters native code, or is called by it. It has the
bounds of the thread's stack, which determine the stack that native code may use:

*The budget.* Native code may use an eighth of the stack that is left at its entry, at most
``MAXIMUM_BUDGET``. Python code that it calls has the other seven eighths. If a host function enters
native code again, both share the outer budget; the stack of the Python code in between does not
count. So the stack left for a host function does not depend on the native code.

*The reserve.* A quarter of the stack at its low end, at least ``MINIMUM_RESERVE`` and at most
``RESERVE``, is for Python alone. No limit is below it, and thunks refuse to call Python from there.

A stack that is not the thread's own (a C library may switch stacks) has unknown bounds. Native code
gets ``UNKNOWN_BUDGET`` on it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

from peachpy.x86_64 import (
    ADD, AND, CMOVA, CMOVB, CMP, DEC, JA, JB, JE, JMP, JNE, JNZ, JZ, LABEL, LEA, MOV, POP, PUSH,
    RET, SHR, SUB, TEST, XCHG, XOR, Label, eax, edi, edx, esi, qword, r8, r8d, r9, r9d, r12, rax,
    rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.activation import Activation, Departure, ThreadRecord
from asm_libcalls.emitter.image import Routine
from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.vmcontext import VMInterrupts
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_ROUTINE, CALL_SLOT, LOAD_SLOT, TAIL_JUMP,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import (
    ACTIVATIONS_KEY, CHECK_STACK, FIND_DEPARTURE, FREE_THREAD_RECORD, MAKE_THREAD_RECORD,
    RAISE_TRAP, STACK_LIMIT,
)  # fmt: skip

MAXIMUM_BUDGET = 4 << 20
UNKNOWN_BUDGET = 16 << 10
RESERVE = 512 << 10
MINIMUM_RESERVE = 40 << 10
"""Bytes. With less than 32 KiB and a guard page left, CPython 3.14 raises RecursionError; with less
than 16 KiB it aborts."""

ENTRY_COST = 512
"""Bytes of the budget that each nested entry costs beside the stack that it uses."""

_LONGEST_SEARCH = 1000
"""Most departures of other greenlets that an entry searches for one that it is nested in."""

_PAGE = 4096  # limits are rounded to it, so that calls from similar depths have the same limit


def routines() -> Iterator[Routine]:
    """Assemble the routines for thread records and stack limits."""
    yield sequence(MAKE_THREAD_RECORD, _make)
    yield sequence(FREE_THREAD_RECORD, _free)
    yield sequence(STACK_LIMIT, _stack_limit)
    yield sequence(CHECK_STACK, _check_stack)
    yield sequence(FIND_DEPARTURE, _find_departure)


def load_thread_record() -> None:
    """Emit: rax = this thread's ThreadRecord, or 0. Clobbers what a C call clobbers."""
    LOAD_SLOT(rdi, ACTIVATIONS_KEY)
    CALL_SLOT("pthread_getspecific")


def load_or_make_thread_record(failed: Any) -> None:
    """Emit: rax = this thread's ThreadRecord, made if it has none; jump if that fails.

    Clobbers what a C call clobbers.
    """
    has_record = Label("has_record")
    load_thread_record()
    TEST(rax, rax)
    JNZ(has_record)
    CALL_ROUTINE(MAKE_THREAD_RECORD)
    TEST(rax, rax)
    JZ(failed)
    LABEL(has_record)


def set_stack_limit(interrupts: Any) -> None:
    """Emit: set the limit in the VMInterrupts at a register's address to rcx; clobbers rcx."""
    limit_set = Label("limit_set")
    CMP(rcx, [interrupts + VMInterrupts.native_stack_limit.offset])
    JE(limit_set)
    MOV([interrupts + VMInterrupts.native_stack_limit.offset], rcx)
    # Another thread may request an interrupt at any moment. So read and write are one atomic
    # exchange: a request from before is written back, and a later one is kept.
    XCHG(rcx, [interrupts + VMInterrupts.stack_limit.offset])
    CMP(rcx, VMInterrupts.STOP - (1 << 64))
    JNE(limit_set)
    MOV([interrupts + VMInterrupts.stack_limit.offset], rcx)
    LABEL(limit_set)


def _make() -> None:
    failed, made, done = Label("failed"), Label("made"), Label("done")
    low, size, attributes = 0, 8, 16  # from rsp; glibc's pthread_attr_t has 56 bytes
    PUSH(rbx)
    SUB(rsp, 80)
    MOV(edi, 1)
    MOV(esi, ctypes.sizeof(ThreadRecord))
    CALL_SLOT("calloc")
    MOV(rbx, rax)
    TEST(rax, rax)
    JZ(made)
    LOAD_SLOT(rdi, ACTIVATIONS_KEY)
    MOV(rsi, rbx)
    CALL_SLOT("pthread_setspecific")
    TEST(eax, eax)
    JNZ(failed)
    CALL_SLOT("pthread_self")
    MOV(rdi, rax)
    LEA(rsi, [rsp + attributes])
    CALL_SLOT("pthread_getattr_np")
    TEST(eax, eax)
    JNZ(made)  # no bounds: every stack counts as foreign
    LEA(rdi, [rsp + attributes])
    LEA(rsi, [rsp + low])
    LEA(rdx, [rsp + size])
    CALL_SLOT("pthread_attr_getstack")
    LEA(rdi, [rsp + attributes])
    CALL_SLOT("pthread_attr_destroy")
    MOV(rax, [rsp + low])
    MOV([rbx + ThreadRecord.stack_low.offset], rax)
    MOV(rcx, [rsp + size])
    MOV([rbx + ThreadRecord.stack_size.offset], rcx)
    SHR(rcx, 2)
    MOV(edx, RESERVE)
    CMP(rcx, rdx)
    CMOVA(rcx, rdx)
    MOV(edx, MINIMUM_RESERVE)
    CMP(rcx, rdx)
    CMOVB(rcx, rdx)
    MOV([rbx + ThreadRecord.stack_reserve.offset], rcx)
    LABEL(made)
    MOV(rax, rbx)
    LABEL(done)
    ADD(rsp, 80)
    POP(rbx)
    RET()
    LABEL(failed)
    MOV(rdi, rbx)
    CALL_SLOT("free")
    XOR(eax, eax)
    JMP(done)


def _free() -> None:
    kept = Label("kept")
    PUSH(rbx)
    PUSH(r12)
    SUB(rsp, 8)
    MOV(rbx, rdi)
    # Remaining departures belong to greenlets that were never resumed.
    for name in ("departures", "free_departures"):
        again, end = Label(f"again_{name}"), Label(f"end_{name}")
        MOV(r12, [rbx + getattr(ThreadRecord, name).offset])
        LABEL(again)
        TEST(r12, r12)
        JZ(end)
        MOV(rdi, [r12 + Departure.buffer.offset])
        CALL_SLOT("free")
        MOV(rdi, r12)
        MOV(r12, [r12 + Departure.next.offset])
        CALL_SLOT("free")
        JMP(again)
        LABEL(end)
        MOV([rbx + getattr(ThreadRecord, name).offset], r12)  # 0, for readers of a kept record
    MOV([rbx + ThreadRecord.innermost.offset], r12)
    CMP(qword[rbx + ThreadRecord.is_kept.offset], 0)
    JNE(kept)
    MOV(rdi, rbx)
    CALL_SLOT("free")
    LABEL(kept)
    ADD(rsp, 8)
    POP(r12)
    POP(rbx)
    RET()


def _stack_limit() -> None:
    record = ThreadRecord
    nested, next_departure, skip = Label("nested"), Label("next_departure"), Label("skip")
    found, fresh, bound, foreign = Label("found"), Label("fresh"), Label("bound"), Label("foreign")
    known = Label("known")
    MOV(rax, rdi)
    MOV(rcx, rsp)
    AND(rcx, -_PAGE)
    MOV(rdx, [rax + record.departures.offset])
    TEST(rdx, rdx)
    JNZ(nested)
    LABEL(fresh)
    MOV(rdx, rcx)
    SUB(rdx, [rax + record.stack_low.offset])
    CMP(rdx, [rax + record.stack_size.offset])
    JA(foreign)
    SHR(rdx, 3)
    MOV(r8d, MAXIMUM_BUDGET)
    CMP(rdx, r8)
    CMOVA(rdx, r8)
    SUB(rcx, rdx)
    LABEL(bound)
    MOV(rdx, [rax + record.stack_low.offset])
    ADD(rdx, [rax + record.stack_reserve.offset])
    CMP(rcx, rdx)
    CMOVB(rcx, rdx)
    LABEL(known)
    MOV([rax + record.stack_limit.offset], rcx)
    MOV(rax, rcx)
    RET()

    LABEL(foreign)
    SUB(rcx, UNKNOWN_BUDGET)
    JMP(known)

    # r8: the running greenlet, or 0 if all departures are on this stack.
    LABEL(nested)
    MOV(r8, [rax + record.innermost.offset])
    MOV(r8, [r8 + Activation.owner.offset])
    MOV(r9d, _LONGEST_SEARCH)
    LABEL(next_departure)
    CMP(qword[rdx + Departure.stack_limit.offset], 0)
    JE(skip)
    TEST(r8, r8)
    JZ(found)
    CMP(r8, [rdx + Departure.owner.offset])
    JE(found)
    LABEL(skip)
    DEC(r9d)
    JZ(fresh)
    MOV(rdx, [rdx + Departure.next.offset])
    TEST(rdx, rdx)
    JNZ(next_departure)
    JMP(fresh)
    LABEL(found)
    MOV(r9, [rdx + Departure.exit_frame_pointer.offset])
    SUB(r9, [rdx + Departure.stack_limit.offset])
    SUB(r9, ENTRY_COST)
    SUB(rcx, r9)  # above the stack pointer, if nothing is left
    MOV(rdx, rsp)
    SUB(rdx, [rax + record.stack_low.offset])
    CMP(rdx, [rax + record.stack_size.offset])
    JA(known)
    JMP(bound)


def _check_stack() -> None:
    overflow = Label("overflow")
    PUSH(rbx)
    PUSH(r12)
    SUB(rsp, 8)
    MOV(rbx, rdi)
    MOV(r12, rsi)
    load_thread_record()
    MOV(rcx, [rax + ThreadRecord.stack_limit.offset])
    TEST(rcx, rcx)
    JZ(overflow)
    CMP(r12, rcx)
    JB(overflow)
    MOV(rbx, [rbx])
    set_stack_limit(rbx)
    ADD(rsp, 8)
    POP(r12)
    POP(rbx)
    RET()
    LABEL(overflow)
    ADD(rsp, 8)
    POP(r12)
    POP(rbx)
    MOV(edi, int(TrapCode.STACK_OVERFLOW))
    TAIL_JUMP(RAISE_TRAP)


def _find_departure() -> None:
    again, found = Label("again"), Label("found")
    MOV(rax, [rdi + ThreadRecord.departures.offset])
    LABEL(again)
    TEST(rax, rax)
    JZ(found)
    CMP(rsi, [rax + Departure.owner.offset])
    JE(found)
    MOV(rax, [rax + Departure.next.offset])
    JMP(again)
    LABEL(found)
    RET()
