"""The references that a call of a thunk holds: to the objects that its host call record borrows."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD, AND, DEC, IMUL, INC, JZ, LABEL, MOV, SHL, SHR, TEST, Label, eax, qword, r12, r13, rax, rbx,
    rdi,
)  # fmt: skip

from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT, LOAD_SLOT, LOCK
from asm_libcalls.x86_64.trampolines import READER_COUNT_SIZE, READER_COUNTS, RECORD_READERS
from asm_libcalls.x86_64.trampolines.call_records import HostCallRecord

_HASH_FACTOR = 0x61C88647
"""2**32 divided by the golden ratio, negated: Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4)."""


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
    # Few threads share a count. Their departures may differ from bit 26 on only, as their heaps.
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
