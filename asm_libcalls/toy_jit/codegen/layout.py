"""The code of one module during compilation, with its tables, and the module's layout."""

from __future__ import annotations

import ctypes
from itertools import count

from asm_libcalls.libcalls import BUILTIN_SLOTS, DECLARATIONS
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.vmcontext import VMOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import FuncType, Module
    from asm_libcalls.toy_jit.options import CompileOptions

__all__ = ["CodeLayout", "type_id", "type_of_id"]

_type_ids: dict[tuple[bytes, bytes], int] = {}
_types: dict[int, FuncType] = {}
_numbers = count()


def type_id(functype: FuncType) -> int:
    """Return the process-wide number of a function type, which ``call_indirect`` compares."""
    key = (functype.params, functype.results)
    number = _type_ids.get(key)
    if number is None:
        # Two threads may be here with the same type: the number that is stored first stays.
        number = next(_numbers)
        _types[number] = functype
        number = _type_ids.setdefault(key, number)
    return number


def type_of_id(number: int) -> FuncType:
    """Return the function type with a number of :func:`type_id`."""
    return _types[number]


class CodeLayout:
    """The code of a module during compilation. Offsets are in the code, unless "in the module".

    Attributes
    ----------
    budget : Budget
        The limits on compiling the module.
    inline : bool
        Whether to emit instructions instead of libcalls on numbers.
    code : bytearray
    functions : list of (int, int)
        Begin and end of each function.
    brief : list of bool
        Whether each function ends soon for all arguments.
    calls : list of (int, str)
        Offsets of the distances that linking fills in, and their targets: ``"function.N"``,
        ``"trap.CODE"``, ``"interrupt"``.
    sites : list of (int, int)
        For each call, ascending: its return address, and its offset in the module.
    stack_maps : dict of int to tuple of int
        By return address of calls that keep references: their slots, relative to rbp.
    marks : list or None
        For a listing, ascending: the begin of each instruction's code, the instruction's offset in
        the module, its opcode and its immediate.
    epilogues : list of int
        Begin of each epilogue.
    stubs : dict of str to int
        Begin of each stub behind the functions, by role.
    constants : dict of int to list of int
        The vectors that code loads, and the offsets of the distances to them.
    ends : list of int
        For each function: the end of its instructions, where its out-of-line code begins.
    counters : ctypes array or None
        The number of calls of each libcall, if they are counted, in the order of DECLARATIONS.
    offsets : VMOffsets
    addresses : mapping of str to int
        C addresses, by symbol.
    """

    def __init__(
        self, module: Module, options: CompileOptions, addresses: Mapping[str, int]
    ) -> None:
        self.inline = options.inline
        self.budget = Budget(len(module.binary), options.limits)
        self.code = bytearray()
        self.functions: list[tuple[int, int]] = []
        self.brief: list[bool] = []
        self.calls: list[tuple[int, str]] = []
        self.sites: list[tuple[int, int]] = []
        self.stack_maps: dict[int, tuple[int, ...]] = {}
        self.marks: list[tuple[int, int, int, Any]] | None = [] if options.listing else None
        counters = ctypes.c_uint64 * len(DECLARATIONS)
        self.counters = counters() if options.count_libcalls else None
        self.epilogues: list[int] = []
        self.stubs: dict[str, int] = {}
        self.constants: dict[int, list[int]] = {}
        self.ends: list[int] = []
        self.addresses = addresses
        sizes = {"num_signature_ids": len(module.types)}
        for space in ("functions", "tables", "memories", "globals"):
            imported = getattr(module, f"imported_{space}")
            sizes[f"num_imported_{space}"] = imported
            sizes[f"num_defined_{space}"] = len(getattr(module, space)) - imported
        self.offsets = VMOffsets(**sizes)
        self.global_types = [entry.type.value for entry in module.globals]
        self.table_types = [entry.element for entry in module.tables]
        self.type_ids = [type_id(functype) for functype in module.types]

    def counter(self, libcall: str) -> int:
        """Return the address of a libcall's counter."""
        assert self.counters is not None
        index = list(DECLARATIONS).index(libcall)
        return ctypes.addressof(self.counters) + index * ctypes.sizeof(ctypes.c_uint64)

    def builtin(self, name: str, externref: bool = False) -> int:
        """Return the displacement from vmctx of a libcall's slot in the builtin array."""
        served = ("", "externref" if externref else "funcref")
        for slot in BUILTIN_SLOTS:
            if slot.libcall == name and slot.reference_type in served:
                return self.offsets.vmctx_builtin_function(slot.index)
        raise LookupError(f"{name} is not in the builtin array")

    def address_of(self, kind: str, index: int) -> tuple[str, int]:
        """Return a stencil that loads the address of a global or table to rcx, and its value."""
        imported = getattr(self.offsets, f"num_imported_{kind}s")
        if index < imported:
            return "address.imported", getattr(self.offsets, f"vmctx_vm{kind}_import_from")(index)
        definition = getattr(self.offsets, f"vmctx_vm{kind}_definition")
        return "address.defined", definition(index - imported)
