"""The lock of a store, in machine code: entering, leaving, and waking a thread that waits.

The *owner* word is the thread pointer of the thread inside, 0 if the store is free. A thread that
finds another one inside looks again for some microseconds. Then it sets WAITED_FOR in the word and
waits; Python code does that (``runtime/store.py``), and runs signal handlers meanwhile. A thread
that leaves takes the bit away and wakes one of those that wait, which sets it again.

Until the woken thread runs, any thread may enter. So threads that use a store by short calls take
turns after many calls, which is much faster than a turn for each call. A thread that has waited
twice and cannot enter sets HANDED_OVER. After the next leaving, only threads that have waited may
enter: the word has only these two bits until one of them enters, or becomes 0 if none waits. So
every thread enters in the end.

A thread may enter the store again; *depth* counts its entries. Only the thread inside changes it.

Source: System V ABI for AMD64, thread-local storage (fs:0 has the thread pointer, which glibc's and
musl's ``pthread_self`` return); futex(2).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peachpy.x86_64 import (
    AND, CMP, CMPXCHG, DEC, INC, JBE, JE, JMP, JNE, JNZ, JZ, LABEL, MOV, OR, PAUSE, POP, PUSH, RET,
    TEST, XOR, Label, al, eax, ecx, edi, edx, qword, r8d, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.activation import Activation
from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import (
    CALL_ROUTINE, CALL_SLOT, LOAD_THREAD_POINTER, LOCK, TAIL_JUMP,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import (
    LEAVE_STORE, STORE_DEPTH, STORE_LOOKS, TAKE_STORE, WAKE_STORE,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

_BITS = StoreLock.BITS
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
    waits on. It has WAITED_FOR set then. `has_waited` is 0 at first, WAITED_FOR for a thread that
    has waited, and both bits for one that has waited again.
    """
    names = ("again", "nested", "free", "mark", "busy", "take")
    again, nested, free, mark, busy, take = map(Label, names)
    LOAD_THREAD_POINTER(rcx)
    MOV(r8d, STORE_LOOKS)
    LABEL(again)
    MOV(rax, [rdi + StoreLock.owner.offset])
    MOV(rdx, rax)
    AND(rdx, ~_BITS)
    JZ(free)
    CMP(rdx, rcx)
    JE(nested)
    TEST(r8d, r8d)
    JZ(mark)
    DEC(r8d)
    PAUSE()
    JMP(again)
    LABEL(mark)
    MOV(rdx, rax)
    OR(rdx, StoreLock.WAITED_FOR)
    OR(rdx, rsi)
    CMP(rdx, rax)
    JE(busy)
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
    TEST(al, StoreLock.HANDED_OVER)
    JNZ(busy)
    LABEL(take)
    MOV(rdx, rsi)
    AND(edx, StoreLock.WAITED_FOR)  # others may wait too
    OR(rdx, rcx)
    LOCK()
    CMPXCHG([rdi + StoreLock.owner.offset], rdx)
    JNE(again)
    MOV([rdi + StoreLock.entered.offset], rsp)
    LABEL(nested)
    INC(qword[rdi + StoreLock.depth.offset])
    XOR(eax, eax)
    RET()


def _jump_unless_inside(label: Any) -> None:
    LOAD_THREAD_POINTER(rcx)
    MOV(rax, [rdi + StoreLock.owner.offset])
    AND(rax, ~_BITS)
    CMP(rax, rcx)
    JNE(label)


def _leave() -> None:
    """``void leave(StoreLock *, uint64_t depth)``: end this thread's entries beyond a depth."""
    done = Label("done")
    _jump_unless_inside(done)
    CMP([rdi + StoreLock.depth.offset], rsi)
    JBE(done)
    MOV([rdi + StoreLock.depth.offset], rsi)
    TEST(rsi, rsi)
    JNZ(done)
    LOCK()
    AND(qword[rdi + StoreLock.owner.offset], _BITS)
    JZ(done)
    TAIL_JUMP(WAKE_STORE)
    LABEL(done)
    RET()


def _depth() -> None:
    """``uint64_t depth(StoreLock *)``: how often this thread has entered; 0 if another has."""
    outside = Label("outside")
    _jump_unless_inside(outside)
    MOV(rax, [rdi + StoreLock.depth.offset])
    RET()
    LABEL(outside)
    XOR(eax, eax)
    RET()


def _wake() -> None:
    """``void wake(StoreLock *)``: wake one thread that waits for the owner word.

    A thread that is about to wait sees another word then, or waits for a millisecond. If the store
    is handed over and no thread waits, it becomes free.
    """
    woken = Label("woken")
    assert StoreLock.owner.offset == 0
    MOV(eax, StoreLock.WAITED_FOR)
    XOR(edx, edx)
    LOCK()
    CMPXCHG([rdi + StoreLock.owner.offset], rdx)
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
    MOV(eax, _BITS)
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
    AND(qword[rdi + StoreLock.owner.offset], _BITS)
    JZ(left)
    CALL_ROUTINE(WAKE_STORE)
    LABEL(left)
