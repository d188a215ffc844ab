"""Entries from Python into compiled code: the generic entry, and the stencils of adapters.

Each entry, and each call into another instance, points the instance to the thread's VMInterrupts.
So its code checks the thread's stack limit, and a request to stop the thread stops it.
"""

from __future__ import annotations

from functools import partial

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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTS_SLOT = "toy_jit_interrupts"
"""The slot of a C function that returns the VMInterrupts of the calling thread."""

WAIT_SLOT = "toy_jit_wait_for_store"
"""The slot of a C function ``(vmctx)`` that waits while another thread is inside a store."""

VMCTX_SLOT, CODE_SLOT = "adapter vmctx", "adapter code"
"""The slots of an adapter: the vmctx, and the address of the compiled code."""

_STORE, _MEMORIES = map(InstanceHeader.offset_from_vmctx, ("store", "memories"))
_BASE = VMMemoryDefinition.base.offset
_LIMIT = VMInterrupts.stack_limit.offset
_STOP = VMInterrupts.STOP - (1 << 64)  # immediates are signed
_PUSH = "; ".join(f"push {register}" for register in CALLEE_SAVED)

_PIECES = {
    # Load r13 and r14 for the instance at r15.
    "load_memory": f"""
        mov r13, [r15 + {_MEMORIES}]; mov r13, [r13]
        mov r14, [r13 + {_BASE}]
    """,
    # Point the instance at r15 to the VMInterrupts at rcx; clobbers rdx. The exchange is atomic,
    # since another thread may write the instance's pointer at any moment.
    "adopt_interrupts": f"""
        cmp rcx, [r15]; je .adopted
        mov rdx, rcx; xchg rdx, [r15]
        cmp qword[rdx + {_LIMIT}], {_STOP}; jne .adopted
        mov qword[rcx + {_LIMIT}], {_STOP}
        .adopted:
    """,
    # Point the instance at r15 to this thread's VMInterrupts, and set this entry's limit. Clobbers
    # r13 and the registers that a C call clobbers.
    "load_interrupts": f"""
        load_thread_record
        mov r13, [rax + {ThreadRecord.interrupts.offset}]
        test r13, r13; jnz .interrupts_known
        call ${INTERRUPTS_SLOT}
        mov r13, rax
        load_thread_record
        .interrupts_known:
        mov rdi, rax; call ${STACK_LIMIT}
        mov rcx, rax
        set_limit_of_r13
        mov rcx, r13
        adopt_interrupts
    """,
    # Load the address of this thread's innermost Activation to rax. Clobbers the registers that a C
    # call clobbers.
    "load_activation": f"""
        load_thread_record
        mov rax, [rax + {ThreadRecord.innermost.offset}]
    """,
    # Switch to the instance at rcx, with r15's VMInterrupts; clobbers rcx and rdx.
    "change_instance": """
        mov rdx, [r15]; mov r15, rcx; mov rcx, rdx
        adopt_interrupts
    """,
    # `enter(vmctx, code, slots, count)`: call a function as compiled code does. The slots are the
    # arguments, and on return the results if they are several. A single result is in slots[count]
    # (rax) or slots[count + 1] (xmm0).
    #
    # Seven registers are pushed: 8 more keep rsp aligned. Compiled code changes rbx and r12, so
    # they are loaded again after the call.
    "enter": f"""
        push rbp; mov rbp, rsp; {_PUSH}; push rdx; push rcx
        mov r15, rdi; mov r14, rsi; mov rbx, rdx; mov r12, rcx
        lea rax, [rcx * 8 + {15 + 8}]; and rax, -16; sub rax, 8; sub rsp, rax
        .copy:
        test rcx, rcx; jz .copied
        dec rcx; mov rax, [rbx + rcx * 8]; mov [rsp + rcx * 8], rax; jmp .copy
        .copied:
        load_interrupts
        mov rax, r14
        load_memory
        call rax
        mov rbx, [rbp + {-CALLEE_SAVED_SIZE - 8}]; mov r12, [rbp + {-CALLEE_SAVED_SIZE - 16}]
        mov [rbx + r12 * 8], rax; movsd [rbx + r12 * 8 + 8], xmm0
        .back:
        test r12, r12; jz .done
        dec r12; mov rax, [rsp + r12 * 8]; mov [rbx + r12 * 8], rax; jmp .back
        .done:
        pop_frame
        ret
    """,
}


def pieces() -> dict[str, Callable[[], object]]:
    """Return macros for the stencils' assembler text, where they are used like instructions."""
    from peachpy.x86_64 import r13

    from asm_libcalls.x86_64.assembler import text
    from asm_libcalls.x86_64.trampolines.enter_and_raise import pop_frame
    from asm_libcalls.x86_64.trampolines.thread_records import load_thread_record, set_stack_limit

    found: dict[str, Callable[[], object]] = {
        "load_thread_record": load_thread_record,
        "set_limit_of_r13": partial(set_stack_limit, r13),
        "pop_frame": pop_frame,
    }
    for name, source in _PIECES.items():
        found[name] = partial(text.body(source, found), int)  # no word in them is a hole
    return found


def adapters() -> dict[str, str]:
    """Return the stencils that take arguments from System V registers to slots, and call."""
    pop = "; ".join(f"pop {register}" for register in reversed(CALLEE_SAVED))
    found = {
        "adapter.begin": f"push rbp; mov rbp, rsp; {_PUSH}; sub rsp, frame",
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
