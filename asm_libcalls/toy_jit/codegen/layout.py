"""The code of a module while it grows, and what the compiler needs to know of the module."""

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
    """Return the process's number for a function type: what ``call_indirect`` compares."""
    key = (functype.params, functype.results)
    number = _type_ids.get(key)
    if number is None:
        # Two threads may come here with one type: the first number that is stored stays.
        number = next(_numbers)
        _types[number] = functype
        number = _type_ids.setdefault(key, number)
    return number


def type_of_id(number: int) -> FuncType:
    """Return the function type of a number."""
    return _types[number]


class CodeLayout:
    """The code of a module while it grows, and what the compiler needs to know of the module.

    Attributes
    ----------
    budget : Budget
        What compiling the module may use.
    inline : bool
        Whether instructions are emitted instead of libcalls of numbers.
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
    marks : list or None
        Where the code of each instruction begins, if that is noted for a listing. Ascending: the
        offset of the code, of the instruction in the module; its opcode and immediate.
    epilogues : list of int
        Where the ways out of the functions begin.
    stubs : dict of str to int
        Where what calls go to behind the functions begins, by role.
    constants : dict of int to list of int
        The vectors that code loads, and the distances to them that are to be filled in.
    ends : list of int
        Where the instructions of each function end, and what is out of line begins.
    counters : ctypes array or None
        How often each libcall was called, if that is counted, in the order of the table of them.
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
        """Return the stencil that loads the address of a global or table into rcx, and its hole."""
        imported = getattr(self.offsets, f"num_imported_{kind}s")
        if index < imported:
            return "address.imported", getattr(self.offsets, f"vmctx_vm{kind}_import_from")(index)
        definition = getattr(self.offsets, f"vmctx_vm{kind}_definition")
        return "address.defined", definition(index - imported)
