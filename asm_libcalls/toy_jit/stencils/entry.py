"""From Python into compiled code: the generic entry, and the pieces of adapters."""

from __future__ import annotations

from asm_libcalls.entry import ThreadRecord
from asm_libcalls.toy_jit.stencils.bodies import store
from asm_libcalls.vmcontext import InstanceHeader, VMInterrupts, VMMemoryDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = [
    "CODE_SLOT",
    "COUNTER_SLOT",
    "LIBCALL_SLOT",
    "STACK_LIMIT_SLOT",
    "VMCTX_SLOT",
    "adapters",
    "enter",
    "load_memory",
    "set_stack_limit",
]

STACK_LIMIT_SLOT = "toy_jit_stack_limit"
"""The slot of a C function that works out the stack limit of its thread."""

VMCTX_SLOT, CODE_SLOT = "adapter vmctx", "adapter code"
"""The slots of an adapter: what it runs in, and what it calls."""

COUNTER_SLOT, LIBCALL_SLOT = "count in", "count calls of"
"""The slots of a stub that counts: the address of the counter, and of the libcall."""


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
    # Another thread may ask to stop at any moment, so read and write are one: what it wrote before
    # is put back, and what it writes after stays.
    x.MOV([x.rdx + VMInterrupts.native_stack_limit.offset], x.rcx)
    x.XCHG(x.rcx, [x.rdx + VMInterrupts.stack_limit.offset])
    x.CMP(x.rcx, -1)
    x.JNE(limit_set)
    x.MOV(x.qword[x.rdx + VMInterrupts.stack_limit.offset], -1)
    x.LABEL(limit_set)


def load_stack_limit() -> None:
    """Let the instance at r15 stop where this thread's stack gets short."""
    import peachpy.x86_64 as x

    from asm_libcalls.x86_64.entry import load_thread_record
    from asm_libcalls.x86_64.instructions import CALL_SLOT

    known = x.Label("limit_known")
    load_thread_record()
    x.MOV(x.rcx, [x.rax + ThreadRecord.stack_limit.offset])
    x.TEST(x.rcx, x.rcx)
    x.JNZ(known)
    CALL_SLOT(STACK_LIMIT_SLOT)
    x.MOV(x.rcx, x.rax)
    x.LABEL(known)
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


def _adapt_i32(half: Any, register: Any) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x
        from peachpy.x86_64.registers import rsp

        x.MOV(half, half)  # the upper half of an argument of 32 bits is anything
        x.MOV([rsp + hole("offset")], register)

    return body


def adapters() -> Iterator[tuple[str, Body]]:
    """Take the arguments of one signature from System V registers to slots, and call."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.instructions import CALL_SLOT, LOAD_SLOT, TAIL_JUMP_SLOT

    registers = ((x.rdi, x.edi), (x.rsi, x.esi), (x.rdx, x.edx), (x.rcx, x.ecx), (x.r8, x.r8d),
                 (x.r9, x.r9d))  # fmt: skip

    def adapter_begin(hole: Hole) -> None:
        x.PUSH(rbp)
        x.MOV(rbp, rsp)
        for register in (x.rbx, x.r12, x.r13, x.r14, x.r15):
            x.PUSH(register)
        x.SUB(rsp, hole("frame"))

    def adapter_end(hole: Hole) -> None:
        LOAD_SLOT(x.r15, VMCTX_SLOT)
        load_stack_limit()
        load_memory()
        CALL_SLOT(CODE_SLOT)
        x.LEA(rsp, [rbp - 40])
        for register in (x.r15, x.r14, x.r13, x.r12, x.rbx):
            x.POP(register)
        x.POP(rbp)
        x.RET()

    def count(hole: Hole) -> None:
        LOAD_SLOT(x.r11, COUNTER_SLOT)  # the one register that no call keeps or passes anything in
        x.INC(x.qword[x.r11])
        TAIL_JUMP_SLOT(LIBCALL_SLOT)

    yield "count", count
    yield "adapter.begin", adapter_begin
    yield "adapter.end", adapter_end
    for i, (register, half) in enumerate(registers):
        yield f"adapter.i64.{i}", store(x.MOV, register, rsp, "offset")
        yield f"adapter.i32.{i}", _adapt_i32(half, register)
    floats = (x.xmm0, x.xmm1, x.xmm2, x.xmm3, x.xmm4, x.xmm5, x.xmm6, x.xmm7)
    for i, xmm in enumerate(floats):
        yield f"adapter.float.{i}", store(x.MOVSD, xmm, rsp, "offset")
