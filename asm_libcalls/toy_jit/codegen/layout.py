"""The code of one module during compilation, with its tables, and the module's layout."""

from __future__ import annotations

from array import array
from collections import defaultdict
from itertools import count

from asm_libcalls.libcalls import BUILTIN_SLOTS
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.vmcontext import VMOffsets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.module import FuncType, Module
    from asm_libcalls.toy_jit.options import CompileOptions

OFFSETS = "I"
"""The type code of arrays of offsets, unsigned and of 32 bits."""

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


def offsets_of(module: Module) -> VMOffsets:
    """Return the layout of a module's VMContext."""
    sizes = {"num_signature_ids": len(module.types)}
    for space in ("functions", "tables", "memories", "globals"):
        imported = getattr(module, f"imported_{space}")
        sizes[f"num_imported_{space}"] = imported
        sizes[f"num_defined_{space}"] = len(getattr(module, space)) - imported
    return VMOffsets(**sizes)


class CodeLayout:
    """The code of a module during compilation. Offsets are in the code, unless "in the module".

    The code has no address or number of this process. Loading fills these in (``relocations``).
    """

    def __init__(self, module: Module, options: CompileOptions) -> None:
        self.inline = options.inline  # whether to emit instructions instead of libcalls on numbers
        # whether the code counts the calls of each libcall
        self.counts_libcalls = options.count_libcalls
        # the limits on compiling the module
        self.budget = Budget(len(module.binary), options.limits)
        self.most_code = self.budget.limits["max_code_size"]
        # of the function that is being compiled: the offset of its first instruction in the module
        self.start = 0
        self.code = bytearray()
        self.functions: list[tuple[int, int]] = []  # begin and end of each function
        self.brief: list[bool] = []  # whether each function ends soon for all arguments
        # by target (the index of a defined function, `"trap.CODE"` or `"interrupt"`): the offsets
        # of the distances to it, which linking fills in
        self.calls: defaultdict[int | str, list[int]] = defaultdict(list)
        # for each call, ascending: its return address, and its offset in the module
        self.returns, self.origins = array(OFFSETS), array(OFFSETS)
        # by return address of calls that keep references: their slots, relative to rbp
        self.stack_maps: dict[int, tuple[int, ...]] = {}
        # By symbol: the offsets of the holes for its value, which differs between processes. The
        # symbol of a C address is its name. `"counter LIBCALL"` is the address of a counter of
        # calls, `"type N"` the type_id of a type of the module. The holes have 8 bytes, those of a
        # type 4.
        self.relocations: dict[str, list[int]] = {}
        # for a listing: the begin of each instruction's code
        self.marks = array(OFFSETS) if options.listing else None
        self.epilogues = array(OFFSETS)  # begin of each epilogue
        self.stubs: dict[str, int] = {}  # begin of each stub behind the functions, by role
        # the constants of 16 bytes that code reads, and the offsets of the distances to them
        self.constants: dict[int, list[int]] = {}
        # for each function: the end of its instructions, where its out-of-line code begins
        self.ends = array(OFFSETS)
        self.offsets = offsets_of(module)
        self.global_types = [entry.type.value for entry in module.globals]
        self.table_types = [entry.element for entry in module.tables]
        self._builtins: dict[tuple[str, bool], int] = {}
        self._addresses: dict[tuple[str, int], tuple[str, int]] = {}

    def builtin(self, name: str, externref: bool = False) -> int:
        """Return the displacement from vmctx of a libcall's slot in the builtin array."""
        found = self._builtins.get((name, externref))
        if found is not None:
            return found
        served = ("", "externref" if externref else "funcref")
        for slot in BUILTIN_SLOTS:
            if slot.libcall == name and slot.reference_type in served:
                found = self.offsets.vmctx_builtin_function(slot.index)
                self._builtins[name, externref] = found
                return found
        raise LookupError(f"{name} is not in the builtin array")

    def address_of(self, kind: str, index: int) -> tuple[str, int]:
        """Return a stencil that loads the address of a global or table to rcx, and its value."""
        found = self._addresses.get((kind, index))
        if found is None:
            imported = getattr(self.offsets, f"num_imported_{kind}s")
            if index < imported:
                of_import = getattr(self.offsets, f"vmctx_vm{kind}_import_from")
                found = "address.imported", of_import(index)
            else:
                definition = getattr(self.offsets, f"vmctx_vm{kind}_definition")
                found = "address.defined", definition(index - imported)
            self._addresses[kind, index] = found
        return found
