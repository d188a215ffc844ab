"""The lock of all steps, without the GIL: for Python, and for machine code that counts references.

``asm_libcalls/steps.py`` says what a step is. The libcalls on tables and externrefs change the same
counts as Python's steps do, so each is a step too. The *owner* word is the thread pointer of the
thread in a step, or 0. Only that thread writes it then. Python's steps may be nested; *depth* is
their number, and 0 while machine code has the lock.

A step takes less time than waking a thread, so no thread is woken. A thread that finds the lock
taken tries again a number of times. Then machine code leaves for Python, and Python sleeps for a
moment. A sleeping thread would never get the lock while machine code copies long tables in a loop.
So it sets *waiting*: machine code then waits until a step of Python has cleared it, or for as long
as a thread takes to wake up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from peachpy.x86_64 import (
    CMP, CMPXCHG, DEC, INC, JBE, JE, JMP, JNE, JZ, LABEL, MOV, PAUSE, POP, PUSH, RET, TEST, XOR,
    Label, eax, edx, qword, r10, rax, rbx, rcx, rdi, rdx, rsi,
)  # fmt: skip

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT, LOAD_THREAD_POINTER, LOCK
from asm_libcalls.x86_64.trampolines import (
    END_STEP, LEAVE_STEPS, STEP_LOCK, STEPS_DEPTH, TAKE_STEPS,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines.lock_layouts import StepLock

_LOOKS = 200
"""How often a thread looks again, with a ``pause`` each: for a few microseconds."""

_LOOKS_FOR_WAITING = 40_000
"""The same for a sleeping thread, which wakes up within a millisecond."""

_OWNER, _DEPTH = StepLock.owner.offset, StepLock.depth.offset
_WAITING = StepLock.waiting.offset


def routines() -> Iterator[Routine]:
    """Assemble the routines for Python."""
    yield sequence(TAKE_STEPS, _take)
    yield sequence(LEAVE_STEPS, _leave)
    yield sequence(STEPS_DEPTH, _depth)
    yield sequence(END_STEP, _end)


def _try(lock: Any, thread: Any, *, taken: Any, nested: Any, busy: Any) -> None:
    """Emit: take the lock, and jump; `nested` if the thread has it. Clobbers rax and edx."""
    again, look = Label("steps_again"), Label("steps_look")
    MOV(edx, _LOOKS)
    LABEL(again)
    XOR(eax, eax)
    LOCK()
    CMPXCHG([lock + _OWNER], thread)
    JE(taken)
    CMP(rax, thread)
    JE(nested)
    LABEL(look)
    DEC(edx)
    JZ(busy)
    PAUSE()
    CMP(qword[lock + _OWNER], 0)
    JNE(look)
    JMP(again)


def _take() -> None:
    """``uint64_t take(StepLock *)``: 1 if this thread is in a step now; 0 if it must wait."""
    inside, busy = Label("inside"), Label("busy")
    LOAD_THREAD_POINTER(rcx)
    _try(rdi, rcx, taken=inside, nested=inside, busy=busy)
    LABEL(inside)
    INC(qword[rdi + _DEPTH])
    MOV(qword[rdi + _WAITING], 0)
    MOV(eax, 1)
    RET()
    LABEL(busy)
    MOV(qword[rdi + _WAITING], 1)
    XOR(eax, eax)
    RET()


def _leave() -> None:
    """``void leave(StepLock *, uint64_t depth)``: end this thread's steps beyond a depth."""
    done = Label("done")
    LOAD_THREAD_POINTER(rcx)
    CMP([rdi + _OWNER], rcx)
    JNE(done)
    CMP([rdi + _DEPTH], rsi)
    JBE(done)
    MOV([rdi + _DEPTH], rsi)
    TEST(rsi, rsi)
    JNE(done)
    MOV([rdi + _OWNER], rsi)
    LABEL(done)
    RET()


def _end() -> None:
    """``void end(StepLock *)``: end one step of this thread, if it is in one."""
    done = Label("done")
    LOAD_THREAD_POINTER(rcx)
    CMP([rdi + _OWNER], rcx)
    JNE(done)
    CMP(qword[rdi + _DEPTH], 0)
    JE(done)
    DEC(qword[rdi + _DEPTH])
    JNE(done)
    MOV(qword[rdi + _OWNER], 0)
    LABEL(done)
    RET()


def _depth() -> None:
    """``uint64_t depth(StepLock *)``: how many steps this thread is in."""
    outside = Label("outside")
    LOAD_THREAD_POINTER(rcx)
    CMP([rdi + _OWNER], rcx)
    JNE(outside)
    MOV(rax, [rdi + _DEPTH])
    RET()
    LABEL(outside)
    XOR(eax, eax)
    RET()


def take(leave: Callable[[], object]) -> None:
    """Emit: take the lock, or leave by `leave`. Clobbers rax, r10 and the flags."""
    names = ("steps_taken", "steps_busy", "steps_waits", "steps_nobody")
    taken, busy, waits, nobody = map(Label, names)
    PUSH(rbx)
    PUSH(rdx)
    LOAD_SLOT(r10, STEP_LOCK)
    LOAD_THREAD_POINTER(rbx)
    CMP(qword[r10 + _WAITING], 0)
    JE(nobody)
    MOV(edx, _LOOKS_FOR_WAITING)
    LABEL(waits)
    PAUSE()
    CMP(qword[r10 + _WAITING], 0)
    JE(nobody)
    DEC(edx)
    JNE(waits)
    MOV(qword[r10 + _WAITING], 0)  # it waits no more, or sets it again
    LABEL(nobody)
    _try(r10, rbx, taken=taken, nested=busy, busy=busy)  # nested: a finalizer in a step of Python's
    LABEL(busy)
    POP(rdx)
    POP(rbx)
    leave()
    LABEL(taken)
    POP(rdx)
    POP(rbx)


def release() -> None:
    """Emit: release the lock. Clobbers r10 and no flags."""
    LOAD_SLOT(r10, STEP_LOCK)
    MOV(qword[r10 + _OWNER], 0)
