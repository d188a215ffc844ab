"""The linear-memory libcalls: they read the VMContext themselves and trap before they write.

Every index and size is an unsigned 32-bit integer in the low half of its register. The ABI leaves
the upper half undefined, so a 32-bit ``mov`` clears it first; then ``destination + length`` is a
33-bit sum in a 64-bit register and can not wrap. A range that ends exactly at the end of a memory
(or of a segment) is inside, also when it is empty; one byte further traps.

Indices of memories and segments are not checked: compiled code has them from a validated module.

Growing is not here: it reserves memory and asks a limiter, in Python.

Source: ``wasmtime_runtime::libcalls`` of Wasmtime 0.22; WebAssembly 2.0, 4.4.7 (memory
instructions); System V ABI for AMD64, 3.2.3 (argument registers).
"""

from __future__ import annotations

import ctypes

from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import InstanceHeader, VMDataSegment, VMMemoryDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.x86_64.image import Routine

__all__ = ["REQUIRES", "routines"]

REQUIRES: frozenset[str] = frozenset()
"""CPU features without which the fallback serves this family."""

_PAGE_SHIFT = 16
"""Bytes to pages of 64 KiB."""

_POINTER = ctypes.sizeof(ctypes.c_void_p)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64 import fills, moves
    from asm_libcalls.x86_64.assembler import function, sequence
    from asm_libcalls.x86_64.vectors import Vectors

    vectors = Vectors(features)
    yield moves.routine(vectors)
    yield fills.routine(vectors)
    yield sequence("memory_copy", _copy)
    yield sequence("memory_init", _init)
    # A defined memory by its defined index, an imported one by its memory index.
    for prefix, array in (("", "defined_memories"), ("imported_", "memories")):
        yield sequence(f"{prefix}memory_fill", _fill(array))
        yield function(f"{prefix}memory32_size", "(vmctx, u32) -> u32", _size(array))
    yield function("data_drop", "(vmctx, u32)", _data_drop)


def _header(field: str) -> int:
    return InstanceHeader.offset_from_vmctx(field)


def _index_segments(reg_segments: Any, reg_index: Any) -> None:
    """Emit: from the array to the VMDataSegment of a zero-extended index, which is clobbered."""
    from peachpy.x86_64 import ADD, SHL

    size = ctypes.sizeof(VMDataSegment)
    assert size & (size - 1) == 0
    SHL(reg_index, size.bit_length() - 1)  # index to bytes
    ADD(reg_segments, reg_index)


def _trap_out_of_bounds(label: Any) -> None:
    from peachpy.x86_64 import LABEL, MOV, edi

    from asm_libcalls.x86_64.instructions import TAIL_JUMP

    LABEL(label)
    MOV(edi, int(TrapCode.HEAP_OUT_OF_BOUNDS))
    TAIL_JUMP("asm_libcalls_raise_trap")


def _base_of_memory(reg_vmctx: Any, reg_index: Any) -> None:
    """Emit: reg_index = the base of a memory, from its zero-extended memory index.

    From the table below the header: one load instead of three, see :class:`InstanceHeader`.
    """
    from peachpy.x86_64 import MOV, NEG

    first = InstanceHeader.memory_base_offset(0)
    assert InstanceHeader.memory_base_offset(1) == first - _POINTER
    NEG(reg_index)  # the table grows downwards
    MOV(reg_index, [reg_vmctx + reg_index * _POINTER + first])


def _copy() -> None:
    """Emit ``memory_copy(vmctx, dst_memory_index, dst, src_memory_index, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JA, LEA, MOV, Label, eax, ecx, edx, esi, r8, r8d, r9, r9d, r10, r11, r11d, rax,
        rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.instructions import TAIL_JUMP
    from asm_libcalls.x86_64.moves import MOVE_BYTES

    out_of_bounds = Label("out_of_bounds")
    MOV(eax, esi)
    MOV(r11d, ecx)
    MOV(rcx, [rdi + _header("memories")])
    MOV(r10, [rcx + rax * _POINTER])  # VMMemoryDefinition* of the destination
    MOV(rcx, [rcx + r11 * _POINTER])  # and of the source
    _base_of_memory(rdi, rax)
    _base_of_memory(rdi, r11)
    MOV(edx, edx)
    MOV(r8d, r8d)
    MOV(r9d, r9d)
    LEA(rdi, [rax + rdx * 1])  # offsets to addresses, as memmove has them
    LEA(rsi, [r11 + r8 * 1])
    ADD(rdx, r9)  # the ends of both ranges
    ADD(r8, r9)
    CMP(rdx, [r10 + VMMemoryDefinition.current_length.offset])
    JA(out_of_bounds)
    CMP(r8, [rcx + VMMemoryDefinition.current_length.offset])
    JA(out_of_bounds)
    MOV(rdx, r9)
    TAIL_JUMP(MOVE_BYTES)
    _trap_out_of_bounds(out_of_bounds)


def _init() -> None:
    """Emit ``memory_init(vmctx, memory_index, data_index, dst, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, JA, LEA, MOV, Label, ecx, edx, esi, r8, r8d, r9d, r10, r11, rax, rcx, rdi,
        rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.instructions import TAIL_JUMP
    from asm_libcalls.x86_64.moves import MOVE_BYTES

    out_of_bounds = Label("out_of_bounds")
    MOV(rax, [rdi + _header("memories")])
    MOV(r11, [rdi + _header("data_segments")])
    MOV(esi, esi)
    MOV(edx, edx)
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    _index_segments(r11, rdx)  # VMDataSegment*
    _base_of_memory(rdi, rsi)
    MOV(ecx, ecx)
    MOV(r8d, r8d)
    MOV(edx, r9d)
    LEA(rdi, [rsi + rcx * 1])  # offsets to addresses, as memmove has them
    MOV(rsi, [r11 + VMDataSegment.base.offset])
    ADD(rsi, r8)
    ADD(rcx, rdx)  # the ends of both ranges
    ADD(r8, rdx)
    CMP(rcx, [r10 + VMMemoryDefinition.current_length.offset])
    JA(out_of_bounds)
    CMP(r8, [r11 + VMDataSegment.length.offset])  # 0 once dropped
    JA(out_of_bounds)
    TAIL_JUMP(MOVE_BYTES)
    _trap_out_of_bounds(out_of_bounds)


def _fill(array: str) -> Callable[[], None]:
    def body() -> None:
        """Emit ``memory_fill(vmctx, index, dst, val, len)``."""
        from peachpy.x86_64 import (
            ADD, CMP, JA, LEA, MOV, Label, ecx, edi, edx, esi, r8d, r10, rax, rdi, rdx, rsi,
        )  # fmt: skip

        from asm_libcalls.x86_64.fills import FILL_BYTES
        from asm_libcalls.x86_64.instructions import TAIL_JUMP

        out_of_bounds = Label("out_of_bounds")
        MOV(rax, [rdi + _header(array)])
        MOV(esi, esi)
        MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
        MOV(edi, edx)  # from here on as memset has them: destination, value, length
        MOV(esi, ecx)
        MOV(edx, r8d)
        LEA(rax, [rdi + rdx * 1])
        CMP(rax, [r10 + VMMemoryDefinition.current_length.offset])
        JA(out_of_bounds)
        ADD(rdi, [r10 + VMMemoryDefinition.base.offset])  # offset to address
        TAIL_JUMP(FILL_BYTES)
        _trap_out_of_bounds(out_of_bounds)

    return body


def _load(vmctx: Any, index: Any) -> tuple[Any, Any]:
    """Emit: load the arguments; PeachPy zero-extends an unsigned index to 64 bits."""
    from peachpy.x86_64 import LOAD, GeneralPurposeRegister64

    reg_vmctx, reg_index = GeneralPurposeRegister64(), GeneralPurposeRegister64()
    LOAD.ARGUMENT(reg_vmctx, vmctx)
    LOAD.ARGUMENT(reg_index, index)
    return reg_vmctx, reg_index


def _size(array: str) -> Callable[[Any, Any], None]:
    def body(vmctx: Any, index: Any) -> None:
        from peachpy.x86_64 import MOV, RETURN, SHR, eax, rax

        reg_vmctx, reg_index = _load(vmctx, index)
        MOV(rax, [reg_vmctx + _header(array)])
        MOV(rax, [rax + reg_index * _POINTER])  # VMMemoryDefinition*
        MOV(rax, [rax + VMMemoryDefinition.current_length.offset])
        SHR(rax, _PAGE_SHIFT)
        RETURN(eax)

    return body


def _data_drop(vmctx: Any, data_index: Any) -> None:
    from peachpy.x86_64 import MOV, RETURN, qword

    reg_vmctx, reg_index = _load(vmctx, data_index)
    MOV(reg_vmctx, [reg_vmctx + _header("data_segments")])
    _index_segments(reg_vmctx, reg_index)
    MOV(qword[reg_vmctx + VMDataSegment.length.offset], 0)
    RETURN()
