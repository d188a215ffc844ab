"""Growing memories within their reservation, and the system call, which growing tables uses too.

Machine code leaves for Python at a memory or table with a limiter or of a user's class, for growth
beyond the reservation, and if the system refuses.

Source: WebAssembly 2.0, 4.5.3.8 and 4.5.3.9 (growing tables and memories); ``mprotect(2)``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import partial

from asm_libcalls.emitter import libc
from asm_libcalls.emitter.image import Routine
from asm_libcalls.vmcontext import WASM_PAGE_SHIFT, VMMemoryDefinition, VMMemoryState
from asm_libcalls.x86_64.leaving import Body, header

MAKE_ACCESSIBLE = "asm_libcalls_make_accessible"
"""Takes the base of a reservation in rax, the number of accessible bytes in rsi, and the number of
bytes to make accessible in r9. Sets CF if the system refuses. Preserves all registers but rax, and
needs no aligned stack.
"""

_PAGE = 4096  # of every x86-64 CPU
_PAGE_SHIFT = 12
_POINTER = ctypes.sizeof(ctypes.c_void_p)
_READ_WRITE = libc.PROT_READ | libc.PROT_WRITE


def routines() -> Iterator[Routine]:
    """Assemble the growth of memories."""
    from asm_libcalls.x86_64 import leaving
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence(MAKE_ACCESSIBLE, _make_accessible)
    yield from leaving.routines(
        {
            # A defined memory is given by its defined index, an imported one by its memory index.
            "memory32_grow": partial(_grow, "defined_", "defined_memory_count"),
            "imported_memory32_grow": partial(_grow, "", "imported_memory_count"),
        }
    )


def _make_accessible() -> None:
    from peachpy.x86_64 import (
        AND, CLC, CMC, CMP, JE, LABEL, LEA, MOV, POP, PUSH, RET, SHR, Label, eax, edx, r8, r9, r10,
        r11, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip
    from peachpy.x86_64.registers import rbp, rsp

    from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT

    same_page = Label("same_page")
    saved = (rcx, rdx, rdi, rsi, r8, r9, r10, r11)
    PUSH(rbp)
    MOV(rbp, rsp)
    for register in saved:
        PUSH(register)
    LEA(rdi, [rsi + _PAGE - 1])
    LEA(rsi, [r9 + _PAGE - 1])
    SHR(rdi, _PAGE_SHIFT)
    SHR(rsi, _PAGE_SHIFT)
    CMP(rdi, rsi)
    CLC()
    JE(same_page)
    AND(rsp, -16)
    MOV(rdi, rax)
    LEA(rsi, [r9 + _PAGE - 1])
    AND(rsi, -_PAGE)
    MOV(edx, _READ_WRITE)
    CALL_SLOT("mprotect")
    CMP(eax, 1)
    CMC()  # CF unless it is 0
    LABEL(same_page)
    for i, register in enumerate(saved):
        MOV(register, [rbp - 8 * (i + 1)])
    MOV(rsp, rbp)
    POP(rbp)
    RET()


def _grow(prefix: str, count: str, body: Body) -> None:
    """Emit ``memory32_grow(vmctx, delta, index)``."""
    from peachpy.x86_64 import (
        ADD, CMP, MOV, SHL, SHR, TEST, edx, esi, r8, r9, r9d, r10, rax, rdi, rdx, rsi,
    )  # fmt: skip

    memory = VMMemoryDefinition
    body.save(rdi, rsi, rdx)
    MOV(edx, edx)  # the upper half of a 32-bit argument is undefined
    body.check_index(rdx, count)
    MOV(r8, [rdi + header(f"{prefix}memories")])
    MOV(r10, [rdi + header(f"{prefix}memory_states")])
    MOV(r8, [r8 + rdx * _POINTER])  # VMMemoryDefinition*
    MOV(r10, [r10 + rdx * _POINTER])  # VMMemoryState*
    MOV(r9d, esi)
    SHL(r9, WASM_PAGE_SHIFT)  # pages to bytes
    MOV(rsi, [r8 + memory.current_length.offset])
    ADD(r9, rsi)
    CMP(r9, [r10 + VMMemoryState.grows_below.offset])
    body.leave_if("nc")
    MOV(rax, [r8 + memory.base.offset])
    TEST(rax, rax)
    body.leave_if("z")  # a closed memory
    body.call(MAKE_ACCESSIBLE)
    body.leave_if("c")
    MOV([r8 + memory.current_length.offset], r9)
    MOV(rax, rsi)
    SHR(rax, WASM_PAGE_SHIFT)
    body.end()
