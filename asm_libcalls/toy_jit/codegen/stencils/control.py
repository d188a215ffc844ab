"""Stencils of frames, branches, calls, checks, tables and globals, and stubs behind functions."""

from __future__ import annotations

from asm_libcalls.vmcontext import (
    VMCallerCheckedAnyfunc,
    VMInterrupts,
    VMMemoryDefinition,
    VMTableDefinition,
)
from asm_libcalls.x86_64.assembler.instructions import JUMP_IF

_LIMIT = VMInterrupts.native_stack_limit.offset
_CODE = VMCallerCheckedAnyfunc.func_ptr.offset
_TYPE = VMCallerCheckedAnyfunc.type_index.offset
_VMCTX = VMCallerCheckedAnyfunc.vmctx.offset
_BASE = VMTableDefinition.base.offset
_LENGTH = VMTableDefinition.current_elements.offset

_CHECK = "mov rdx, [r15]; cmp rsp, [rdx]; jc >target"  # VMInterrupts, a VMContext's first field

_STENCILS = {
    "prologue": "push rbp; mov rbp, rsp; sub rsp, frame; mov [rbp - 8], r15; " + _CHECK,
    "check": _CHECK,
    "epilogue": "mov rsp, rbp; pop rbp; ret",
    "clear": """
        xor edx, edx; mov ecx, count
        .again:; mov [rbp + rcx * 8 + offset], rdx; dec rcx; jnz .again
    """,
    "jump": "jmp >target",
    "unreachable": "jmp >trap.UNREACHABLE_CODE_REACHED",
    # Jump by the table of distances that follows. rax is the index; the last entry is the default.
    "branch_table": """
        mov ecx, last; cmp eax, ecx; cmova eax, ecx
        lea rcx, >target; movsxd rax, dword[rcx + rax * 4]; add rax, rcx; jmp rax
    """,

    "call": "call >target",
    "call.import": "mov rax, [r15 + body]; mov rcx, [r15 + vmctx]",
    # The element rax of the table at rcx.
    "call.indirect": f"""
        cmp eax, [rcx + {_LENGTH}]; jnc >trap.UNDEFINED_ELEMENT
        mov rcx, [rcx + {_BASE}]; mov rcx, [rcx + rax * 8]
        test rcx, rcx; jz >trap.INDIRECT_CALL_TO_NULL
        cmp dword[rcx + {_TYPE}], type; jnz >trap.BAD_SIGNATURE
        mov rax, [rcx + {_CODE}]; mov rcx, [rcx + {_VMCTX}]
    """,
    # Call the code at rax with the vmctx in rcx, then return to this instance.
    "call.other": """
        cmp rcx, r15; je .same
        change_instance
        load_memory
        .same:; call rax
    """,
    "call.back": """
        cmp r15, [rbp - 8]; je .back
        mov r15, [rbp - 8]
        load_memory
        .back:
    """,
    "call.count": "mov rax, wide; inc qword[rax]",
    "call.builtin": "call [r15 + offset]",
    "call.address": "mov rax, wide; call rax",

    # Tables and globals: rcx = the address of the definition. An import has a pointer to it.
    "address.defined": "lea rcx, [r15 + offset]",
    "address.imported": "mov rcx, [r15 + offset]",
    "table.size": f"mov eax, [rcx + {_LENGTH}]",
    "table.get": f"""
        cmp eax, [rcx + {_LENGTH}]; jnc >trap.TABLE_OUT_OF_BOUNDS
        mov rcx, [rcx + {_BASE}]; mov rax, [rcx + rax * 8]
    """,
    "global.get.rax": "mov rax, [rcx]",
    "global.get.xmm0": "movsd xmm0, [rcx]",
    "global.set.rax": "mov [rcx], rax",
    "global.set.xmm0": "movsd [rcx], xmm0",
    "ref.func": "lea rax, [r15 + offset]",

    # The ends of bounds checks, which Places.address() begins.
    "memory.limit":
        f"cmp rdx, [r13 + {VMMemoryDefinition.current_length.offset}]; "
        "ja >trap.HEAP_OUT_OF_BOUNDS",
    "memory.unless_below": "jnc >trap.HEAP_OUT_OF_BOUNDS",
    "memory.if_below": "jc >trap.HEAP_OUT_OF_BOUNDS",

    # Called from the site of the trap, so that the return address on the stack tells which it was.
    "stub.trap": "mov edi, code; mov rax, wide; jmp rax",
    # rcx, the stack pointer, is below the limit, by an overflow or by a request to stop.
    # Called from the site too, and left by a jump: so a walk of the stack finds the return address
    # of the site, which has a stack map.
    "stub.interrupt": f"""
        mov rdx, [r15]; cmp rcx, [rdx + {_LIMIT}]; jb .overflow
        mov rdi, r15; mov rax, wide; jmp rax
        .overflow:; jmp >trap.overflow
    """,
    # Below the instance's limit, maybe not below the thread record's, which CHECK_STACK compares.
    "stub.overflow": "mov rdi, r15; mov rsi, rcx; mov rax, wide; jmp rax",
    # Before the call of that stub. A new frame may reach below the end of the stack, so rsp is near
    # the frame's upper end until the check has passed.
    "interrupt.enter": "mov rcx, rsp; lea rsp, [rbp - 16]",
    "interrupt.entered": "lea rsp, [rbp + frame]",
    "interrupt.loop": "mov rcx, rsp",
}  # fmt: skip


def control() -> dict[str, str]:
    """Return the stencils."""
    return _STENCILS | {f"jump.{c}": f"j{c} >target" for c in JUMP_IF.conditions}
