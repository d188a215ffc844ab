"""The C memory of an instance: the header, the VMContext, and the arrays that they point to.

An :class:`~asm_libcalls.runtime.instance.Instance` checks its parts, makes one block, and keeps it.
:mod:`asm_libcalls.vmcontext` declares the layout.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.runtime.store_locks import NEVER_FREE
from asm_libcalls.vmcontext import (
    InstanceHeader,
    MemoryPointers,
    VMCallerCheckedAnyfunc,
    VMDataSegment,
    VMFunctionImport,
    VMGlobalImport,
    VMMemoryDefinition,
    VMMemoryImport,
    VMTableImport,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from asm_libcalls.runtime.element_segment import ElementSegment
    from asm_libcalls.runtime.global_ import Global
    from asm_libcalls.runtime.memory import Memory
    from asm_libcalls.runtime.table import Table
    from asm_libcalls.vmcontext import VMOffsets


class InstanceBlock:
    """A header and a VMContext, zero at first; the header has the base of each memory."""

    def __init__(self, offsets: VMOffsets, memory_count: int) -> None:
        self._offsets = offsets
        header_size = -InstanceHeader.memory_pointers_offset(memory_count - 1)
        # The globals in it are 16-aligned by their offsets, so the vmctx must be.
        self._buffer = (ctypes.c_uint8 * (header_size + offsets.size_of_vmctx() + 15))()
        # the address of the VMContext
        self.vmctx = -(-(ctypes.addressof(self._buffer) + header_size) // 16) * 16
        self.header = InstanceHeader.from_address(self.vmctx - ctypes.sizeof(InstanceHeader))

    def adopt_definitions(
        self, memories: Sequence[Memory], tables: Sequence[Table], globals_: Sequence[Global]
    ) -> None:
        """Move the definitions of the parts that this instance defines into the VMContext."""
        offsets, vmctx = self._offsets, self.vmctx
        for i, memory in enumerate(memories):
            at = vmctx + offsets.vmctx_vmmemory_definition(i)
            memory.adopt_definition(at, vmctx, self._buffer)
        for i, table in enumerate(tables):
            at = vmctx + offsets.vmctx_vmtable_definition(i)
            table.adopt_definition(at, vmctx, self._buffer)
        for i, global_ in enumerate(globals_):
            at = vmctx + offsets.vmctx_vmglobal_definition(i)
            global_.adopt_definition(at, vmctx, self._buffer)

    def write_imports(self, imported: Mapping[str, Sequence[Any]]) -> None:
        """Point the imports to the definitions in other instances."""
        offsets = self._offsets
        for i, function in enumerate(imported["functions"]):
            imported_function = VMFunctionImport(function.func_ptr, function.vmctx)
            self._write(offsets.vmctx_vmfunction_import(i), imported_function)
        for i, table in enumerate(imported["tables"]):
            imported_table = VMTableImport(table.share_definition(), table.owner_vmctx)
            self._write(offsets.vmctx_vmtable_import(i), imported_table)
        for i, memory in enumerate(imported["memories"]):
            imported_memory = VMMemoryImport(memory.share_definition(), memory.owner_vmctx)
            self._write(offsets.vmctx_vmmemory_import(i), imported_memory)
        for i, global_ in enumerate(imported["globals"]):
            imported_global = VMGlobalImport(global_.share_definition())
            self._write(offsets.vmctx_vmglobal_import(i), imported_global)

    def write_fixed(
        self, interrupts: int, activations_table: int, registry: int, signature_ids: Sequence[int]
    ) -> None:
        """Write the addresses at fixed offsets, and the signature ids."""
        offsets = self._offsets
        for at, address in (
            (offsets.vmctx_interrupts(), interrupts),
            (offsets.vmctx_externref_activations_table(), activations_table),
            (offsets.vmctx_stack_map_registry(), registry),
        ):
            self._write(at, ctypes.c_size_t(address))
        for i, signature_id in enumerate(signature_ids):
            self._write(offsets.vmctx_vmshared_signature_id(i), ctypes.c_uint32(signature_id))

    def write_header(
        self,
        memories: Sequence[Memory],
        tables: Sequence[Table],
        globals_: Sequence[Global],
        elements: Sequence[ElementSegment],
        data: Sequence[bytes],
    ) -> None:
        """Write the header; each sequence is in index order, imports first."""
        header = self.header
        header.memory_count = len(memories)
        header.imported_memory_count = self._offsets.num_imported_memories
        header.defined_memory_count = self._offsets.num_defined_memories
        header.table_count = len(tables)
        header.element_count = len(elements)
        header.global_count = len(globals_)
        header.data_count = len(data)
        self._write_memories(memories)
        self._write_data(data)
        for table in tables:
            table.state.definition = table.definition_address
        # The arrays have addresses only; these lists keep the structures.
        self._states = [table.state for table in tables]
        self._segment_definitions = [segment.definition for segment in elements]
        self._tables = _addresses(self._states)
        self._elements = _addresses(self._segment_definitions)
        self._externref_globals = _words(
            each.definition_address if each.value_type == "externref" else 0 for each in globals_
        )
        header.tables = ctypes.addressof(self._tables)
        header.elements = ctypes.addressof(self._elements)
        header.externref_globals = ctypes.addressof(self._externref_globals)
        header.store = NEVER_FREE
        header.magic = InstanceHeader.MAGIC

    def _write_memories(self, memories: Sequence[Memory]) -> None:
        # Code of an instance without memories may load the pointers of memory 0.
        self._no_memory = VMMemoryDefinition()
        self._memory_definitions = _words(
            [*(each.definition_address for each in memories), ctypes.addressof(self._no_memory)]
        )
        self._memory_states = [memory.state for memory in memories]
        self._memory_state_addresses = _addresses(self._memory_states)
        for i, memory in enumerate(memories):
            pointers = MemoryPointers(memory.base, memory.definition_address)
            self._write(InstanceHeader.memory_pointers_offset(i), pointers)
        header = self.header
        imported = self._offsets.num_imported_memories * ctypes.sizeof(ctypes.c_size_t)
        header.memories = ctypes.addressof(self._memory_definitions)
        header.defined_memories = header.memories + imported
        header.memory_states = ctypes.addressof(self._memory_state_addresses)
        header.defined_memory_states = header.memory_states + imported

    def _write_data(self, data: Sequence[bytes]) -> None:
        # Copied: c_char_p would end at the first zero byte.
        self._data_buffers = [
            (ctypes.c_uint8 * len(segment)).from_buffer_copy(segment) for segment in data
        ]
        self.data_segments: Any = (VMDataSegment * len(data))(
            *(VMDataSegment(ctypes.addressof(b), len(b)) for b in self._data_buffers)
        )
        self.header.data_segments = ctypes.addressof(self.data_segments)

    def write_functions(self, rows: Sequence[tuple[int, int, int]]) -> range:
        """Write an anyfunc for each (code address, type index, vmctx); return their addresses."""
        first, size = self._offsets.vmctx_anyfunc(0), ctypes.sizeof(VMCallerCheckedAnyfunc)
        anyfuncs = (VMCallerCheckedAnyfunc * len(rows))()
        for anyfunc, row in zip(anyfuncs, rows, strict=True):
            anyfunc.func_ptr, anyfunc.type_index, anyfunc.vmctx = row
        self._write(first, anyfuncs)
        start = self.vmctx + first
        return range(start, start + len(rows) * size, size)

    def write_builtins(self, addresses: Sequence[int]) -> None:
        """Write the addresses of the libcalls."""
        self._write(self._offsets.vmctx_builtin_function(0), _words(addresses))

    def _write(self, offset: int, value: Any) -> None:
        ctypes.memmove(self.vmctx + offset, ctypes.addressof(value), ctypes.sizeof(value))


def _words(values: Iterable[int]) -> Any:
    """Return a C array of words."""
    words = list(values)
    return (ctypes.c_size_t * len(words))(*words)


def _addresses(structs: Iterable[Any]) -> Any:
    """Return a C array with the addresses of C structs."""
    return _words(map(ctypes.addressof, structs))
