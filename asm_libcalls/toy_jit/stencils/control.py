"""Frames, branches, calls of functions and libcalls, and what is behind the functions."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import load, trap, wide, with_const, with_register
from asm_libcalls.toy_jit.stencils.entry import change_instance, load_memory
from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import VMCallerCheckedAnyfunc, VMInterrupts, VMTableDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["control"]


def _jump_if(condition: str) -> Body:
    from asm_libcalls.x86_64.instructions import JUMP_IF

    return lambda hole: JUMP_IF(condition, "target")


def control() -> Iterator[tuple[str, Body]]:
    """Yield the stencils of control flow and of calls."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.instructions import CALL_ROUTINE, JUMP_IF, LOAD_ADDRESS, TAIL_JUMP

    anyfunc, table = VMCallerCheckedAnyfunc, VMTableDefinition

    for condition in JUMP_IF.conditions:
        yield f"jump.{condition}", _jump_if(condition)
    yield "jump", lambda hole: TAIL_JUMP("target")
    yield "call", lambda hole: CALL_ROUTINE("target")

    def prologue(hole: Hole) -> None:
        x.PUSH(rbp)
        x.MOV(rbp, rsp)
        x.SUB(rsp, hole("frame"))
        x.MOV([rbp - 8], x.r15)
        check(hole)

    def check(hole: Hole) -> None:
        x.MOV(x.rdx, [x.r15])  # VMInterrupts, the first field of a VMContext
        x.CMP(rsp, [x.rdx])
        JUMP_IF("c", "target")

    def epilogue(hole: Hole) -> None:
        x.MOV(rsp, rbp)
        x.POP(rbp)
        x.RET()

    def clear(hole: Hole) -> None:
        x.XOR(x.edx, x.edx)
        x.MOV(x.ecx, hole("value"))
        again = x.Label("again")
        x.LABEL(again)
        x.MOV([rbp + x.rcx * 8 + hole("offset")], x.rdx)
        x.DEC(x.rcx)
        x.JNZ(again)

    def call_other(hole: Hole) -> None:
        """Call the code at rax with the vmctx in rcx, and come back to this one's."""
        same = x.Label("same")
        x.CMP(x.rcx, x.r15)
        x.JE(same)
        change_instance()
        load_memory()
        x.LABEL(same)
        x.CALL(x.rax)

    def come_back(hole: Hole) -> None:
        back = x.Label("back")
        x.CMP(x.r15, [rbp - 8])
        x.JE(back)
        x.MOV(x.r15, [rbp - 8])
        load_memory()
        x.LABEL(back)

    def load_import(hole: Hole) -> None:
        x.MOV(x.rax, [x.r15 + hole("body")])
        x.MOV(x.rcx, [x.r15 + hole("vmctx")])

    def load_indirect(hole: Hole) -> None:
        """Load the code and vmctx of the element rax of the table at rcx."""
        x.CMP(x.eax, [x.rcx + table.current_elements.offset])
        trap("nc", TrapCode.UNDEFINED_ELEMENT)
        x.MOV(x.rcx, [x.rcx + table.base.offset])
        x.MOV(x.rcx, [x.rcx + x.rax * 8])
        x.TEST(x.rcx, x.rcx)
        trap("z", TrapCode.INDIRECT_CALL_TO_NULL)
        x.CMP(x.dword[x.rcx + anyfunc.type_index.offset], hole("value"))
        trap("nz", TrapCode.BAD_SIGNATURE)
        x.MOV(x.rax, [x.rcx + anyfunc.func_ptr.offset])
        x.MOV(x.rcx, [x.rcx + anyfunc.vmctx.offset])

    def table_get(hole: Hole) -> None:
        x.CMP(x.eax, [x.rcx + table.current_elements.offset])
        trap("nc", TrapCode.TABLE_OUT_OF_BOUNDS)
        x.MOV(x.rcx, [x.rcx + table.base.offset])
        x.MOV(x.rax, [x.rcx + x.rax * 8])

    def branch_table(hole: Hole) -> None:
        """Jump by a table of distances that follows; rax is the index, the last is the default."""
        x.MOV(x.ecx, hole("value"))
        x.CMP(x.eax, x.ecx)
        x.CMOVA(x.eax, x.ecx)
        LOAD_ADDRESS(x.rcx, "target")
        x.MOVSXD(x.rax, x.dword[x.rcx + x.rax * 4])
        x.ADD(x.rax, x.rcx)
        x.JMP(x.rax)

    yield "prologue", prologue
    yield "check", check
    yield "epilogue", epilogue
    yield "clear", clear
    yield "call.other", call_other
    yield "call.back", come_back
    yield "call.import", load_import
    yield "call.indirect", load_indirect
    yield "call.rax", lambda hole: x.CALL(x.rax)
    yield "table.get", table_get
    yield "table.size", lambda hole: x.MOV(x.eax, [x.rcx + table.current_elements.offset])
    yield "table.defined", lambda hole: x.LEA(x.rcx, [x.r15 + hole("offset")])
    yield "table.imported", lambda hole: x.MOV(x.rcx, [x.r15 + hole("offset")])
    yield "branch_table", branch_table

    # Libcalls: System V arguments, then a call through the builtin array or to an address.
    yield "libcall.vmctx", lambda hole: x.MOV(x.rdi, x.r15)
    registers = ((x.rdi, x.edi), (x.rsi, x.esi), (x.rdx, x.edx), (x.rcx, x.ecx), (x.r8, x.r8d),
                 (x.r9, x.r9d))  # fmt: skip
    for i, (register, half) in enumerate(registers):
        yield f"libcall.{i}.rax", with_register(x.MOV, register, x.rax)
        yield f"libcall.{i}.slot", load(x.MOV, register, rbp, "slot")
        yield f"libcall.{i}.const", with_const(x.MOV, half)
    yield "libcall.builtin", lambda hole: x.CALL([x.r15 + hole("offset")])
    yield "i64.from_call", lambda hole: x.MOV(x.eax, x.eax)

    def trap_stub(hole: Hole) -> None:
        # Called from the site, so that the return address on the stack says which it was.
        x.MOV(x.edi, hole("value"))
        x.MOV(x.rax, wide(hole))
        x.JMP(x.rax)

    def interrupt_stub(hole: Hole) -> None:
        """Find out why rcx, the stack pointer, is below the limit: too deep, or asked to stop.

        Called from the site as the trap stub is, and left by a jump: the return address that a
        walk of the stack finds is the site's, which has a stack map.
        """
        overflow = x.Label("overflow")
        x.MOV(x.rdx, [x.r15])
        x.CMP(x.rcx, [x.rdx + VMInterrupts.native_stack_limit.offset])
        x.JB(overflow)
        x.MOV(x.rdi, x.r15)
        x.MOV(x.rax, wide(hole))
        x.JMP(x.rax)
        x.LABEL(overflow)
        TAIL_JUMP("target")

    # Before the call of that stub. A new frame may reach below the end of the stack, so nothing is
    # written at its end before it is known to be there.
    def interrupt_enter(hole: Hole) -> None:
        x.MOV(x.rcx, rsp)
        x.LEA(rsp, [rbp - 16])

    yield "interrupt.enter", interrupt_enter
    yield "interrupt.entered", lambda hole: x.LEA(rsp, [rbp + hole("frame")])
    yield "interrupt.loop", lambda hole: x.MOV(x.rcx, rsp)
    yield "stub.trap", trap_stub
    yield "stub.interrupt", interrupt_stub
