"""The layout of Wasmtime 0.22's ``VMContext``, declared once: C structures and ``VMOffsets``.

Compiled code reaches all parts of an instance from one pointer, the vmctx. It points to these
fields, in the order of Wasmtime 0.22 and without padding::

    interrupts*                     -> VMInterrupts
    externref activations table*    -> VMExternRefActivationsTable
    stack map registry*
    signature ids                   u32 each
    imported functions              VMFunctionImport
    imported tables                 VMTableImport
    imported memories               VMMemoryImport
    imported globals                VMGlobalImport
    tables                          VMTableDefinition
    memories                        VMMemoryDefinition
    globals                         VMGlobalDefinition, 16-aligned
    anyfuncs                        VMCallerCheckedAnyfunc, imported functions first
    builtin functions               addresses, in the order of BUILTIN_ARRAY

An :class:`InstanceHeader` *before* the vmctx, where Wasmtime has its ``Instance``, is for this
library's machine code. Pointers are not aligned after an odd number of signature ids, as in
Wasmtime 0.22.

Source: ``wasmtime_environ::vmoffsets`` and ``wasmtime_runtime::vmcontext`` of Wasmtime 0.22.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.signatures.arguments import integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    _Offset = Callable[["VMOffsets"], int]

_MOST = (1 << 32) - 1
"""The most parts of a kind."""

_pointer = ctypes.c_size_t
_POINTER_SIZE = ctypes.sizeof(_pointer)


class VMInterrupts(ctypes.Structure):
    """The stack limit that each function's prologue checks. Changing it stops running code."""

    __slots__ = ()

    STOP = (1 << 64) - 1  # no stack pointer is that high
    """A stack limit above every stack pointer: code stops at its next check."""

    _fields_ = [
        # the lowest stack pointer that code may have; STOP to make it stop
        ("stack_limit", _pointer),
        # the limit by the thread's stack; an addition to Wasmtime's structure
        ("native_stack_limit", _pointer),
    ]


class VMFunctionImport(ctypes.Structure):
    """An imported function: its code, and the vmctx to call it with."""

    _fields_ = [("body", _pointer), ("vmctx", _pointer)]


class VMTableImport(ctypes.Structure):
    """An imported table: its definition, and the vmctx of the instance that owns it."""

    _fields_ = [("from_", _pointer), ("vmctx", _pointer)]


class VMMemoryImport(ctypes.Structure):
    """An imported memory: its definition, and the vmctx of the instance that owns it."""

    _fields_ = [("from_", _pointer), ("vmctx", _pointer)]


class VMGlobalImport(ctypes.Structure):
    """An imported global: its definition."""

    _fields_ = [("from_", _pointer)]


class VMTableDefinition(ctypes.Structure):
    """A table: its elements (pointers), and how many."""

    _fields_ = [
        ("base", _pointer),
        ("current_elements", ctypes.c_uint32),
        ("_padding", ctypes.c_uint8 * (_POINTER_SIZE - 4)),
    ]


WASM_PAGE_SHIFT = 16
WASM_PAGE_SIZE = 1 << WASM_PAGE_SHIFT
"""Bytes of a page of a linear memory."""

MAXIMUM_PAGES = 1 << 16
"""The most pages that a 32-bit memory can have: 4 GiB."""


class VMMemoryDefinition(ctypes.Structure):
    """A linear memory: its first byte, and its length in bytes."""

    _fields_ = [("base", _pointer), ("current_length", _pointer)]


class VMGlobalDefinition(ctypes.Structure):
    """A global: 16 bytes, the value in the first ones, little-endian as the CPU is.

    The upper 8 bytes of a reference are :attr:`CLOSED` once the global is closed, else 0.
    """

    CLOSED = 1

    _fields_ = [("storage", ctypes.c_uint64 * 2)]


class VMCallerCheckedAnyfunc(ctypes.Structure):
    """A function reference: code, the type that a caller checks, and the vmctx to call it with."""

    _fields_ = [
        ("func_ptr", _pointer),
        ("type_index", ctypes.c_uint32),
        ("_padding", ctypes.c_uint8 * (_POINTER_SIZE - 4)),
        ("vmctx", _pointer),
    ]


class VMExternData(ctypes.Structure):
    """The box of an externref: its reference count, and the Python object (``PyObject*``)."""

    _fields_ = [("ref_count", _pointer), ("value", _pointer)]


class VMExternBox(VMExternData):
    """A box, with two fields in addition to Wasmtime's: machine code makes and drops boxes."""

    # `cell`, `key`: the cell that owns the value, and the box's address as an int: two PyObject*,
    # which are never freed
    _fields_ = [("cell", _pointer), ("key", _pointer)]


class VMSpareBoxes(ctypes.Structure):
    """Boxes without a count that machine code takes next, the last one first."""

    MOST = 64

    _fields_ = [("count", _pointer), ("boxes", _pointer * MOST)]


class VMDataSegment(ctypes.Structure):
    """A passive data segment: its first byte, and its length in bytes (0 once dropped)."""

    _fields_ = [("base", _pointer), ("length", _pointer)]


class VMElementSegment(ctypes.Structure):
    """A passive element segment, an addition to Wasmtime's structures."""

    FUNCREF, EXTERNREF = 1, 2

    _fields_ = [
        ("base", _pointer),  # its references
        ("length", _pointer),  # how many; 0 once it is dropped
        ("keepers", _pointer),  # the set of instances that it keeps alive: see VMTableState
        ("kind", ctypes.c_uint32),  # FUNCREF or EXTERNREF
        # 1 if it keeps other instances alive until it is dropped
        ("drops_in_python", ctypes.c_uint32),
    ]


class VMMemoryState(ctypes.Structure):
    """A memory, for this library's machine code; an addition to Wasmtime's structures."""

    # machine code may let it grow to any length below this, in bytes; 0 if Python must decide
    _fields_ = [("grows_below", _pointer)]


class VMTableState(ctypes.Structure):
    """A table, for this library's machine code; an addition to Wasmtime's structures."""

    _fields_ = [
        ("definition", _pointer),  # its VMTableDefinition
        # the set of instances that it keeps alive for its functions: 0 for none; equal numbers mean
        # equal sets
        ("keepers", _pointer),
        ("kept_keepers", _pointer),  # the number of another set that it keeps alive too
        # machine code may let it grow to any size below this, in elements; 0 if Python must decide
        ("grows_below", _pointer),
        # `functions_from`, `functions_to`: an instance that it keeps alive has the function
        # references between these addresses
        ("functions_from", _pointer),
        ("functions_to", _pointer),
        ("kind", _pointer),  # VMElementSegment.FUNCREF or `EXTERNREF`; 0 once it is closed
    ]


class MemoryPointers(ctypes.Structure):
    """The addresses of a memory. They never change."""

    # `base`, `definition`: its first byte, and its `VMMemoryDefinition`
    _fields_ = [("base", _pointer), ("definition", _pointer)]


class InstanceHeader(ctypes.Structure):
    """The fields right before a vmctx, for this library's machine code; their offsets are negative.

    Below it is a :class:`MemoryPointers` for each memory, downwards by memory index. They save two
    of three loads before an access to a byte, and one of three for the length. That matters on a
    CPU with Speculative Store Bypass disabled: each load waits until the addresses of all earlier
    stores are known, and delays all that follows.
    """

    MAGIC = 0x6D736163_76786D76  # "vmxvcasm"

    _fields_ = [
        # `memory_states`, `defined_memory_states`: arrays of `VMMemoryState*` by memory index, and
        # by defined memory index
        ("memory_states", _pointer),
        ("defined_memory_states", _pointer),
        ("tables", _pointer),  # array of `VMTableState*` by table index
        ("elements", _pointer),  # array of `VMElementSegment*` by element index
        # array of `VMGlobalDefinition*` by global index, 0 for globals of other types
        ("externref_globals", _pointer),
        # `table_count`, `element_count`, `global_count`: the number of each, to check an index
        ("table_count", _pointer),
        ("element_count", _pointer),
        ("global_count", _pointer),
        ("memories", _pointer),  # array of `VMMemoryDefinition*` by memory index, imports first
        # the same array from the first defined memory on, so by defined memory index
        ("defined_memories", _pointer),
        ("data_segments", _pointer),  # array of VMDataSegment by data index
        # `memory_count`, `imported_memory_count`, `defined_memory_count`, `data_count`: the number
        # of each, to check an index
        ("memory_count", _pointer),
        ("imported_memory_count", _pointer),
        ("defined_memory_count", _pointer),
        ("data_count", _pointer),
        # the StoreLock of its store, in builds without the GIL
        ("store", _pointer),
        ("magic", ctypes.c_uint64),  # MAGIC while the instance is open, 0 once it is closed
    ]

    @classmethod
    def offset_from_vmctx(cls, field: str) -> int:
        """Return the offset of a field from the vmctx in bytes: a negative number."""
        offset: int = getattr(cls, field).offset
        return offset - ctypes.sizeof(cls)

    @classmethod
    def memory_pointers_offset(cls, index: int) -> int:
        """Return the offset of a memory's pointers from the vmctx in bytes, by memory index."""
        return -ctypes.sizeof(cls) - (index + 1) * ctypes.sizeof(MemoryPointers)


def _checked(index: int, count: int) -> int:
    if type(index) is int and 0 <= index <= count:
        return index
    where = f"VMOffsets: the index of one of {count} parts"
    return integer(index, where, "an integer", 0, count)


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _bytes(doc: str, pointers: int, fixed: int = 0) -> _Offset:
    """Make a method that returns `fixed`, and the bytes of some pointers."""

    def offset(self: VMOffsets) -> int:
        return pointers * self.pointer_size + fixed

    offset.__doc__ = doc
    return offset


def _size(structure: str, pointers: int, fixed: int = 0) -> _Offset:
    return _bytes(f"Bytes of a {structure}.", pointers, fixed)


def _field(structure: str, field: str, pointers: int) -> _Offset:
    """Make the method of a field, which has this number of pointers before it."""
    return _bytes(f"Offset of ``{field}`` in a {structure}.", pointers)


class VMOffsets:
    """The offset of each part of a VMContext, in bytes from the vmctx. Names as in Wasmtime 0.22.

    Parameters
    ----------
    num_signature_ids, num_imported_functions, num_imported_tables, num_imported_memories, \
num_imported_globals, num_defined_functions, num_defined_tables, num_defined_memories, \
num_defined_globals : int
        The numbers in the module.
    pointer_size : int, optional
        Bytes of a pointer; by default this machine's, as in the C structures of this module.

    Raises
    ------
    TypeError, ValueError
        A number is no integer, or negative; an index, which the methods take, is that of no part.

    Examples
    --------
    >>> offsets = VMOffsets(num_defined_memories=1)
    >>> offsets.vmctx_vmmemory_definition(0), offsets.size_of_vmctx()
    (24, 208)
    """

    __slots__ = (
        "num_defined_functions",
        "num_defined_globals",
        "num_defined_memories",
        "num_defined_tables",
        "num_imported_functions",
        "num_imported_globals",
        "num_imported_memories",
        "num_imported_tables",
        "num_signature_ids",
        "pointer_size",
    )

    def __init__(
        self,
        *,
        num_signature_ids: int = 0,
        num_imported_functions: int = 0,
        num_imported_tables: int = 0,
        num_imported_memories: int = 0,
        num_imported_globals: int = 0,
        num_defined_functions: int = 0,
        num_defined_tables: int = 0,
        num_defined_memories: int = 0,
        num_defined_globals: int = 0,
        pointer_size: int = _POINTER_SIZE,
    ) -> None:
        self.num_signature_ids = num_signature_ids
        self.num_imported_functions = num_imported_functions
        self.num_imported_tables = num_imported_tables
        self.num_imported_memories = num_imported_memories
        self.num_imported_globals = num_imported_globals
        self.num_defined_functions = num_defined_functions
        self.num_defined_tables = num_defined_tables
        self.num_defined_memories = num_defined_memories
        self.num_defined_globals = num_defined_globals
        self.pointer_size = pointer_size
        for name in self.__slots__:
            number = integer(getattr(self, name), f"VMOffsets(): {name}", "an integer", 0, _MOST)
            setattr(self, name, number)

    def _num_functions(self) -> int:
        return self.num_imported_functions + self.num_defined_functions

    # Sizes, and offsets inside each structure.

    size_of_vmshared_signature_index = _bytes("Bytes of a signature id.", 0, 4)
    size_of_vmfunction_import = _size("VMFunctionImport", 2)
    vmfunction_import_body = _field("VMFunctionImport", "body", 0)
    vmfunction_import_vmctx = _field("VMFunctionImport", "vmctx", 1)
    size_of_vmtable_import = _size("VMTableImport", 2)
    vmtable_import_from = _field("VMTableImport", "from", 0)
    vmtable_import_vmctx = _field("VMTableImport", "vmctx", 1)
    size_of_vmmemory_import = _size("VMMemoryImport", 2)
    vmmemory_import_from = _field("VMMemoryImport", "from", 0)
    vmmemory_import_vmctx = _field("VMMemoryImport", "vmctx", 1)
    size_of_vmglobal_import = _size("VMGlobalImport", 1)
    vmglobal_import_from = _field("VMGlobalImport", "from", 0)
    size_of_vmtable_definition = _size("VMTableDefinition", 2)
    vmtable_definition_base = _field("VMTableDefinition", "base", 0)
    vmtable_definition_current_elements = _field("VMTableDefinition", "current_elements", 1)
    size_of_vmmemory_definition = _size("VMMemoryDefinition", 2)
    vmmemory_definition_base = _field("VMMemoryDefinition", "base", 0)
    vmmemory_definition_current_length = _field("VMMemoryDefinition", "current_length", 1)
    size_of_vmglobal_definition = _size("VMGlobalDefinition", 0, 16)
    size_of_vmcaller_checked_anyfunc = _size("VMCallerCheckedAnyfunc", 3)
    vmcaller_checked_anyfunc_func_ptr = _field("VMCallerCheckedAnyfunc", "func_ptr", 0)
    vmcaller_checked_anyfunc_type_index = _field("VMCallerCheckedAnyfunc", "type_index", 1)
    vmcaller_checked_anyfunc_vmctx = _field("VMCallerCheckedAnyfunc", "vmctx", 2)
    vminterrupts_stack_limit = _field("VMInterrupts", "stack_limit", 0)
    vm_extern_data_ref_count = _field("VMExternData", "ref_count", 0)
    vm_extern_ref_activation_table_next = _field("VMExternRefActivationsTable", "next", 0)
    vm_extern_ref_activation_table_end = _field("VMExternRefActivationsTable", "end", 1)

    # The VMContext, from its start to its end.

    def vmctx_interrupts(self) -> int:
        """Offset of the VMInterrupts pointer."""
        return 0

    def vmctx_externref_activations_table(self) -> int:
        """Offset of the VMExternRefActivationsTable pointer."""
        return self.pointer_size

    def vmctx_stack_map_registry(self) -> int:
        """Offset of the stack map registry pointer."""
        return 2 * self.pointer_size

    def vmctx_signature_ids_begin(self) -> int:
        """Offset of the signature ids."""
        return 3 * self.pointer_size

    def vmctx_imported_functions_begin(self) -> int:
        """Offset of the imported functions."""
        return self.vmctx_vmshared_signature_id(self.num_signature_ids)

    def vmctx_imported_tables_begin(self) -> int:
        """Offset of the imported tables."""
        return self.vmctx_vmfunction_import(self.num_imported_functions)

    def vmctx_imported_memories_begin(self) -> int:
        """Offset of the imported memories."""
        return self.vmctx_vmtable_import(self.num_imported_tables)

    def vmctx_imported_globals_begin(self) -> int:
        """Offset of the imported globals."""
        return self.vmctx_vmmemory_import(self.num_imported_memories)

    def vmctx_tables_begin(self) -> int:
        """Offset of the defined tables."""
        return self.vmctx_vmglobal_import(self.num_imported_globals)

    def vmctx_memories_begin(self) -> int:
        """Offset of the defined memories."""
        return self.vmctx_vmtable_definition(self.num_defined_tables)

    def vmctx_globals_begin(self) -> int:
        """Offset of the defined globals."""
        return _align(self.vmctx_vmmemory_definition(self.num_defined_memories), 16)

    def vmctx_anyfuncs_begin(self) -> int:
        """Offset of the anyfuncs."""
        return self.vmctx_vmglobal_definition(self.num_defined_globals)

    def vmctx_builtin_functions_begin(self) -> int:
        """Offset of the builtin array."""
        return self.vmctx_anyfunc(self._num_functions())

    def size_of_vmctx(self) -> int:
        """Bytes of the VMContext."""
        return self.vmctx_builtin_function(len(BUILTIN_ARRAY))

    # One part by its index; one past the last gives the array's end.

    def vmctx_vmshared_signature_id(self, index: int) -> int:
        """Offset of a signature id."""
        index = _checked(index, self.num_signature_ids)
        return self.vmctx_signature_ids_begin() + index * self.size_of_vmshared_signature_index()

    def vmctx_vmfunction_import(self, index: int) -> int:
        """Offset of an imported function, by function index."""
        index = _checked(index, self.num_imported_functions)
        return self.vmctx_imported_functions_begin() + index * self.size_of_vmfunction_import()

    def vmctx_vmfunction_import_body(self, index: int) -> int:
        """Offset of an imported function's code pointer."""
        return self.vmctx_vmfunction_import(index) + self.vmfunction_import_body()

    def vmctx_vmfunction_import_vmctx(self, index: int) -> int:
        """Offset of an imported function's vmctx."""
        return self.vmctx_vmfunction_import(index) + self.vmfunction_import_vmctx()

    def vmctx_vmtable_import(self, index: int) -> int:
        """Offset of an imported table, by table index."""
        index = _checked(index, self.num_imported_tables)
        return self.vmctx_imported_tables_begin() + index * self.size_of_vmtable_import()

    def vmctx_vmtable_import_from(self, index: int) -> int:
        """Offset of an imported table's definition pointer."""
        return self.vmctx_vmtable_import(index) + self.vmtable_import_from()

    def vmctx_vmmemory_import(self, index: int) -> int:
        """Offset of an imported memory, by memory index."""
        index = _checked(index, self.num_imported_memories)
        return self.vmctx_imported_memories_begin() + index * self.size_of_vmmemory_import()

    def vmctx_vmmemory_import_from(self, index: int) -> int:
        """Offset of an imported memory's definition pointer."""
        return self.vmctx_vmmemory_import(index) + self.vmmemory_import_from()

    def vmctx_vmmemory_import_vmctx(self, index: int) -> int:
        """Offset of an imported memory's owning vmctx."""
        return self.vmctx_vmmemory_import(index) + self.vmmemory_import_vmctx()

    def vmctx_vmglobal_import(self, index: int) -> int:
        """Offset of an imported global, by global index."""
        index = _checked(index, self.num_imported_globals)
        return self.vmctx_imported_globals_begin() + index * self.size_of_vmglobal_import()

    def vmctx_vmglobal_import_from(self, index: int) -> int:
        """Offset of an imported global's definition pointer."""
        return self.vmctx_vmglobal_import(index) + self.vmglobal_import_from()

    def vmctx_vmtable_definition(self, index: int) -> int:
        """Offset of a table, by defined table index."""
        index = _checked(index, self.num_defined_tables)
        return self.vmctx_tables_begin() + index * self.size_of_vmtable_definition()

    def vmctx_vmtable_definition_base(self, index: int) -> int:
        """Offset of a table's element pointer, by defined table index."""
        return self.vmctx_vmtable_definition(index) + self.vmtable_definition_base()

    def vmctx_vmtable_definition_current_elements(self, index: int) -> int:
        """Offset of a table's size, by defined table index."""
        return self.vmctx_vmtable_definition(index) + self.vmtable_definition_current_elements()

    def vmctx_vmmemory_definition(self, index: int) -> int:
        """Offset of a memory, by defined memory index."""
        index = _checked(index, self.num_defined_memories)
        return self.vmctx_memories_begin() + index * self.size_of_vmmemory_definition()

    def vmctx_vmmemory_definition_base(self, index: int) -> int:
        """Offset of a memory's base pointer, by defined memory index."""
        return self.vmctx_vmmemory_definition(index) + self.vmmemory_definition_base()

    def vmctx_vmmemory_definition_current_length(self, index: int) -> int:
        """Offset of a memory's length, by defined memory index."""
        return self.vmctx_vmmemory_definition(index) + self.vmmemory_definition_current_length()

    def vmctx_vmglobal_definition(self, index: int) -> int:
        """Offset of a global, by defined global index."""
        index = _checked(index, self.num_defined_globals)
        return self.vmctx_globals_begin() + index * self.size_of_vmglobal_definition()

    def vmctx_anyfunc(self, index: int) -> int:
        """Offset of an anyfunc, by function index."""
        index = _checked(index, self._num_functions())
        return self.vmctx_anyfuncs_begin() + index * self.size_of_vmcaller_checked_anyfunc()

    def vmctx_builtin_function(self, index: int) -> int:
        """Offset of a slot of the builtin array."""
        index = _checked(index, len(BUILTIN_ARRAY))
        return self.vmctx_builtin_functions_begin() + index * self.pointer_size


for _name, _method in vars(VMOffsets).items():
    if isinstance(_method, type(_bytes)) and not _name.startswith("_"):
        _method.__name__, _method.__qualname__ = _name, f"VMOffsets.{_name}"
