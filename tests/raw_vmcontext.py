"""A VMContext made by hand: memories and segments at addresses that a test chooses, no Instance."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

from asm_libcalls.emitter import libc
from asm_libcalls.vmcontext import (
    InstanceHeader,
    MemoryPointers,
    VMDataSegment,
    VMMemoryDefinition,
)

POINTER = ctypes.sizeof(ctypes.c_size_t)


class GuardedPages:
    """Readable and writable pages with a page on either side that faults."""

    def __init__(self, size: int) -> None:
        self.size = -(-size // libc.PAGE_SIZE) * libc.PAGE_SIZE
        self._start = libc.mmap(self.size + 2 * libc.PAGE_SIZE, libc.PROT_NONE)
        self.address = self._start + libc.PAGE_SIZE
        libc.mprotect(self.address, self.size, libc.PROT_READ | libc.PROT_WRITE)

    def __del__(self) -> None:
        libc.munmap([(self._start, self.size + 2 * libc.PAGE_SIZE)])

    def write(self, content: bytes, offset: int = 0) -> None:
        assert offset + len(content) <= self.size
        ctypes.memmove(self.address + offset, content, len(content))

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        return ctypes.string_at(self.address + offset, self.size - offset if size is None else size)


class RawVMContext:
    """The header of an instance, its memories and its data segments, each an address and a length.

    So many memories, from the first on, are imported.
    """

    def __init__(
        self,
        memories: Sequence[tuple[int, int]],
        imported: int = 0,
        segments: Iterable[tuple[int, int]] = (),
    ) -> None:
        count = len(memories)
        self.definitions = (VMMemoryDefinition * count)(*memories)
        at = ctypes.addressof(self.definitions)
        stride = ctypes.sizeof(VMMemoryDefinition)
        self._pointers = (ctypes.c_size_t * count)(*range(at, at + count * stride, stride))
        self.segments = (VMDataSegment * len(rows := list(segments)))(*rows)
        below = -InstanceHeader.memory_pointers_offset(count - 1)
        self._block = ctypes.create_string_buffer(below + 64)
        self.vmctx = ctypes.addressof(self._block) + below
        for i, (address, _) in enumerate(memories):
            pointers = self.vmctx + InstanceHeader.memory_pointers_offset(i)
            MemoryPointers.from_address(pointers).base = address
            MemoryPointers.from_address(pointers).definition = at + i * stride
        header = InstanceHeader.from_address(self.vmctx - ctypes.sizeof(InstanceHeader))
        header.memories = ctypes.addressof(self._pointers)
        header.defined_memories = header.memories + imported * POINTER
        header.data_segments = ctypes.addressof(self.segments)
        header.magic = InstanceHeader.MAGIC
