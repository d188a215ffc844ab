"""The linear-memory libcalls: they read the VMContext themselves and trap before they write.

Every index and size is an unsigned 32-bit integer in the low half of its register. The ABI leaves
the upper half undefined, so a 32-bit ``mov`` clears it first; then ``destination + length`` is a
33-bit sum in a 64-bit register and cannot wrap. A range that ends exactly at the end of a memory
(or of a segment) is inside, even if it is empty; one byte further traps.

A libcall does not check indices of memories and segments: compiled code has them from a validated
module. Each body is assembled a second time, as a stencil for a Python builtin. The stencil checks
its indices, and jumps to the slow path before a trap or a long operation. It holds the GIL
throughout, so nothing is closed meanwhile.

Growing is in ``growth.py``.

Source: ``wasmtime_runtime::libcalls`` of Wasmtime 0.22; WebAssembly 2.0, 4.4.7 (memory
instructions); System V ABI for AMD64, 3.2.3 (argument registers).
"""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import (
    WASM_PAGE_SHIFT,
    InstanceHeader,
    VMDataSegment,
    VMMemoryDefinition,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

__all__ = ["LONG", "routines"]


LONG = 1 << 20
"""Most bytes that a builtin copies or fills itself, in some 50 microseconds; for more it takes the
slow path, which releases the GIL."""

_POINTER = ctypes.sizeof(ctypes.c_void_p)


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64 import growth
    from asm_libcalls.x86_64.bytes import filling, copying
    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.python_functions.function_stencils import STENCIL_PREFIX
    from asm_libcalls.x86_64.stencils.assembling import assemble
    from asm_libcalls.x86_64.bytes.vectors import Vectors, routine

    vectors = Vectors(features)
    yield routine(copying.MOVE_BYTES, copying.move, vectors)
    yield routine(filling.FILL_BYTES, filling.fill, vectors)
    bodies: dict[str, Callable[[_Setting], None]] = {
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
    yield from growth.routines()
    for name, body in bodies.items():
        yield sequence(name, partial(_emit, body, _Libcall))
        yield assemble(STENCIL_PREFIX + name, partial(_emit, body, _Builtin), has_effects=True)


def _emit(body: Callable[[_Setting], None], setting: type[_Setting], *_: object) -> None:
    body(setting())


class _Setting:
    """The checks and the end of a body; rdi is the vmctx until the last check of an index.

    Bodies preserve r11, where a builtin has its arguments.
    """

    def check_index(self, register: Any, count: str) -> None:
        """Emit: a zero-extended index must be below the count in a field of the header."""

    def check_open(self, definition: Any) -> None:
        """Emit: the memory of a VMMemoryDefinition must not have been closed."""

    def check_length(self, register: Any) -> None:
        """Emit: at most :data:`LONG` bytes may be copied or filled here."""

    def check_not_above(self) -> None:
        """Emit: the comparison before must not have said "above"."""
        raise NotImplementedError

    def end(self) -> None:
        """Emit: return."""
        raise NotImplementedError

    def end_with(self, routine: str) -> None:
        """Emit: run a routine, whose arguments are in their registers, and end."""
        raise NotImplementedError


class _Libcall(_Setting):
    """A C function, which trusts its indices and traps."""

    def __init__(self) -> None:
        from peachpy.x86_64 import Label

        self._out_of_bounds = Label("out_of_bounds")

    def check_not_above(self) -> None:
        from peachpy.x86_64 import JA

        JA(self._out_of_bounds)

    def end(self) -> None:
        from peachpy.x86_64 import RET

        RET()

    def end_with(self, routine: str) -> None:
        from peachpy.x86_64 import LABEL, MOV, edi

        from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP

        TAIL_JUMP(routine)
        LABEL(self._out_of_bounds)
        MOV(edi, int(TrapCode.HEAP_OUT_OF_BOUNDS))
        TAIL_JUMP("asm_libcalls_raise_trap")


class _Builtin(_Setting):
    """A stencil of ``function_stencils.py``, which jumps to the slow path if a check fails."""

    def check_index(self, register: Any, count: str) -> None:
        from peachpy.x86_64 import CMP, rdi

        from asm_libcalls.x86_64.assembler.instructions import JUMP_IF

        CMP(register, [rdi + _header(count)])
        JUMP_IF("nc", "slow")

    def check_open(self, definition: Any) -> None:
        from peachpy.x86_64 import CMP, qword

        from asm_libcalls.x86_64.assembler.instructions import JUMP_IF

        CMP(qword[definition + VMMemoryDefinition.base.offset], 0)
        JUMP_IF("z", "slow")

    def check_length(self, register: Any) -> None:
        from peachpy.x86_64 import CMP

        CMP(register, LONG)
        self.check_not_above()

    def check_not_above(self) -> None:
        from asm_libcalls.x86_64.assembler.instructions import JUMP_IF

        JUMP_IF("a", "slow")

    def end(self) -> None:
        pass

    def end_with(self, routine: str) -> None:
        from asm_libcalls.x86_64.assembler.instructions import CALL_SLOT

        CALL_SLOT(routine)


def _header(field: str) -> int:
    return InstanceHeader.offset_from_vmctx(field)


def _index_segments(reg_segments: Any, reg_index: Any) -> None:
    """Emit: reg_segments += offset of the VMDataSegment of a zero-extended index; clobbers it."""
    from peachpy.x86_64 import ADD, SHL

    size = ctypes.sizeof(VMDataSegment)
    assert size & (size - 1) == 0
    SHL(reg_index, size.bit_length() - 1)  # index to bytes
    ADD(reg_segments, reg_index)


def _base_of_memory(reg_vmctx: Any, reg_index: Any) -> None:
    """Emit: reg_index = the base of a memory, from its zero-extended memory index.

    It is in the table below the header: one load instead of three, see :class:`InstanceHeader`.
    """
    from peachpy.x86_64 import MOV, NEG

    first = InstanceHeader.memory_base_offset(0)
    assert InstanceHeader.memory_base_offset(1) == first - _POINTER
    NEG(reg_index)  # the table grows downwards
    MOV(reg_index, [reg_vmctx + reg_index * _POINTER + first])


def _copy(setting: _Setting) -> None:
    """Emit ``memory_copy(vmctx, dst_memory_index, dst, src_memory_index, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, LEA, MOV, eax, ecx, edx, esi, r8, r8d, r9, r9d, r10, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.copying import MOVE_BYTES

    setting.check_length(r9d)
    MOV(eax, esi)
    MOV(esi, ecx)
    setting.check_index(rax, "memory_count")
    setting.check_index(rsi, "memory_count")
    MOV(rcx, [rdi + _header("memories")])
    MOV(r10, [rcx + rax * _POINTER])  # VMMemoryDefinition* of the destination
    MOV(rcx, [rcx + rsi * _POINTER])  # and of the source
    setting.check_open(r10)
    setting.check_open(rcx)
    _base_of_memory(rdi, rax)
    _base_of_memory(rdi, rsi)
    MOV(edx, edx)
    MOV(r8d, r8d)
    MOV(r9d, r9d)
    LEA(rdi, [rax + rdx * 1])  # offsets to addresses, as memmove has them
    ADD(rsi, r8)
    ADD(rdx, r9)  # the ends of both ranges
    ADD(r8, r9)
    CMP(rdx, [r10 + VMMemoryDefinition.current_length.offset])
    setting.check_not_above()
    CMP(r8, [rcx + VMMemoryDefinition.current_length.offset])
    setting.check_not_above()
    MOV(rdx, r9)
    setting.end_with(MOVE_BYTES)


def _init(setting: _Setting) -> None:
    """Emit ``memory_init(vmctx, memory_index, data_index, dst, src, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, LEA, MOV, ecx, edx, esi, r8, r8d, r9d, r10, rax, rcx, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.copying import MOVE_BYTES

    setting.check_length(r9d)
    MOV(esi, esi)
    MOV(edx, edx)
    setting.check_index(rsi, "memory_count")
    setting.check_index(rdx, "data_count")
    MOV(rax, [rdi + _header("memories")])
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    setting.check_open(r10)
    MOV(rax, [rdi + _header("data_segments")])
    _index_segments(rax, rdx)  # VMDataSegment*
    _base_of_memory(rdi, rsi)
    MOV(ecx, ecx)
    MOV(r8d, r8d)
    MOV(edx, r9d)
    LEA(rdi, [rsi + rcx * 1])  # offsets to addresses, as memmove has them
    MOV(rsi, [rax + VMDataSegment.base.offset])
    ADD(rsi, r8)
    ADD(rcx, rdx)  # the ends of both ranges
    ADD(r8, rdx)
    CMP(rcx, [r10 + VMMemoryDefinition.current_length.offset])
    setting.check_not_above()
    CMP(r8, [rax + VMDataSegment.length.offset])  # 0 once dropped
    setting.check_not_above()
    setting.end_with(MOVE_BYTES)


def _fill(array: str, count: str, setting: _Setting) -> None:
    """Emit ``memory_fill(vmctx, index, dst, val, len)``."""
    from peachpy.x86_64 import (
        ADD, CMP, LEA, MOV, ecx, edi, edx, esi, r8d, r9, r10, rax, rdi, rdx, rsi,
    )  # fmt: skip

    from asm_libcalls.x86_64.bytes.filling import FILL_BYTES

    setting.check_length(r8d)
    MOV(esi, esi)
    setting.check_index(rsi, count)
    MOV(rax, [rdi + _header(array)])
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    setting.check_open(r10)
    MOV(edi, edx)  # from here on as memset has them: destination, value, length
    MOV(esi, ecx)
    MOV(edx, r8d)
    LEA(rax, [rdi + rdx * 1])
    # Base after length: closing a memory in another thread clears the length before the base.
    MOV(r9, [r10 + VMMemoryDefinition.base.offset])
    CMP(rax, [r10 + VMMemoryDefinition.current_length.offset])
    setting.check_not_above()
    ADD(rdi, r9)  # offset to address
    setting.end_with(FILL_BYTES)


def _size(array: str, count: str, setting: _Setting) -> None:
    """Emit ``memory32_size(vmctx, index)``."""
    from peachpy.x86_64 import MOV, SHR, esi, r10, rax, rdi, rsi

    MOV(esi, esi)
    setting.check_index(rsi, count)
    MOV(rax, [rdi + _header(array)])
    MOV(r10, [rax + rsi * _POINTER])  # VMMemoryDefinition*
    setting.check_open(r10)
    MOV(rax, [r10 + VMMemoryDefinition.current_length.offset])
    SHR(rax, WASM_PAGE_SHIFT)
    setting.end()


def _data_drop(setting: _Setting) -> None:
    """Emit ``data_drop(vmctx, data_index)``."""
    from peachpy.x86_64 import MOV, esi, qword, rax, rdi, rsi

    MOV(esi, esi)
    setting.check_index(rsi, "data_count")
    MOV(rax, [rdi + _header("data_segments")])
    _index_segments(rax, rsi)
    MOV(qword[rax + VMDataSegment.length.offset], 0)
    setting.end()
