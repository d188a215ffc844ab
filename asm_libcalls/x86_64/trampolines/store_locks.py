"""The lock of a store, in machine code: entering, leaving, and waking who waits.

The *owner* word is the thread pointer of the thread inside, 0 if the store is free. Its lowest bit
says that threads wait. Who leaves then leaves 1 in the word and wakes one of them; a thread that
comes meanwhile does not get the store, but waits too. So threads take turns. If no thread is there
to be woken, the word becomes 0. Waiting is Python's (``runtime/store.py``), which runs signal
handlers meanwhile.

A thread may enter the store again; *depth* counts its entries. Only the thread inside changes it.

Source: System V ABI for AMD64, thread-local storage (fs:0 has the thread pointer, which glibc's and
musl's ``pthread_self`` return); futex(2).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    AND, CMP, CMPXCHG, DEC, INC, JBE, JE, JNE, JNZ, JZ, LABEL, MOV, OR, POP, PUSH, RET, TEST, XOR,
    Label, al, eax, ecx, edi, edx, qword, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.activation import Activation, StoreLock
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_ROUTINE, CALL_SLOT, LOAD_THREAD_POINTER, LOCK, TAIL_JUMP,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import LEAVE_STORE, STORE_DEPTH, TAKE_STORE, WAKE_STORE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["leave_store_of_activation", "routines"]

_SYS_FUTEX = 202  # of x86-64
_FUTEX_WAKE_PRIVATE = 1 | 128


def routines() -> Iterator[Routine]:
    """Assemble the routines."""
    yield sequence(TAKE_STORE, _take)
    yield sequence(LEAVE_STORE, _leave)
    yield sequence(STORE_DEPTH, _depth)
    yield sequence(WAKE_STORE, _wake)


def _take() -> None:
    """``uint64_t take(StoreLock *, uint64_t has_waited)``: try to enter, without waiting.

    Returns 0 if this thread is inside now; else the low half of the owner word, which the caller
    waits on. It has the lowest bit set then. `has_waited` is 1 for a thread that was woken.
    """
    again, nested, free, busy, take = map(Label, ("again", "nested", "free", "busy", "take"))
    LOAD_THREAD_POINTER(rcx)
    LABEL(again)
    MOV(rax, [rdi + StoreLock.owner.offset])
    MOV(rdx, rax)
    AND(rdx, -2)
    JZ(free)
    CMP(rdx, rcx)
    JE(nested)
    TEST(al, 1)
    JNZ(busy)
    OR(rdx, 1)
    LOCK()
    CMPXCHG([rdi + StoreLock.owner.offset], rdx)
    JNE(again)
    MOV(rax, rdx)
    LABEL(busy)
    MOV(eax, eax)
    RET()
    LABEL(free)
    TEST(rsi, rsi)
    JNZ(take)
    TEST(rax, rax)
    JNZ(busy)  # free for those who wait
    LABEL(take)
    MOV(rdx, rcx)
    OR(rdx, rsi)
    LOCK()
    CMPXCHG([rdi + StoreLock.owner.offset], rdx)
    JNE(again)
    MOV([rdi + StoreLock.entered.offset], rsp)
    LABEL(nested)
    INC(qword[rdi + StoreLock.depth.offset])
    XOR(eax, eax)
    RET()


def _leave() -> None:
    """``void leave(StoreLock *, uint64_t depth)``: end this thread's entries beyond a depth."""
    done = Label("done")
    LOAD_THREAD_POINTER(rcx)
    MOV(rax, [rdi + StoreLock.owner.offset])
    AND(rax, -2)
    CMP(rax, rcx)
    JNE(done)
    CMP([rdi + StoreLock.depth.offset], rsi)
    JBE(done)
    MOV([rdi + StoreLock.depth.offset], rsi)
    TEST(rsi, rsi)
    JNZ(done)
    LOCK()
    AND(qword[rdi + StoreLock.owner.offset], 1)
    JZ(done)
    TAIL_JUMP(WAKE_STORE)
    LABEL(done)
    RET()


def _depth() -> None:
    """``uint64_t depth(StoreLock *)``: how often this thread has entered; 0 if another has."""
    outside = Label("outside")
    LOAD_THREAD_POINTER(rcx)
    MOV(rax, [rdi + StoreLock.owner.offset])
    AND(rax, -2)
    CMP(rax, rcx)
    JNE(outside)
    MOV(rax, [rdi + StoreLock.depth.offset])
    RET()
    LABEL(outside)
    XOR(eax, eax)
    RET()


def _wake() -> None:
    """``void wake(StoreLock *)``: wake one thread that waits for the owner word.

    It is 1. A thread that is about to wait sees another word then, or waits for a millisecond.
    """
    woken = Label("woken")
    assert StoreLock.owner.offset == 0
    PUSH(rdi)
    MOV(rsi, rdi)
    MOV(edi, _SYS_FUTEX)
    MOV(edx, _FUTEX_WAKE_PRIVATE)
    MOV(ecx, 1)
    XOR(eax, eax)
    CALL_SLOT("syscall")
    POP(rdi)
    TEST(rax, rax)
    JNZ(woken)
    MOV(eax, 1)
    XOR(edx, edx)
    LOCK()
    CMPXCHG([rdi + StoreLock.owner.offset], rdx)
    LABEL(woken)
    RET()


def leave_store_of_activation() -> None:
    """Emit: leave the store that the Activation at [rsp] has entered, if any."""
    left = Label("store_left")
    MOV(rdi, [rsp + Activation.store.offset])
    TEST(rdi, rdi)
    JZ(left)
    DEC(qword[rdi + StoreLock.depth.offset])
    JNZ(left)
    LOCK()
    AND(qword[rdi + StoreLock.owner.offset], 1)
    JZ(left)
    CALL_ROUTINE(WAKE_STORE)
    LABEL(left)
