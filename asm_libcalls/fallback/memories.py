"""The memory libcalls: grow, size, copy, fill, init and drop.

Indices are of the instance's index spaces: a ``defined_memory_index`` counts from the first memory
defined there, a ``memory_index`` from the first import. Bounds are checked before the first byte
is written, and sums do not wrap, since Python's integers do not.

Source: WebAssembly 2.0, 4.4.7 (memory instructions); ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.runtime.instance import instance_of
from asm_libcalls.traps import HeapOutOfBounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.runtime.memory import Memory

__all__ = [
    "data_drop",
    "imported_memory32_grow",
    "imported_memory32_size",
    "imported_memory_fill",
    "memory32_grow",
    "memory32_size",
    "memory_copy",
    "memory_fill",
    "memory_init",
]

_REFUSED = 0xFFFFFFFF


def _memory(vmctx: int, memory_index: int) -> Memory:
    return instance_of(vmctx).memories[memory_index]


def _defined_memory(vmctx: int, defined_memory_index: int) -> Memory:
    instance = instance_of(vmctx)
    return instance.memories[instance.offsets.num_imported_memories + defined_memory_index]


def _check_range(length: int, start: int, count: int) -> None:
    if start + count > length:
        raise HeapOutOfBounds


def memory32_grow(vmctx: int, delta: int, defined_memory_index: int) -> int:
    """Grow a defined memory by delta pages; the previous size, or 0xFFFFFFFF."""
    return _defined_memory(vmctx, defined_memory_index).grow(delta) & _REFUSED


def imported_memory32_grow(vmctx: int, delta: int, memory_index: int) -> int:
    """Grow an imported memory by delta pages; the previous size, or 0xFFFFFFFF."""
    return _memory(vmctx, memory_index).grow(delta) & _REFUSED


def memory32_size(vmctx: int, defined_memory_index: int) -> int:
    """Return the size of a defined memory, in pages of 64 KiB."""
    return _defined_memory(vmctx, defined_memory_index).size


def imported_memory32_size(vmctx: int, memory_index: int) -> int:
    """Return the size of an imported memory, in pages of 64 KiB."""
    return _memory(vmctx, memory_index).size


def memory_copy(
    vmctx: int, dst_memory_index: int, dst: int, src_memory_index: int, src: int, len_: int
) -> None:
    """Copy bytes within or between memories; the ranges may overlap."""
    destination, source = _memory(vmctx, dst_memory_index), _memory(vmctx, src_memory_index)
    _check_range(len(source), src, len_)
    _check_range(len(destination), dst, len_)
    ctypes.memmove(destination.base + dst, source.base + src, len_)


def _fill(memory: Memory, dst: int, val: int, len_: int) -> None:
    _check_range(len(memory), dst, len_)
    ctypes.memset(memory.base + dst, val & 0xFF, len_)


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
    memory = _memory(vmctx, memory_index)
    base, length = instance_of(vmctx).data_segment(data_index)
    _check_range(length, src, len_)
    _check_range(len(memory), dst, len_)
    ctypes.memmove(memory.base + dst, base + src, len_)


def data_drop(vmctx: int, data_index: int) -> None:
    """Drop a passive data segment: its length becomes 0."""
    instance_of(vmctx).drop_data(data_index)
