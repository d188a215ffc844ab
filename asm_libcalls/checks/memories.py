"""Checks of the memory libcalls, in an instance of three memories and three data segments.

The model uses bytearrays and slices; the implementations move bytes by address. Source: WebAssembly
2.0, 4.4.7 (memory instructions) and 4.5.3.9 (growing memories).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import ClassVar

from asm_libcalls.checks.scenes import U32_MAXIMUM, Model, Scene, SceneChecker, State
from asm_libcalls.libcall import Libcall
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.traps import HeapOutOfBounds
from asm_libcalls.vmcontext import WASM_PAGE_SIZE

LIMITS = ((1, 3), (1, 2), (0, 1))
"""Each memory's first and largest size in pages; the first one is imported."""

IMPORTED = 1

SEGMENTS = (bytes(range(1, 201)), b"", bytes(64))
DROPPED = 2
"""The data segment that is dropped before the call."""

_CONTENT = bytes((i * 7 + (i >> 8) + 1) & 0xFF for i in range(WASM_PAGE_SIZE))
_FIRST = tuple(bytes(i ^ b for b in _CONTENT) * pages for i, (pages, _) in enumerate(LIMITS))


class _MemoryScene(Scene):
    """An instance that imports the first memory and defines the others."""

    def __init__(self) -> None:
        self._make()

    def _make(self) -> None:
        memories = [Memory(*limits) for limits in LIMITS]
        self._owner = Instance(memories=memories[:IMPORTED])
        self._instance = Instance(
            memories=memories[IMPORTED:], imports={"memories": memories[:IMPORTED]}, data=SEGMENTS
        )
        self._instance.drop_data(DROPPED)
        self._write()
        self._first = self.state()

    def _write(self) -> None:
        for memory, content in zip(self._instance.memories, _FIRST, strict=True):
            ctypes.memmove(memory.base, content, len(content))

    def reset(self) -> None:
        """Write the contents; make a new instance if a memory grew or a segment was dropped."""
        if self.state() != self._first:
            self._write()
            if self.state() != self._first:
                self._make()

    def patterns(self, libcall: Libcall, case: Sequence[int]) -> list[int]:
        return [self._instance.vmctx, *case]

    def state(self) -> State:
        contents = (
            (f"memory {i}", ctypes.string_at(memory.base, len(memory)))
            for i, memory in enumerate(self._instance.memories)
        )
        lengths = (
            (f"data segment {i}", self._instance.data_segment(i)[1]) for i in range(len(SEGMENTS))
        )
        return (*contents, *lengths)


class _MemoryModel(Model):
    """The scene as bytearrays."""

    def __init__(self) -> None:
        self.memories = [bytearray(content) for content in _FIRST]
        self.segments = [b"" if i == DROPPED else s for i, s in enumerate(SEGMENTS)]

    def state(self) -> State:
        contents = ((f"memory {i}", bytes(memory)) for i, memory in enumerate(self.memories))
        lengths = ((f"data segment {i}", len(s)) for i, s in enumerate(self.segments))
        return (*contents, *lengths)

    def imported_memory32_grow(self, delta: int, index: int) -> int:
        before = self.imported_memory32_size(index)
        if before + delta > LIMITS[index][1]:
            return U32_MAXIMUM
        self.memories[index] += bytes(delta * WASM_PAGE_SIZE)
        return before

    def memory32_grow(self, delta: int, index: int) -> int:
        return self.imported_memory32_grow(delta, IMPORTED + index)

    def imported_memory32_size(self, index: int) -> int:
        return len(self.memories[index]) // WASM_PAGE_SIZE

    def memory32_size(self, index: int) -> int:
        return self.imported_memory32_size(IMPORTED + index)

    def memory_copy(self, to: int, dst: int, source: int, src: int, count: int) -> None:
        """Copy a slice. All bytes are read before any is written, so overlaps do not matter."""
        self._write(to, dst, count, _slice(self.memories[source], src, count))

    def imported_memory_fill(self, index: int, dst: int, val: int, count: int) -> None:
        fits = dst + count <= len(self.memories[index])
        self._write(index, dst, count, bytes([val % 256]) * (count if fits else 0))

    def memory_fill(self, index: int, dst: int, val: int, count: int) -> None:
        self.imported_memory_fill(IMPORTED + index, dst, val, count)

    def memory_init(self, index: int, segment: int, dst: int, src: int, count: int) -> None:
        self._write(index, dst, count, _slice(self.segments[segment], src, count))

    def data_drop(self, segment: int) -> None:
        self.segments[segment] = b""

    def _write(self, index: int, dst: int, count: int, content: bytes) -> None:
        _slice(self.memories[index], dst, count)
        self.memories[index][dst : dst + count] = content


def _slice(memory: bytes | bytearray, start: int, count: int) -> bytes:
    if start > len(memory) or count > len(memory) - start:
        raise HeapOutOfBounds
    return bytes(memory[start : start + count])


class _MemoryChecker(SceneChecker):
    """Memories: both sides of each bound, overlaps both ways, sums beyond 32 bits."""

    scene = _MemoryScene
    model = _MemoryModel
    values: ClassVar[Mapping[str, Sequence[int]]] = {
        "delta": (0, 1, 2, 3, 65535, 65536, U32_MAXIMUM),
        "defined_memory_index": range(len(LIMITS) - IMPORTED),
        "memory_index": range(len(LIMITS)),
        "dst_memory_index": (0, 1, 2),
        "src_memory_index": (0, 1, 2),
        "data_index": range(len(SEGMENTS)),
        "dst": (0, 3, WASM_PAGE_SIZE - 200, WASM_PAGE_SIZE, U32_MAXIMUM),
        "src": (0, 1, 199, U32_MAXIMUM),
        "len": (0, 1, 200, 201, WASM_PAGE_SIZE, U32_MAXIMUM),
        "val": (0, 0x5A, 0xFFFFFF01, U32_MAXIMUM),
    }
    between: ClassVar[Mapping[str, int]] = {"dst": 17, "src": 17, "len": 17, "val": 32}

    def choices(self, libcall: Libcall, parameter: str) -> Sequence[int]:
        """Return the values; a libcall on an imported memory gets imported indices only."""
        if parameter == "memory_index" and libcall.name.startswith("imported_"):
            return range(IMPORTED)
        return super().choices(libcall, parameter)

    def is_legal(self, libcall: Libcall, case: Sequence[int]) -> bool:
        """Leave out most pairs of memories: bounds and overlaps are the same in all pairs."""
        return libcall.name != "memory_copy" or (case[0], case[2]) in PAIRS


PAIRS = {(0, 1), (1, 1), (1, 2), (2, 0)}
"""Pairs of memories to copy between: imported, the same one, and empty, on either side."""

CHECKER = _MemoryChecker()
