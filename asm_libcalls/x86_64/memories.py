"""The linear-memory libcalls: they read the VMContext themselves and trap before they write.

Every index and size is an unsigned 32-bit integer in the low half of its register. The ABI leaves
the upper half undefined, so a 32-bit ``mov`` clears it first. Then ``destination + length`` is a
33-bit sum in a 64-bit register and cannot wrap. A range that ends exactly at the end of a memory
(or of a segment) is inside, even if it is empty; one byte further traps.

A libcall does not check indices of memories and segments: compiled code has them from a validated
module. The stencil for a Python builtin (see ``leaving.py``) checks its indices, and leaves for the
slow path before a trap or a long operation. It holds the GIL throughout, so nothing is closed
meanwhile.

Growing is in ``memory_growth.py``.

Source: ``wasmtime_runtime::libcalls`` of Wasmtime 0.22; WebAssembly 2.0, 4.4.7 (memory
instructions); System V ABI for AMD64, 3.2.3 (argument registers).
"""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.trap_codes import TrapCode
from asm_libcalls.vmcontext import (
    WASM_PAGE_SHIFT,
    InstanceHeader,
    MemoryPointers,
    VMDataSegment,
    VMMemoryDefinition,
)
from asm_libcalls.x86_64.leaving import header

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.x86_64.leaving import Body


LONG = 1 << 20
"""Most bytes that a builtin copies or fills itself, in some 50 microseconds; for more it takes the
slow path, which releases the GIL."""

_POINTER = ctypes.sizeof(ctypes.c_void_p)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64 import leaving, memory_growth
    from asm_libcalls.x86_64.bytes import filling, copying
    from asm_libcalls.x86_64.bytes.vectors import Vectors, routine

    vectors = Vectors(features)
    yield routine(copying.MOVE_BYTES, copying.move, vectors)
    yield routine(filling.FILL_BYTES, filling.fill, vectors)
    bodies: dict[str, Callable[[Body], None]] = {
        "memory_copy": _copy,
        "memory_init": _init,
        "data_drop": _data_drop,
    }
    # A defined memory is given by its defined index, an imported one by its memory index.
    for prefix, array, count in (
        ("", "defined_memories", "defined_memory_count"),
        ("imported_", "memories", "imported_memory_count"),
    ):
        bodies[f"{prefix}memory_fill"] = partial(_fill, array, count)
        bodies[f"{prefix}memory32_size"] = partial(_size, array, count)
    yield from memory_growth.routines()
    yield from leaving.routines(bodies, traps=TrapCode.HEAP_OUT_OF_BOUNDS)


def _check_open(body: Body, definition: Any) -> None:
    """Emit: a builtin leaves if the memory of a VMMemoryDefinition was closed."""
    from peachpy.x86_64 import CMP, qword

    if body.is_builtin:
        CMP(qword[definition + VMMemoryDefinition.base.offset], 0)
        body.leave_if("z")


def _check_length(body: Body, register: Any) -> None:
    """Emit: a builtin leaves if it would copy or fill more than :data:`LONG` bytes."""
    from peachpy.x86_64 import CMP

    if body.is_builtin:
        CMP(register, LONG)
        body.leave_if("a")


def _segment(reg_segments: Any, reg_index: Any) -> Any:
    """Emit: double a zero-extended index. Return the address of its VMDataSegment."""
    from peachpy.x86_64 import ADD

    assert ctypes.sizeof(VMDataSegment) == 16  # twice the greatest scale of an address
    ADD(reg_index, reg_index)
    return reg_segments + reg_index * 8


def _find_memory(reg_vmctx: Any, reg_index: Any, reg_definition: Any) -> None:
    """Emit: from a zero-extended memory index, its base to reg_index and its VMMemoryDefinition*.

    They are in the table below the header, see :class:`InstanceHeader`.
    """
    from peachpy.x86_64 import ADD, MOV, NEG

    first = InstanceHeader.memory_pointers_offset(0)
    assert ctypes.sizeof(MemoryPointers) == 2 * _POINTER
    NEG(reg_index)  # the table grows downwards
    ADD(reg_index, reg_index)
    entry = reg_vmctx + reg_index * _POINTER + first
    MOV(reg_definition, [entry + MemoryPointers.definition.offset])
    MOV(reg_index, [entry + MemoryPointers.base.offset])


def _find_first_memory(reg_vmctx: Any, reg_base: Any, reg_definition: Any) -> None:
    """Emit :func:`_find_memory` for index 0, the most common, which takes two cycles less."""
    from peachpy.x86_64 import MOV

    entry = reg_vmctx + InstanceHeader.memory_pointers_offset(0)
    MOV(reg_base, [entry + MemoryPointers.base.offset])
    MOV(reg_definition, [entry + MemoryPointers.definition.offset])


def _copy(body: Body) -> None:
    """Emit ``memory_copy(vmctx, dst_memory_index, dst, src_memory_index, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JNZ, LABEL, LEA, MOV, TEST, Label, eax, ecx, edx, esi, r8, r8d, r9, r9d, r10, rax,
        rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.copying import MOVE_BYTES

    others = Label("others")
    length = VMMemoryDefinition.current_length.offset
    _check_length(body, r9d)
    MOV(eax, edx)  # the destination's offset
    MOV(edx, r9d)  # the length, in memmove's register
    MOV(r8d, r8d)
    for index in (esi, ecx):
        TEST(index, index)
        JNZ(others)
    body.check_index(rsi, "memory_count")
    _find_first_memory(rdi, rsi, r10)
    _check_open(body, r10)
    LEA(rdi, [rsi + rax * 1])  # offsets to addresses, as memmove has them
    ADD(rsi, r8)
    MOV(r10, [r10 + length])
    ADD(rax, rdx)
    ADD(r8, rdx)
    CMP(rax, r10)
    body.leave_if("a")
    CMP(r8, r10)
    body.leave_if("a")
    body.end_with(MOVE_BYTES)

    LABEL(others)
    MOV(esi, esi)
    body.check_index(rsi, "memory_count")
    MOV(r9d, ecx)
    body.check_index(r9, "memory_count")
    _find_memory(rdi, rsi, rcx)
    _check_open(body, rcx)
    _find_memory(rdi, r9, r10)
    _check_open(body, r10)
    LEA(rdi, [rsi + rax * 1])
    LEA(rsi, [r9 + r8 * 1])
    ADD(rax, rdx)
    ADD(r8, rdx)
    CMP(rax, [rcx + length])
    body.leave_if("a")
    CMP(r8, [r10 + length])
    body.leave_if("a")
    body.end_with(MOVE_BYTES)


def _init(body: Body) -> None:
    """Emit ``memory_init(vmctx, memory_index, data_index, dst, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JMP, JNZ, LABEL, LEA, MOV, TEST, Label, ecx, edx, esi, r8, r8d, r9, r9d, r10, rax,
        rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.copying import MOVE_BYTES

    other, found = Label("other"), Label("found")
    _check_length(body, r9d)
    MOV(esi, esi)
    MOV(edx, edx)
    body.check_index(rsi, "memory_count")
    body.check_index(rdx, "data_count")
    MOV(rax, [rdi + header("data_segments")])  # first: the source's address takes two loads
    segment = _segment(rax, rdx)
    TEST(esi, esi)
    JNZ(other)
    _find_first_memory(rdi, rsi, r10)
    LABEL(found)
    _check_open(body, r10)
    MOV(ecx, ecx)
    MOV(r8d, r8d)
    MOV(r9d, r9d)
    LEA(rdi, [rsi + rcx * 1])  # offsets to addresses, as memmove has them
    MOV(rsi, [segment + VMDataSegment.base.offset])
    ADD(rsi, r8)
    ADD(rcx, r9)  # the ends of both ranges
    ADD(r8, r9)
    CMP(rcx, [r10 + VMMemoryDefinition.current_length.offset])
    body.leave_if("a")
    CMP(r8, [segment + VMDataSegment.length.offset])  # 0 once dropped
    body.leave_if("a")
    MOV(edx, r9d)
    body.end_with(MOVE_BYTES)

    LABEL(other)
    _find_memory(rdi, rsi, r10)
    JMP(found)


def _fill(array: str, count: str, body: Body) -> None:
    """Emit ``memory_fill(vmctx, index, dst, val, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, LEA, MOV, ecx, edi, edx, esi, r8d, r9, r10, rax, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.filling import FILL_BYTES

    _check_length(body, r8d)
    MOV(esi, esi)
    body.check_index(rsi, count)
    MOV(rax, [rdi + header(array)])
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    _check_open(body, r10)
    MOV(edi, edx)  # from here on in memset's registers: destination, value, length
    MOV(esi, ecx)
    MOV(edx, r8d)
    LEA(rax, [rdi + rdx * 1])
    # Base after length: closing a memory in another thread clears the length before the base.
    MOV(r9, [r10 + VMMemoryDefinition.base.offset])
    CMP(rax, [r10 + VMMemoryDefinition.current_length.offset])
    body.leave_if("a")
    ADD(rdi, r9)  # offset to address
    body.end_with(FILL_BYTES)


def _size(array: str, count: str, body: Body) -> None:
    """Emit ``memory32_size(vmctx, index)``."""
    from peachpy.x86_64 import MOV, SHR, esi, r10, rax, rdi, rsi

    MOV(esi, esi)
    body.check_index(rsi, count)
    MOV(rax, [rdi + header(array)])
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    _check_open(body, r10)
    MOV(rax, [r10 + VMMemoryDefinition.current_length.offset])
    SHR(rax, WASM_PAGE_SHIFT)
    body.end()


def _data_drop(body: Body) -> None:
    """Emit ``data_drop(vmctx, data_index)``."""
    from peachpy.x86_64 import MOV, esi, qword, rax, rdi, rsi

    MOV(esi, esi)
    body.check_index(rsi, "data_count")
    MOV(rax, [rdi + header("data_segments")])
    MOV(qword[_segment(rax, rsi) + VMDataSegment.length.offset], 0)
    body.end()
