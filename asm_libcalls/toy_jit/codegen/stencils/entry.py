"""From Python into compiled code: the generic entry, the pieces of adapters, and checks that stop.

Whoever has the GIL and is to release it late counts its checks, or was asked to stop. For that the
limit is set so at each entry and at each change of the instance, and only the release, and Python,
set it back.
"""

from __future__ import annotations

from asm_libcalls.native.entry import RELEASES_LATE, Activation, ThreadRecord
from asm_libcalls.vmcontext import InstanceHeader, VMInterrupts, VMMemoryDefinition

__all__ = [
    "CODE_SLOT",
    "INTERRUPTED_SLOT",
    "LONG_CALLS",
    "PIECES",
    "SHORT",
    "STACK_LIMIT_SLOT",
    "VMCTX_SLOT",
    "adapters",
    "change_instance",
    "check",
    "enter",
    "load_memory",
]

STACK_LIMIT_SLOT = "toy_jit_stack_limit"
"""The slot of a C function that works out the stack limit of its thread."""

INTERRUPTED_SLOT = "toy_jit_interrupted"
"""The slot of the C function that code comes to which was asked to stop."""

SHORT = 16
"""The checks of a call that keeps the GIL: so many take about as long as releasing it does."""

LONG_CALLS = 30
"""After a call that was longer, so many release the GIL at once: who is long is so again."""

VMCTX_SLOT, CODE_SLOT = "adapter vmctx", "adapter code"
"""The slots of an adapter: what it runs in, and what it calls."""


def load_memory() -> None:
    """Load r13 and r14 for the instance at r15."""
    import peachpy.x86_64 as x

    x.MOV(x.r13, [x.r15 + InstanceHeader.offset_from_vmctx("memories")])
    x.MOV(x.r13, [x.r13])
    x.MOV(x.r14, [x.r13 + VMMemoryDefinition.base.offset])


def set_stack_limit() -> None:
    """Let the instance at r15 stop at the stack pointer in rcx; clobbers rcx and rdx."""
    import peachpy.x86_64 as x

    limit_set = x.Label("limit_set")
    x.MOV(x.rdx, [x.r15])
    x.CMP(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
    x.JE(limit_set)
    x.MOV([x.rdx + VMInterrupts.native_stack_limit.offset], x.rcx)
    _exchange_limit()
    x.LABEL(limit_set)


def _exchange_limit() -> None:
    """Make rcx the limit in the VMInterrupts at rdx, if nobody asked to stop; clobbers rcx."""
    import peachpy.x86_64 as x

    exchanged = x.Label("exchanged")
    # Another thread may ask at any moment, so read and write are one: what it wrote before is put
    # back, and what it writes after stays.
    x.XCHG(x.rcx, [x.rdx + VMInterrupts.stack_limit.offset])
    x.CMP(x.rcx, _signed(VMInterrupts.STOP))
    x.JNE(exchanged)
    x.MOV(x.qword[x.rdx + VMInterrupts.stack_limit.offset], _signed(VMInterrupts.STOP))
    x.LABEL(exchanged)


def _signed(limit: int) -> int:
    return limit - (1 << 64)


def load_stack_limit() -> None:
    """Let the instance at r15 stop where this thread's stack gets short, or count its checks.

    Clobbers r13 and what a C call clobbers.
    """
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT
    from asm_libcalls.x86_64.trampolines.enter import load_thread_record, release_late

    known, set_limit, done = x.Label("limit_known"), x.Label("set_limit"), x.Label("limit_done")
    count = x.Label("count")
    interrupts = VMInterrupts
    load_thread_record()
    x.MOV(x.rcx, [x.rax + ThreadRecord.stack_limit.offset])
    x.TEST(x.rcx, x.rcx)
    x.JNZ(known)
    CALL_SLOT(STACK_LIMIT_SLOT)  # in Python: from here on the GIL is released
    x.MOV(x.rcx, x.rax)
    x.LABEL(set_limit)
    set_stack_limit()
    x.JMP(done)
    x.LABEL(known)
    x.MOV(x.r13, [x.rax + ThreadRecord.innermost.offset])
    x.CMP(x.qword[x.r13 + Activation.thread_state.offset], RELEASES_LATE)
    x.JNE(set_limit)
    x.MOV(x.rdx, [x.r15])
    x.MOV([x.rdx + interrupts.native_stack_limit.offset], x.rcx)
    x.DEC(x.qword[x.rdx + interrupts.long_calls.offset])
    x.JS(count)
    release_late(x.r13)
    x.MOV(x.rdx, [x.r15])
    x.MOV(x.rcx, [x.rdx + interrupts.native_stack_limit.offset])
    x.CMP(x.rcx, [x.rdx + interrupts.stack_limit.offset])
    x.JE(done)
    _exchange_limit()
    x.JMP(done)
    x.LABEL(count)
    x.MOV(x.qword[x.rdx + interrupts.long_calls.offset], 0)
    x.MOV(x.qword[x.rdx + interrupts.countdown.offset], SHORT)
    x.CMP(x.qword[x.rdx + interrupts.stack_limit.offset], _signed(interrupts.COUNTING))
    x.JAE(done)  # or asked to stop, which nobody does just now: this thread has the GIL
    x.MOV(x.qword[x.rdx + interrupts.stack_limit.offset], _signed(interrupts.COUNTING))
    x.LABEL(done)


def change_instance() -> None:
    """Go on in the instance at rcx, which stops where that at r15 does, or counts down from there.

    Clobbers rcx, rdx and r13.
    """
    import peachpy.x86_64 as x

    plain, done = x.Label("plain"), x.Label("changed")
    x.MOV(x.rdx, [x.r15])
    x.MOV(x.r15, x.rcx)
    x.MOV(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
    x.CMP(x.qword[x.rdx + VMInterrupts.stack_limit.offset], _signed(VMInterrupts.COUNTING))
    x.JNE(plain)
    x.MOV(x.r13, [x.rdx + VMInterrupts.countdown.offset])
    x.MOV(x.rdx, [x.r15])
    x.MOV([x.rdx + VMInterrupts.native_stack_limit.offset], x.rcx)
    x.MOV([x.rdx + VMInterrupts.countdown.offset], x.r13)
    x.CMP(x.qword[x.rdx + VMInterrupts.stack_limit.offset], _signed(VMInterrupts.COUNTING))
    x.JAE(done)
    x.MOV(x.rcx, _signed(VMInterrupts.COUNTING))
    _exchange_limit()
    x.JMP(done)
    x.LABEL(plain)
    set_stack_limit()
    x.LABEL(done)


def check() -> None:
    """``check(vmctx)``: what code does that is stopped at a check, but for a stack overflow.

    Short calls keep the GIL. The checks of a call are counted, and one that takes long releases
    it; from then on no check comes here but for a request to stop.
    """
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP_SLOT
    from asm_libcalls.x86_64.trampolines.enter import load_thread_record, release_late

    asked, long, released = x.Label("asked"), x.Label("long"), x.Label("released")
    x.MOV(x.rdx, [x.rdi])
    x.CMP(x.qword[x.rdx + VMInterrupts.stack_limit.offset], _signed(VMInterrupts.COUNTING))
    x.JNE(asked)
    x.SUB(x.qword[x.rdx + VMInterrupts.countdown.offset], 1)
    x.JS(long)
    x.RET()
    x.LABEL(long)
    x.MOV(x.qword[x.rdx + VMInterrupts.long_calls.offset], LONG_CALLS)
    x.PUSH(x.rbx)
    x.MOV(x.rbx, x.rdx)
    load_thread_record()
    x.MOV(x.rdx, x.rbx)
    x.MOV(x.rbx, [x.rax + ThreadRecord.innermost.offset])
    x.MOV(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
    x.CMP(x.qword[x.rbx + Activation.thread_state.offset], RELEASES_LATE)
    x.JNE(released)
    x.MOV([x.rdx + VMInterrupts.stack_limit.offset], x.rcx)  # with the GIL: nobody asks just now
    release_late(x.rbx)
    x.POP(x.rbx)
    x.RET()
    x.LABEL(released)
    _exchange_limit()
    x.POP(x.rbx)
    x.RET()
    x.LABEL(asked)
    TAIL_JUMP_SLOT(INTERRUPTED_SLOT)  # where it returns to is still on top of the stack


def enter() -> None:
    """``enter(vmctx, code, slots, count)``: call a function as compiled code does.

    The slots are its arguments, and then its results if they are several; one result comes
    back in slots[count] (rax) and slots[count + 1] (xmm0).
    """
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    copy, copied, back, done = map(x.Label, ("copy", "copied", "back", "done"))
    x.PUSH(rbp)
    x.MOV(rbp, rsp)
    for register in (x.rbx, x.r12, x.r13, x.r14, x.r15, x.rdx, x.rcx):
        x.PUSH(register)
    x.MOV(x.r15, x.rdi)
    x.MOV(x.r14, x.rsi)
    x.MOV(x.rbx, x.rdx)
    x.MOV(x.r12, x.rcx)
    x.LEA(x.rax, [x.rcx * 8 + 15 + 8])  # seven registers were pushed: 8 more keep rsp aligned
    x.AND(x.rax, -16)
    x.SUB(x.rax, 8)
    x.SUB(rsp, x.rax)
    x.LABEL(copy)
    x.TEST(x.rcx, x.rcx)
    x.JZ(copied)
    x.DEC(x.rcx)
    x.MOV(x.rax, [x.rbx + x.rcx * 8])
    x.MOV([rsp + x.rcx * 8], x.rax)
    x.JMP(copy)
    x.LABEL(copied)
    load_stack_limit()
    x.MOV(x.rax, x.r14)
    load_memory()
    x.CALL(x.rax)
    x.MOV(x.rbx, [rbp - 48])  # compiled code changes rbx and r12
    x.MOV(x.r12, [rbp - 56])
    x.MOV([x.rbx + x.r12 * 8], x.rax)
    x.MOVSD([x.rbx + x.r12 * 8 + 8], x.xmm0)
    x.LABEL(back)
    x.TEST(x.r12, x.r12)
    x.JZ(done)
    x.DEC(x.r12)
    x.MOV(x.rax, [rsp + x.r12 * 8])
    x.MOV([x.rbx + x.r12 * 8], x.rax)
    x.JMP(back)
    x.LABEL(done)
    x.LEA(rsp, [rbp - 40])
    for register in (x.r15, x.r14, x.r13, x.r12, x.rbx):
        x.POP(register)
    x.POP(rbp)
    x.RET()


PIECES = {
    "change_instance": change_instance,
    "load_memory": load_memory,
    "load_stack_limit": load_stack_limit,
}
"""What stencils in assembler's language take from here, as an instruction."""

_SAVED = ("rbx", "r12", "r13", "r14", "r15")


def adapters() -> dict[str, str]:
    """Return the stencils that take arguments from System V registers to slots, and call."""
    push = "; ".join(f"push {register}" for register in _SAVED)
    pop = "; ".join(f"pop {register}" for register in reversed(_SAVED))
    found = {
        "adapter.begin": f"push rbp; mov rbp, rsp; {push}; sub rsp, frame",
        "adapter.end": f"""
            mov r15, ${VMCTX_SLOT}
            load_stack_limit
            load_memory
            call ${CODE_SLOT}
            lea rsp, [rbp - {8 * len(_SAVED)}]; {pop}; pop rbp; ret
        """,
    }
    for i, register in enumerate(("rdi", "rsi", "rdx", "rcx", "r8", "r9")):
        half = {"r8": "r8d", "r9": "r9d"}.get(register, f"e{register[1:]}")
        store = f"mov [rsp + offset], {register}"
        found[f"adapter.i64.{i}"] = store
        # The upper half of an argument of 32 bits is anything.
        found[f"adapter.i32.{i}"] = f"mov {half}, {half}; {store}"
    for i in range(8):
        found[f"adapter.float.{i}"] = f"movsd [rsp + offset], xmm{i}"
    return found
