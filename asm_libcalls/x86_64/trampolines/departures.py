"""The departure that a call of a thunk pushes while Python runs, and its references to the record.

While Python runs, the thread has no innermost activation. The activation that was left is in a
*departure*. This record is on the heap, because the stack may be copied away: while a greenlet
waits in a host function, other greenlets use its addresses.
"""

from __future__ import annotations

import ctypes
from typing import Any

from peachpy.x86_64 import (
    ADD, AND, CMP, DEC, IMUL, INC, JA, JBE, JNZ, JZ, LABEL, LEA, MOV, SHL, SHR, SUB, TEST, XOR,
    Label, eax, ecx, edi, edx, esi, qword, r12, r13, r15, rax, rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rbp

from asm_libcalls.activation import Activation, Departure, ThreadRecord
from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT, LOAD_SLOT, LOCK
from asm_libcalls.x86_64.trampolines import READER_COUNT_SIZE, READER_COUNTS, RECORD_READERS
from asm_libcalls.x86_64.trampolines.call_records import DEPARTURE, HostCallRecord
from asm_libcalls.x86_64.trampolines.enter_and_raise import get_owner

MAXIMUM_COPY = 64 << 10
"""Most bytes of native frames that are copied for each call of Python by a greenlet."""

_HASH_FACTOR = 0x61C88647
"""2**32 divided by the golden ratio, negated: Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4)."""


def leave_native(no_departure: Any, allocated: Any) -> None:
    """Emit: push a departure of the activation in r15, with the running greenlet as its owner.

    r12 is the thread's record before, and [rbp + DEPARTURE] the departure after. Clobbers r13.
    :func:`allocate_departure` is at `no_departure` and continues at `allocated`.
    """
    linked = Label("linked")
    MOV(rax, [r12 + ThreadRecord.free_departures.offset])
    TEST(rax, rax)
    JZ(no_departure)
    MOV(rcx, [rax + Departure.next.offset])
    MOV([r12 + ThreadRecord.free_departures.offset], rcx)
    LABEL(allocated)
    MOV([rbp + DEPARTURE], rax)
    MOV([rax + Departure.thread.offset], r12)
    MOV(qword[rax + Departure.owner.offset], 0)
    MOV(qword[rax + Departure.frames.offset], 0)
    MOV([rax + Departure.activation.offset], r15)
    MOV([rax + Departure.exit_frame_pointer.offset], rbp)
    MOV(rcx, [r12 + ThreadRecord.departed.offset])
    INC(rcx)
    MOV([r12 + ThreadRecord.departed.offset], rcx)
    MOV([rax + Departure.serial.offset], rcx)
    XOR(ecx, ecx)
    XOR(edx, edx)
    unentered = Label("unentered_frames")
    TEST(r15, r15)
    JZ(unentered)
    MOV(rcx, [r15 + Activation.frame_pointer.offset])
    MOV(rdx, [r12 + ThreadRecord.stack_limit.offset])
    LABEL(unentered)
    MOV([rax + Departure.canary.offset], rcx)
    MOV([rax + Departure.stack_limit.offset], rdx)
    MOV(rcx, [r12 + ThreadRecord.departures.offset])
    MOV([rax + Departure.next.offset], rcx)
    LEA(rdx, [r12 + ThreadRecord.departures.offset])
    MOV([rax + Departure.link.offset], rdx)
    MOV([rdx], rax)
    TEST(rcx, rcx)
    JZ(linked)
    LEA(rdx, [rax + Departure.next.offset])
    MOV([rcx + Departure.link.offset], rdx)
    LABEL(linked)
    MOV(qword[r12 + ThreadRecord.innermost.offset], 0)
    get_owner()
    MOV(r12, [rbp + DEPARTURE])
    MOV([r12 + Departure.owner.offset], rax)
    # With greenlets, the native frames are copied: stack walks read the copy while another greenlet
    # runs.
    copied, copy = Label("copied"), Label("copy")
    TEST(rax, rax)
    JZ(copied)
    MOV(r13, [r12 + Departure.canary.offset])
    SUB(r13, rbp)
    JBE(copied)
    CMP(r13, MAXIMUM_COPY)
    JA(copied)
    ADD(r13, 16)  # the canary's own words
    CMP(r13, [r12 + Departure.capacity.offset])
    JBE(copy)
    MOV(rdi, [r12 + Departure.buffer.offset])
    MOV(rsi, r13)
    CALL_SLOT("realloc")
    TEST(rax, rax)
    JZ(copied)
    MOV([r12 + Departure.buffer.offset], rax)
    MOV([r12 + Departure.capacity.offset], r13)
    LABEL(copy)
    MOV(rdi, [r12 + Departure.buffer.offset])
    MOV([r12 + Departure.frames.offset], rdi)
    MOV(rsi, rbp)
    MOV(rdx, r13)
    CALL_SLOT("memcpy")
    LABEL(copied)


def allocate_departure(no_departure: Any, allocated: Any) -> None:
    """Emit: allocate a departure, out of line. Falls through if there is no memory."""
    LABEL(no_departure)
    MOV(edi, 1)
    MOV(esi, ctypes.sizeof(Departure))
    CALL_SLOT("calloc")
    TEST(rax, rax)
    JNZ(allocated)


def return_to_native() -> None:
    """Emit: pop the departure, and make its activation the innermost again."""
    last = Label("last")
    MOV(rax, [rbp + DEPARTURE])
    # In this order: a watcher in another thread must find the innermost activation or a departure.
    MOV(rsi, [rax + Departure.thread.offset])
    MOV(rcx, [rax + Departure.stack_limit.offset])
    MOV([rsi + ThreadRecord.stack_limit.offset], rcx)
    MOV([rsi + ThreadRecord.innermost.offset], r15)
    MOV(rcx, [rax + Departure.next.offset])
    MOV(rdx, [rax + Departure.link.offset])
    MOV([rdx], rcx)
    TEST(rcx, rcx)
    JZ(last)
    MOV([rcx + Departure.link.offset], rdx)
    LABEL(last)
    MOV(qword[rax + Departure.serial.offset], 0)
    MOV(rcx, [rsi + ThreadRecord.free_departures.offset])
    MOV([rax + Departure.next.offset], rcx)
    MOV([rsi + ThreadRecord.free_departures.offset], rax)


def load_record() -> None:
    """Emit: load the record at [rbx] into rbx, and take references to its objects.

    r12 is the address of the Departure. Clobbers r13 and the registers that a C call clobbers.

    Another thread may have closed the host function before, and the function may close itself
    later. The references keep the record and the callable alive during the call. Without the GIL,
    another thread may close between the load and the references. So this thread counts itself
    meanwhile, and a close waits for it (``native/record_readers.py``).
    """
    alone, loaded = Label("reads_alone"), Label("record_loaded")
    LOAD_SLOT(r13, RECORD_READERS)
    TEST(r13, r13)
    JZ(alone)
    # A hash, so that few threads share a count: the addresses of their departures may differ in the
    # bits from 26 on only, as those of glibc's heaps do.
    IMUL(rax, r12, _HASH_FACTOR)
    SHR(rax, 26)
    AND(eax, READER_COUNTS - 1)
    SHL(eax, READER_COUNT_SIZE.bit_length() - 1)
    ADD(r13, rax)
    LOCK()
    INC(qword[r13])
    LABEL(alone)
    MOV(rbx, [rbx])
    MOV(rdi, [rbx + HostCallRecord.owner.offset])
    CALL_SLOT("Py_IncRef")
    MOV(rdi, [rbx + HostCallRecord.callable.offset])
    CALL_SLOT("Py_IncRef")
    TEST(r13, r13)
    JZ(loaded)
    LOCK()
    DEC(qword[r13])
    LABEL(loaded)


def release_record() -> None:
    """Emit: drop the call's references to the objects of the record in rbx. Clobbers r13."""
    MOV(r13, [rbx + HostCallRecord.owner.offset])
    MOV(rdi, [rbx + HostCallRecord.callable.offset])
    CALL_SLOT("Py_DecRef")
    MOV(rdi, r13)
    CALL_SLOT("Py_DecRef")
