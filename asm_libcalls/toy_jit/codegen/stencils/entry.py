"""From Python into compiled code: the generic entry, and the pieces of adapters.

Each entry, and each call into another instance, gives the instance the stack limit of the thread.
"""

from __future__ import annotations

from asm_libcalls.native.entry import ThreadRecord
from asm_libcalls.vmcontext import InstanceHeader, VMInterrupts, VMMemoryDefinition

__all__ = [
    "CODE_SLOT",
    "PIECES",
    "STACK_LIMIT_SLOT",
    "VMCTX_SLOT",
    "adapters",
    "change_instance",
    "enter",
    "load_memory",
]

STACK_LIMIT_SLOT = "toy_jit_stack_limit"
"""The slot of a C function that works out the stack limit of its thread."""

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
    # Another thread may ask at any moment, so read and write are one: what it wrote before is put
    # back, and what it writes after stays.
    x.XCHG(x.rcx, [x.rdx + VMInterrupts.stack_limit.offset])
    x.CMP(x.rcx, VMInterrupts.STOP - (1 << 64))
    x.JNE(limit_set)
    x.MOV([x.rdx + VMInterrupts.stack_limit.offset], x.rcx)
    x.LABEL(limit_set)


def load_stack_limit() -> None:
    """Let the instance at r15 stop where this thread's stack gets short.

    Clobbers what a C call clobbers.
    """
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT
    from asm_libcalls.x86_64.trampolines.enter import load_thread_record

    known = x.Label("limit_known")
    load_thread_record()
    x.MOV(x.rcx, [x.rax + ThreadRecord.stack_limit.offset])
    x.TEST(x.rcx, x.rcx)
    x.JNZ(known)
    CALL_SLOT(STACK_LIMIT_SLOT)
    x.MOV(x.rcx, x.rax)
    x.LABEL(known)
    set_stack_limit()


def change_instance() -> None:
    """Go on in the instance at rcx, which stops where that at r15 does; clobbers rcx and rdx."""
    import peachpy.x86_64 as x

    x.MOV(x.rdx, [x.r15])
    x.MOV(x.r15, x.rcx)
    x.MOV(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
    set_stack_limit()


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
