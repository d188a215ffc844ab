"""Instance: one VMContext, kept alive with everything that native code can reach from it.

It is built from parts, not from a Wasm module: a JIT decides the parts. Index spaces put imports
first, as in WebAssembly. An imported part stays in the instance that defined it.
"""

from __future__ import annotations

import ctypes
import weakref
from functools import partial

from asm_libcalls.native import process
from asm_libcalls.owned import not_made, raise_first
from asm_libcalls.owned.objects import is_a, unmade
from asm_libcalls.runtime import instance_arguments, kept_instances, releasing
from asm_libcalls.runtime.activations_table import VMExternRefActivationsTable
from asm_libcalls.runtime.funcref import FuncRef, make_references
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.instance_block import InstanceBlock
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.stack_maps import StackMapRegistry
from asm_libcalls.runtime.store import Store, Stored, link
from asm_libcalls.runtime.store_entries import call_inside, inside, inside_or_later
from asm_libcalls.runtime.store_locks import NEVER_FREE
from asm_libcalls.runtime.table import Table
from asm_libcalls.signatures.arguments import counted, integer, shown_address, type_shown
from asm_libcalls.vmcontext import VMInterrupts, VMOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    class Binding(Protocol):
        """The addresses of the libcalls."""

        def builtin_addresses(self) -> list[int]:
            """Return the C addresses in the order of the builtin array; empty for none."""


DEFAULT_STACK_MAP_REGISTRY = StackMapRegistry()
DEFAULT_STACK_MAP_REGISTRY.is_shared = True
"""The default registry of instances: one for the process, as code addresses are."""

_live: weakref.WeakValueDictionary[int, Instance] = weakref.WeakValueDictionary()


class _Interrupts(VMInterrupts):
    """The VMInterrupts of an instance, whose fields users set."""

    __slots__ = ()

    def __setattr__(self, name: str, value: Any) -> None:
        # ctypes would take any int, and drop the bits that do not fit.
        super().__setattr__(name, integer(value, f"interrupts.{name}", "an address", 0, _HIGHEST))


_HIGHEST = VMInterrupts.STOP


class Instance(Stored):
    """An instance of a WebAssembly module, for native code to run in.

    Parameters
    ----------
    memories, tables, globals : sequence of Memory, Table, Global
        The definitions of this instance. Each can be defined by one instance only.
    functions : sequence of (int, int)
        Its own functions: the C address of the code, and the type index that ``call_indirect``
        compares.
    data : sequence of bytes-like
        Its passive data segments.
    elements : sequence of ElementSegment or (str, iterable)
        Its passive element segments.
    imports : mapping of str to sequence, optional
        Its imports, by ``"functions"`` (FuncRef), ``"tables"``, ``"memories"`` and ``"globals"``,
        each in index order.
    signature_ids : sequence of int
        The type index of each of the module's types.
    stack_map_registry : StackMapRegistry, optional
        Where the GC finds stack maps; by default one that the whole process shares.
    function_class : type
        The class of `functions`: FuncRef, or a JIT's subclass.
    binding : Binding, optional
        The libcalls in the builtin array; by default those of ``asm_libcalls``.

    Attributes
    ----------
    vmctx : int
        The address of the VMContext: the first argument of every function of the instance.
    offsets : VMOffsets
        The layout of the VMContext.
    memories, tables, globals : list
        In index order, imports first.
    functions : list of FuncRef
        In index order, imports first.
    data : list of bytes
        The passive data segments as they were given.
    elements : list of ElementSegment
        The passive element segments; a dropped one is empty.
    activations_table : VMExternRefActivationsTable
    stack_map_registry : StackMapRegistry
    keeper_number : int
        The number of the set that has only this instance: see
        :mod:`asm_libcalls.runtime.kept_instances`.
    function_range : (int, int)
        Its VMCallerCheckedAnyfuncs: the address of the first, and the address after the last.
    interrupts : VMInterrupts
        Its ``stack_limit`` is 0 at first, which no stack reaches; code with stack checks sets it.

    Raises
    ------
    TypeError, ValueError
        A part of the wrong kind, or one that cannot be used so; the message says which.
    """

    _block: InstanceBlock = unmade()
    _last_vmctx = 0  # the vmctx before it was closed

    # Members at fixed offsets in the object, because machine code reads `_vmctx`. Without the GIL
    # another thread may close the instance meanwhile; `_vmctx_kept` then keeps the int object.
    __slots__ = ("_vmctx", "_vmctx_kept")

    def __init__(
        self,
        memories: Sequence[Memory] = (),
        tables: Sequence[Table] = (),
        globals: Sequence[Global] = (),  # noqa: A002 (WebAssembly's name)
        functions: Sequence[tuple[int, int]] = (),
        data: Sequence[Any] = (),
        elements: Sequence[Any] = (),
        imports: Mapping[str, Sequence[Any]] | None = None,
        *,
        signature_ids: Sequence[int] = (),
        stack_map_registry: StackMapRegistry | None = None,
        function_class: type[FuncRef] = FuncRef,
        binding: Binding | None = None,
    ) -> None:
        self._begin()
        # Set here, not in the finalizer: see Owned._begin.
        self._last_vmctx = 0
        self._releases = self._released = False
        # `_is_used`, `_used`: for the release, as `is_used` and `kept` of releasing.Borrowed
        self._is_used: Callable[[], bool] | None = None
        self._used: tuple[object, ...] = ()
        self._vmctx = 0
        self._function_class = instance_arguments.function_class(function_class)
        # Everything is checked before any part is changed, so parts can be reused after an error.
        imported = instance_arguments.imported_parts(imports)
        defined_memories = instance_arguments.defined_parts(memories, Memory, "memories")
        defined_tables = instance_arguments.defined_parts(tables, Table, "tables")
        defined_globals = instance_arguments.defined_parts(globals, Global, "globals")
        defined_functions = instance_arguments.functions(functions)
        signature_ids = instance_arguments.signature_ids(signature_ids)
        if stack_map_registry is None:
            stack_map_registry = DEFAULT_STACK_MAP_REGISTRY
        if not is_a(stack_map_registry, StackMapRegistry):
            raise TypeError(
                "Instance(): stack_map_registry must be a StackMapRegistry, "
                f"got {type(stack_map_registry).__name__}"
            )
        self.memories: list[Memory] = [*imported["memories"], *defined_memories]
        self.tables: list[Table] = [*imported["tables"], *defined_tables]
        self.globals: list[Global] = [*imported["globals"], *defined_globals]
        self.offsets = VMOffsets(
            num_signature_ids=len(signature_ids),
            num_imported_functions=len(imported["functions"]),
            num_imported_tables=len(imported["tables"]),
            num_imported_memories=len(imported["memories"]),
            num_imported_globals=len(imported["globals"]),
            num_defined_functions=len(defined_functions),
            num_defined_tables=len(defined_tables),
            num_defined_memories=len(defined_memories),
            num_defined_globals=len(defined_globals),
        )
        self.activations_table = VMExternRefActivationsTable()
        self.stack_map_registry = stack_map_registry
        self.interrupts = _Interrupts(0)
        self.data = instance_arguments.data_segments(data)
        self.elements = instance_arguments.element_segments(elements)
        self._segments = self.elements
        function_count = len(imported["functions"]) + len(defined_functions)
        instance_arguments.check_elements(self.elements, function_count)

        self._block = InstanceBlock(self.offsets, len(self.memories))
        vmctx = self._block.vmctx
        self._stores: list[Store] = []
        link(
            [
                self, *self.memories, *self.tables, *self.globals,
                *(function.instance for function in imported["functions"]),
            ]
        )  # fmt: skip
        self._block.adopt_definitions(defined_memories, defined_tables, defined_globals)
        self._block.write_imports(imported)
        self._block.write_fixed(
            ctypes.addressof(self.interrupts),
            self.activations_table.address,
            self.stack_map_registry.address,
            signature_ids,
        )
        self._block.write_header(self.memories, self.tables, self.globals, self.elements, self.data)
        # The VMContext points to these, so they are kept even if public attributes are replaced.
        self._fixed = (self.activations_table, self.stack_map_registry, self.interrupts)
        self._imported_definitions = [
            part.definition_owner
            for kind in ("memories", "tables", "globals")
            for part in imported[kind]
        ]
        self._parts = [*self.memories, *self.tables, *self.globals]
        self._resources = [
            *(memory.reservation for memory in self.memories),
            *((table.reservation, table.keepers()) for table in self.tables),
        ]
        self._vmctx = self._vmctx_kept = vmctx
        self._finish()
        self._write_store()
        _live[vmctx] = self
        self.functions = self._write_functions(imported["functions"], defined_functions)
        for segment in self.elements:
            segment.resolve(self.functions)
            link([self, *segment.keepers.values()])
        asked = process.builtin_addresses if binding is None else binding.builtin_addresses
        self._block.write_builtins([] if asked is None else asked())

    def __repr__(self) -> str:
        if self.closed:
            return "<Instance closed>"
        counts = [
            counted(len(self.memories), "memory"),
            counted(len(self.tables), "table"),
            counted(len(self.globals), "global"),
            counted(len(self.functions), "function"),
        ]
        return f"<Instance at {self._vmctx:#x}: {', '.join(counts)}>"

    @property
    def vmctx(self) -> int:
        """The address of the VMContext."""
        try:
            vmctx = self._vmctx
        except AttributeError:
            raise not_made(self) from None
        if not vmctx:
            raise ValueError("the Instance is closed")
        return vmctx

    _relied_on: tuple[str, ...] = "data_segment", "drop_data", "vmctx"
    _readable_member = ("vmctx", "_vmctx")
    """For machine code: the kind of native address, and the member that has it."""

    def __native_address__(self, kind: str) -> Any:
        """Return the vmctx as an argument of native code: see ``signatures/pointers.py``."""
        return self.vmctx if kind == "vmctx" else NotImplemented

    def data_segment(self, index: int) -> tuple[int, int]:
        """Return the address and length of a data segment as native code sees it."""
        segment = self._block.data_segments[index]
        return segment.base, segment.length

    def drop_data(self, index: int) -> None:
        """Make a data segment empty, as ``data.drop`` does."""
        self._block.data_segments[index].length = 0

    def close(self) -> None:
        """Release what the instance holds; twice is a no-op.

        No further call enters its code. Code that runs in this or another thread may continue; the
        memory it uses is released when it has returned. Imported definitions stay usable.

        Raises
        ------
        BaseException
            The first exception that a destructor raised.
        """
        super().close()

    def _release(self) -> None:
        # An exception may end this at any place. So each reference stays until it is released.
        self._last_vmctx = vmctx = self._vmctx or self._last_vmctx
        self._vmctx = 0
        _live.pop(vmctx, None)
        self._block.header.magic = 0
        self._block.header.store = NEVER_FREE
        if self._is_used is not None:
            self._used = (*self._used, *self.tables, *self.globals)
        self.elements = []
        self.memories, self.tables, self.globals, self.functions = [], [], [], []
        self._parts = []
        if not releasing.may_be_running():
            self._resources = []
        self._release_references()

    @inside_or_later
    def _release_references(self) -> None:
        table, registry, _ = self._fixed
        releases: list[Callable[[], None]] = []
        later: list[Any] = []
        if self._is_used is not None and self._is_used():
            later = self._segments
        else:
            releases += [segment.close for segment in self._segments]
        releases.append(
            partial(
                releasing.release_references,
                table, registry, self._in_store, self._is_used, later, self._used,
            )
        )  # fmt: skip
        errors: list[BaseException] = []
        for release in releases:
            try:
                release()
            except BaseException as error:
                errors.append(error)
        raise_first(errors)

    @inside
    def _write_store(self) -> None:
        if self._in_store is not None and self._vmctx:
            self._block.header.store = self._in_store.address

    def _moved_to(self, store: Store) -> None:
        super()._moved_to(store)
        self._stores.append(store)  # code that leaves an earlier store has the address of its lock
        if self._vmctx:
            self._block.header.store = store.address

    def _write_functions(
        self, imported: Sequence[FuncRef], defined: Sequence[tuple[int, int]]
    ) -> list[FuncRef]:
        # FuncRefs keep their instances alive, and addresses in a Code keep the code.
        self._kept_functions = [*imported, *defined]
        vmctx = self._block.vmctx
        rows = [(f.func_ptr, f.type_index, f.vmctx) for f in imported]
        rows += [(func_ptr, type_index, vmctx) for func_ptr, type_index in defined]
        self.keeper_number = kept_instances.new_number()
        first = vmctx + self.offsets.vmctx_anyfunc(0)
        self.function_range = first, vmctx + self.offsets.vmctx_anyfunc(len(rows))
        addresses = self._block.write_functions(rows)
        return make_references(self._function_class, self, addresses)


def instance_of(vmctx: int) -> Instance:
    """Return the open instance of a vmctx; ValueError if no instance is at that address."""
    instance = _live.get(vmctx)
    if instance is None:
        raise ValueError(f"no live instance at vmctx {shown_address(vmctx)}")
    return instance


def part_of(vmctx: int, kind: str, index: int) -> Any:
    """Return a part of the instance of a vmctx; ValueError if the instance is closed.

    `kind` is "memories", "tables", "globals" or "elements"; `index` counts imports first.
    """
    instance = instance_of(vmctx)
    try:
        return getattr(instance, kind)[index]
    except IndexError:
        if instance.closed:
            raise ValueError("the Instance is closed") from None
        raise


def gc(instance: Instance) -> None:
    """Drop the externrefs that no native frame of this thread holds any more.

    Parameters
    ----------
    instance : Instance
        Its activations table is swept. If the native frames are unknown (see
        :func:`asm_libcalls.native.stack_walker.stack_frames`), nothing is dropped.

    Raises
    ------
    BaseException
        The first exception that a destructor raised.
    """
    if not is_a(instance, Instance):
        raise TypeError(
            f"gc(): instance must be an asm_libcalls.Instance, got {type_shown(instance, Instance)}"
        )
    if instance.closed:
        raise ValueError("gc(): the Instance is closed")
    call_inside(instance, instance.activations_table.gc, instance.stack_map_registry)
    releasing.drop_unused_references()
