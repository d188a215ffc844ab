"""The memory libcalls: grow, size, copy, fill, init and drop.

A ``defined_memory_index`` counts from the instance's first defined memory, a ``memory_index`` from
its first import. Bounds are checked before the first byte is written. Sums do not wrap, since
Python's integers do not.

Source: WebAssembly 2.0, 4.4.7 (memory instructions); ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.runtime.instance import instance_of, part_of
from asm_libcalls.traps import HeapOutOfBounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.runtime.memory import Memory

_REFUSED = 0xFFFFFFFF


def _memory(vmctx: int, memory_index: int) -> Memory:
    memory: Memory = part_of(vmctx, "memories", memory_index)
    return memory


def _defined_memory(vmctx: int, defined_memory_index: int) -> Memory:
    imported = instance_of(vmctx).offsets.num_imported_memories
    return _memory(vmctx, imported + defined_memory_index)


def memory32_grow(vmctx: int, delta: int, defined_memory_index: int) -> int:
    """Grow a defined memory by delta pages; the previous size, or 0xFFFFFFFF."""
    return _defined_memory(vmctx, defined_memory_index).grow(delta) & _REFUSED


def imported_memory32_grow(vmctx: int, delta: int, memory_index: int) -> int:
    """Grow an imported memory by delta pages; the previous size, or 0xFFFFFFFF."""
    return _memory(vmctx, memory_index).grow(delta) & _REFUSED


def memory32_size(vmctx: int, defined_memory_index: int) -> int:
    """Return the size of a defined memory, in pages of 64 KiB."""
    return _defined_memory(vmctx, defined_memory_index).current_size()


def imported_memory32_size(vmctx: int, memory_index: int) -> int:
    """Return the size of an imported memory, in pages of 64 KiB."""
    return _memory(vmctx, memory_index).current_size()


def memory_copy(
    vmctx: int, dst_memory_index: int, dst: int, src_memory_index: int, src: int, len_: int
) -> None:
    """Copy bytes within or between memories; the ranges may overlap."""
    from_, _kept = _memory(vmctx, src_memory_index).place(src, len_)
    to, _also_kept = _memory(vmctx, dst_memory_index).place(dst, len_)
    ctypes.memmove(to, from_, len_)


def _fill(memory: Memory, dst: int, val: int, len_: int) -> None:
    at, _kept = memory.place(dst, len_)
    ctypes.memset(at, val & 0xFF, len_)


def memory_fill(vmctx: int, defined_memory_index: int, dst: int, val: int, len_: int) -> None:
    """Set bytes of a defined memory to the low byte of val."""
    _fill(_defined_memory(vmctx, defined_memory_index), dst, val, len_)


def imported_memory_fill(vmctx: int, memory_index: int, dst: int, val: int, len_: int) -> None:
    """Set bytes of an imported memory to the low byte of val."""
    _fill(_memory(vmctx, memory_index), dst, val, len_)


def memory_init(
    vmctx: int, memory_index: int, data_index: int, dst: int, src: int, len_: int
) -> None:
    """Copy bytes from a passive data segment."""
    instance = instance_of(vmctx)
    base, length = instance.data_segment(data_index)
    if src + len_ > length:
        raise HeapOutOfBounds
    to, _kept = _memory(vmctx, memory_index).place(dst, len_)
    ctypes.memmove(to, base + src, len_)


def data_drop(vmctx: int, data_index: int) -> None:
    """Drop a passive data segment: its length becomes 0."""
    instance_of(vmctx).drop_data(data_index)
