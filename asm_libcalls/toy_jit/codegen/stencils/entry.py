"""Entries from Python into compiled code: the generic entry, and the stencils of adapters.

Each entry, and each call into another instance, points the instance to the thread's VMInterrupts.
So its code checks the thread's stack limit, and a request to stop the thread stops it.
"""

from __future__ import annotations

from asm_libcalls.activation import Activation, ThreadRecord
from asm_libcalls.calling_convention import (
    CALLEE_SAVED,
    CALLEE_SAVED_SIZE,
    FLOAT_REGISTERS,
    INTEGER_REGISTERS,
)
from asm_libcalls.toy_jit.codegen.registers import lower_half
from asm_libcalls.vmcontext import InstanceHeader, VMInterrupts, VMMemoryDefinition
from asm_libcalls.x86_64.trampolines import STACK_LIMIT, TAKE_STORE, WAKE_STORE
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

INTERRUPTS_SLOT = "toy_jit_interrupts"
"""The slot of a C function that returns the VMInterrupts of the calling thread."""

WAIT_SLOT = "toy_jit_wait_for_store"
"""The slot of a C function ``(vmctx)`` that waits while another thread is inside a store."""

VMCTX_SLOT, CODE_SLOT = "adapter vmctx", "adapter code"
"""The slots of an adapter: the vmctx, and the address of the compiled code."""


_STORE = InstanceHeader.offset_from_vmctx("store")
_STOP = VMInterrupts.STOP - (1 << 64)  # immediates are signed


def load_memory() -> None:
    """Load r13 and r14 for the instance at r15."""
    import peachpy.x86_64 as x

    x.MOV(x.r13, [x.r15 + InstanceHeader.offset_from_vmctx("memories")])
    x.MOV(x.r13, [x.r13])
    x.MOV(x.r14, [x.r13 + VMMemoryDefinition.base.offset])


def _adopt_interrupts() -> None:
    """Emit: point the instance at r15 to the VMInterrupts at rcx; clobbers rdx."""
    import peachpy.x86_64 as x

    adopted = x.Label("adopted")
    x.CMP(x.rcx, [x.r15])
    x.JE(adopted)
    # Atomic, since another thread may write the instance's pointer at any moment.
    x.MOV(x.rdx, x.rcx)
    x.XCHG(x.rdx, [x.r15])
    x.CMP(x.qword[x.rdx + VMInterrupts.stack_limit.offset], _STOP)
    x.JNE(adopted)
    x.MOV(x.qword[x.rcx + VMInterrupts.stack_limit.offset], _STOP)
    x.LABEL(adopted)


def load_interrupts() -> None:
    """Emit: point the instance at r15 to this thread's VMInterrupts, and set this entry's limit.

    Clobbers r13 and the registers that a C call clobbers.
    """
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT
    from asm_libcalls.x86_64.trampolines.thread_records import load_thread_record, set_stack_limit

    known = x.Label("interrupts_known")
    load_thread_record()
    x.MOV(x.r13, [x.rax + ThreadRecord.interrupts.offset])
    x.TEST(x.r13, x.r13)
    x.JNZ(known)
    CALL_SLOT(INTERRUPTS_SLOT)
    x.MOV(x.r13, x.rax)
    load_thread_record()
    x.LABEL(known)
    x.MOV(x.rdi, x.rax)
    CALL_SLOT(STACK_LIMIT)
    x.MOV(x.rcx, x.rax)
    set_stack_limit(x.r13)
    x.MOV(x.rcx, x.r13)
    _adopt_interrupts()


def load_activation() -> None:
    """Emit: load the address of this thread's innermost Activation to rax.

    Clobbers the registers that a C call clobbers.
    """
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.trampolines.thread_records import load_thread_record

    load_thread_record()
    x.MOV(x.rax, [x.rax + ThreadRecord.innermost.offset])


def change_instance() -> None:
    """Emit: switch to the instance at rcx, with r15's VMInterrupts; clobbers rcx and rdx."""
    import peachpy.x86_64 as x

    x.MOV(x.rdx, [x.r15])
    x.MOV(x.r15, x.rcx)
    x.MOV(x.rcx, x.rdx)
    _adopt_interrupts()


def enter() -> None:
    """``enter(vmctx, code, slots, count)``: call a function as compiled code does.

    The slots are the arguments, and on return the results if they are several. A single result is
    in slots[count] (rax) or slots[count + 1] (xmm0).
    """
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.assembler import registers
    from asm_libcalls.x86_64.trampolines.enter_and_raise import pop_frame

    copy, copied, back, done = map(x.Label, ("copy", "copied", "back", "done"))
    x.PUSH(rbp)
    x.MOV(rbp, rsp)
    for register in (*registers(CALLEE_SAVED), x.rdx, x.rcx):
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
    load_interrupts()
    x.MOV(x.rax, x.r14)
    load_memory()
    x.CALL(x.rax)
    x.MOV(x.rbx, [rbp - CALLEE_SAVED_SIZE - 8])  # again, since compiled code changes rbx and r12
    x.MOV(x.r12, [rbp - CALLEE_SAVED_SIZE - 16])
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
    pop_frame()
    x.RET()


PIECES = {
    "change_instance": change_instance,
    "load_memory": load_memory,
    "load_interrupts": load_interrupts,
    "load_activation": load_activation,
}
"""Macros for the stencils' assembler text: they are used like instructions."""


def adapters() -> dict[str, str]:
    """Return the stencils that take arguments from System V registers to slots, and call."""
    push = "; ".join(f"push {register}" for register in CALLEE_SAVED)
    pop = "; ".join(f"pop {register}" for register in reversed(CALLEE_SAVED))
    found = {
        "adapter.begin": f"push rbp; mov rbp, rsp; {push}; sub rsp, frame",
        # Without the GIL. The activation leaves the store, also after a trap. (The store of the
        # instance changes when it is merged into another one, or closed.)
        "adapter.store": f"""
            mov r15, ${VMCTX_SLOT}
            .again:
            mov rbx, [r15 + {_STORE}]; load_thread rcx; xor eax, eax
            lock; cmpxchg [rbx + {StoreLock.owner.offset}], rcx; jz .taken
            mov rdi, rbx; xor esi, esi; call ${TAKE_STORE}
            mov r12d, {StoreLock.WAITED_FOR}
            .wait:
            test eax, eax; jz .entered
            mov rdi, r15; call ${WAIT_SLOT}
            mov rbx, [r15 + {_STORE}]
            mov rdi, rbx; mov esi, r12d; call ${TAKE_STORE}
            mov r12d, {StoreLock.BITS}
            jmp .wait
            .taken:
            mov [rbx + {StoreLock.entered.offset}], rsp
            inc qword[rbx + {StoreLock.depth.offset}]
            .entered:
            cmp rbx, [r15 + {_STORE}]; jz .inside
            dec qword[rbx + {StoreLock.depth.offset}]; jnz .again
            lock; and qword[rbx + {StoreLock.owner.offset}], {StoreLock.BITS}; jz .again
            mov rdi, rbx; call ${WAKE_STORE}
            jmp .again
            .inside:
            load_activation
            mov [rax + {Activation.store.offset}], rbx
        """,
        "adapter.end": f"""
            mov r15, ${VMCTX_SLOT}
            load_interrupts
            load_memory
            call ${CODE_SLOT}
            lea rsp, [rbp - {CALLEE_SAVED_SIZE}]; {pop}; pop rbp; ret
        """,
    }
    for i, register in enumerate(INTEGER_REGISTERS):
        half = lower_half(register)
        store = f"mov [rsp + offset], {register}"
        found[f"adapter.i64.{i}"] = store
        # The upper half of an argument of 32 bits is undefined.
        found[f"adapter.i32.{i}"] = f"mov {half}, {half}; {store}"
    # Arguments that the caller passes on the stack.
    found["adapter.i64.stack"] = "mov rax, [rbp + source]; mov [rsp + offset], rax"
    found["adapter.i32.stack"] = "mov eax, [rbp + source]; mov [rsp + offset], rax"
    for i, register in enumerate(FLOAT_REGISTERS):
        found[f"adapter.float.{i}"] = f"movsd [rsp + offset], {register}"
    return found
