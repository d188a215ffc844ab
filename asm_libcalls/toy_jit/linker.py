"""From functions to code that runs: the layout of a module's code, its links, its load.

Code knows its module's VMContext layout and this process's addresses, but no instance: instances
of a module share it.
"""

from __future__ import annotations

import bisect
import ctypes
import struct

from asm_libcalls.binding import default_binding
from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.toy_jit.compiler import FunctionCompiler
from asm_libcalls.toy_jit.emitters import make_handlers
from asm_libcalls.toy_jit.runtime import runtime_addresses
from asm_libcalls.toy_jit.templates import TEMPLATES
from asm_libcalls.toy_jit.validator import validate_function
from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import VMOffsets
from asm_libcalls.x86_64 import pages
from asm_libcalls.x86_64.image import Routine, link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import FuncType, Module

__all__ = ["CodeLayout", "CompiledCode", "compile_module", "type_id", "type_of_id"]

_DISPLACEMENT = struct.Struct("<i")

_type_ids: dict[tuple[bytes, bytes], int] = {}
_types: list[FuncType] = []


def type_id(functype: FuncType) -> int:
    """Return the process's number for a function type: what ``call_indirect`` compares."""
    key = (functype.params, functype.results)
    if key not in _type_ids:
        _types.append(functype)
        _type_ids[key] = len(_types) - 1
    return _type_ids[key]


def type_of_id(number: int) -> FuncType:
    """Return the function type of a number."""
    return _types[number]


class CodeLayout:
    """The code of a module while it grows, and what the compiler needs to know of the module.

    Attributes
    ----------
    inline : bool
        Whether 64-bit shifts are instructions instead of libcalls.
    code : bytearray
    functions : list of (int, int)
        Where each function's code begins and ends.
    brief : list of bool
        Whether each function soon ends, whatever it is given.
    calls : list of (int, str)
        Distances to fill in at the end, and to what: ``"function.N"``, ``"trap.CODE"``,
        ``"interrupt"``.
    sites : list of (int, int)
        For each call, ascending: the offset of its return address, and its offset in the module.
    stack_maps : dict of int to tuple of int
        For each call that keeps references: the offset of its return address, their slots by rbp.
    offsets : VMOffsets
    addresses : dict of str to int
        C addresses, by symbol.
    """

    def __init__(self, module: Module, inline: bool) -> None:
        self.inline = inline
        self.code = bytearray()
        self.functions: list[tuple[int, int]] = []
        self.brief: list[bool] = []
        self.calls: list[tuple[int, str]] = []
        self.sites: list[tuple[int, int]] = []
        self.stack_maps: dict[int, tuple[int, ...]] = {}
        self.addresses = runtime_addresses()
        self.offsets = VMOffsets(
            num_signature_ids=len(module.types),
            num_imported_functions=module.imported_functions,
            num_imported_tables=module.imported_tables,
            num_imported_memories=module.imported_memories,
            num_imported_globals=module.imported_globals,
            num_defined_functions=len(module.functions) - module.imported_functions,
            num_defined_tables=len(module.tables) - module.imported_tables,
            num_defined_memories=len(module.memories) - module.imported_memories,
            num_defined_globals=len(module.globals) - module.imported_globals,
        )
        self.global_types = [entry.type.value for entry in module.globals]
        self.table_types = [entry.element for entry in module.tables]
        self.type_ids = [type_id(functype) for functype in module.types]
        self.memory_0 = ("imported_", 0) if self.offsets.num_imported_memories else ("", 0)

    def builtin(self, name: str, externref: bool = False) -> int:
        """Return the displacement from vmctx of a libcall's slot in the builtin array."""
        index = BUILTIN_ARRAY.index(name)
        if name == "table_grow":  # its slots: funcref, externref
            index += externref
        elif name == "table_fill":  # externref, funcref
            index += not externref
        return self.offsets.vmctx_builtin_function(index)

    def global_at(self, index: int) -> tuple[bool, int]:
        """Return whether a global is imported, and where it (or its import) is from vmctx."""
        imported = self.offsets.num_imported_globals
        if index < imported:
            return True, self.offsets.vmctx_vmglobal_import_from(index)
        return False, self.offsets.vmctx_vmglobal_definition(index - imported)

    def table_at(self, index: int) -> tuple[bool, int]:
        """Return whether a table is imported, and where it (or its import) is from vmctx."""
        imported = self.offsets.num_imported_tables
        if index < imported:
            return True, self.offsets.vmctx_vmtable_import_from(index)
        return False, self.offsets.vmctx_vmtable_definition(index - imported)


class CompiledCode:
    """A module's code in memory.

    Attributes
    ----------
    address : int
    size : int
    layout : CodeLayout
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.size = len(layout.code)
        loaded = pages.load(link([Routine("code", bytes(layout.code), self.size)]))
        self.address = loaded.routine("code")
        self._returns = [at for at, _ in layout.sites]

    def function_address(self, defined_index: int) -> int:
        """Return the address of a function, by its index among the defined ones."""
        return self.address + self.layout.functions[defined_index][0]

    def code_of(self, defined_index: int) -> bytes:
        """Return the code of a function as it is in memory."""
        start, end = self.layout.functions[defined_index]
        return ctypes.string_at(self.address + start, end - start)

    def site_of(self, return_address: int) -> tuple[int, int] | None:
        """Return the defined index and the offset in the module of a call, else None."""
        at = return_address - self.address
        i = bisect.bisect_left(self._returns, at)
        if i == len(self._returns) or self._returns[i] != at:
            return None
        starts = [start for start, _ in self.layout.functions]
        return bisect.bisect_right(starts, at - 1) - 1, self.layout.sites[i][1]


def compile_module(module: Module, inline: bool) -> CompiledCode:
    """Validate and compile every function of a decoded module, link and load the code.

    Raises
    ------
    InvalidModule
        A function is not valid.
    """
    layout = CodeLayout(module, inline)
    compiler = FunctionCompiler(layout, make_handlers(inline))
    imported = layout.offsets.num_imported_functions
    for index in range(imported, len(module.functions)):
        body = validate_function(module, index)
        compiler.compile(body, module.functions[index].type)
    _link(layout, imported)
    return CompiledCode(layout)


def _link(layout: CodeLayout, imported: int) -> None:
    code = layout.code
    targets: dict[str, int] = {}
    raise_trap = default_binding().runtime_symbols()["asm_libcalls_raise_trap"]
    for trap in TrapCode:
        targets[f"trap.{trap.name}"] = len(code)
        _stub(code, "stub.trap", {}, (int(trap), *_halves(raise_trap)))
    targets["interrupt"] = len(code)
    overflow = targets[f"trap.{TrapCode.STACK_OVERFLOW.name}"]
    interrupted = layout.addresses["toy_jit_interrupted"]
    _stub(code, "stub.interrupt", {"target": overflow}, _halves(interrupted))
    for at, role in layout.calls:
        if role in targets:
            target = targets[role]
        else:
            target = layout.functions[int(role.partition(".")[2]) - imported][0]
        _DISPLACEMENT.pack_into(code, at, target - (at + 4))


def _halves(address: int) -> tuple[int, int]:
    low, high = address & 0xFFFFFFFF, address >> 32
    return low - (low >> 31 << 32), high


def _stub(code: bytearray, name: str, targets: dict[str, int], values: tuple[int, ...]) -> None:
    bytes_, holes, jumps = TEMPLATES[name]
    start = len(code)
    code += bytes_
    for at, which in holes:
        _DISPLACEMENT.pack_into(code, start + at, values[which])
    for at, role in jumps:
        _DISPLACEMENT.pack_into(code, start + at, targets[role] - (start + at + 4))
