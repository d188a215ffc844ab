"""The table of the 33 libcalls of Wasmtime 0.22: each is declared here, and only here.

A row has the name, the C signature, the kinds of the parameters and the possible traps. A second
list has the slots of the VMContext's builtin array. Prototypes, addresses, checks of arguments, the
command line, the type stubs, the ABI page of the documentation and the tests' parameters are
derived from it. The two implementations of a row are in ``x86_64/FAMILY.py`` and
``fallback/FAMILY.py``, under its name.

Source: ``wasmtime_runtime::libcalls`` and ``wasmtime_environ::builtin`` of Wasmtime 0.22.
"""

from __future__ import annotations

from asm_libcalls.signatures import Signature
from asm_libcalls.traps import (
    HeapOutOfBounds,
    IntegerDivisionByZero,
    IntegerOverflow,
    TableOutOfBounds,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from asm_libcalls.trap_codes import TrapCode
    from asm_libcalls.traps import Trap

SYMBOL_PREFIX = "wasmtime_"

PARAMETER_KINDS = {
    "memory": "index of a memory, imports first",
    "defined_memory": "index among the memories that are not imported",
    "imported_memory": "index of an imported memory",
    "table": "index of a table, imports first",
    "externref_global": "index of a global that holds an externref, imports first",
    "data": "index of a passive data segment",
    "element": "index of a passive element segment",
    "nullable": "externref that may be null",
    "unowned": "externref whose reference count is 0",
}
"""The kinds of parameters: their meanings beyond the C type.

A parameter without a kind is a number, a vmctx, a ``reference`` of the table's element type (null
included), or an externref that is not null.
"""


_signatures: dict[str, Signature] = {}


class Declaration:
    """One row of the table.

    The constructor takes names and kinds of the parameters as one text, for example
    ``"vmctx memory_index:memory len"``. A second table derives a class with its own symbol prefix
    and package.
    """

    __slots__ = (
        "doc",
        "exceptions",
        "family",
        "instruction",
        "name",
        "parameter_kinds",
        "parameters",
        "signature",
        "takes_instance",
    )

    prefix: ClassVar[str] = SYMBOL_PREFIX
    package: ClassVar[str] = "asm_libcalls"

    def __init__(
        self,
        family: str,
        name: str,
        signature: str,
        parameters: str,
        instruction: str,
        doc: str,
        exceptions: tuple[type[Trap], ...] = (),
    ) -> None:
        self.family = family  # the module that implements it, in each backend
        self.name = name  # the libcall's name, as Wasmtime spells it
        parsed = _signatures.get(signature)  # many rows have the same one
        if parsed is None:
            parsed = _signatures[signature] = Signature(signature)
        self.signature = parsed  # its C signature
        pairs = [parameter.partition(":") for parameter in parameters.split()]
        # the names of the parameters, in order
        self.parameters = tuple([pair[0] for pair in pairs])
        # for each parameter its key in PARAMETER_KINDS, or ""
        self.parameter_kinds = tuple([pair[2] for pair in pairs])
        for kind in self.parameter_kinds:
            if kind and kind not in PARAMETER_KINDS:
                raise ValueError(
                    f"{name}: unknown parameter kind {kind!r}, "
                    f"expected one of {', '.join(PARAMETER_KINDS)}"
                )
        types = (*self.signature.parameters, self.signature.result)
        # whether it works on an instance or its references, not only on numbers; by the signature
        self.takes_instance = any(t is not None and t.is_runtime for t in types)
        # the WebAssembly instruction that is compiled to it, or the other use of it
        self.instruction = instruction
        self.doc = doc  # one sentence
        self.exceptions = exceptions  # the possible traps

    def __repr__(self) -> str:
        return f"<Declaration {self.name}{self.signature}>"

    @property
    def traps(self) -> tuple[TrapCode, ...]:
        """The codes of the possible traps."""
        from asm_libcalls.trap_codes import TrapCode

        return tuple(TrapCode(exception().code) for exception in self.exceptions)

    @property
    def symbol(self) -> str:
        """The C symbol, for example ``wasmtime_i64_sdiv``."""
        return self.prefix + self.name

    def module(self, folder: str) -> str:
        """Return the name of the family's module in ``x86_64``, ``fallback`` or ``checks``."""
        return f"{self.package}.{folder}.{self.family}"

    @property
    def c_declaration(self) -> str:
        """The C prototype."""
        return self.signature.c_declaration(self.symbol, self.parameters)


_DIVIDE = (IntegerDivisionByZero,)
_HEAP = (HeapOutOfBounds,)
_TABLE = (TableOutOfBounds,)

_ROUNDING_DOCS = {
    "ceil": "Round up to an integral value.",
    "floor": "Round down to an integral value.",
    "trunc": "Round towards zero to an integral value.",
    "nearest": "Round to the nearest integral value, ties to even.",
}


def _rounding() -> list[Declaration]:
    return [
        Declaration(
            "rounding", f"{t}_{verb}", f"({t}) -> {t}", "x", f"{t}.{verb}", _ROUNDING_DOCS[verb]
        )
        for t in ("f32", "f64")
        for verb in ("ceil", "floor", "trunc", "nearest")
    ]


DECLARATIONS: dict[str, Declaration] = {
    row.name: row
    for row in (
        *_rounding(),
        Declaration(
            "integers", "i64_ishl", "(i64, i64) -> i64", "x count", "i64.shl",
            "Shift left; the count is taken modulo 64.",
        ),
        Declaration(
            "integers", "i64_sshr", "(i64, i64) -> i64", "x count", "i64.shr_s",
            "Shift right, copying the sign; the count is taken modulo 64.",
        ),
        Declaration(
            "integers", "i64_ushr", "(u64, u64) -> u64", "x count", "i64.shr_u",
            "Shift right, filling with zeros; the count is taken modulo 64.",
        ),
        Declaration(
            "integers", "i64_sdiv", "(i64, i64) -> i64", "dividend divisor", "i64.div_s",
            "Signed quotient, truncated towards zero.",
            (*_DIVIDE, IntegerOverflow),
        ),
        Declaration(
            "integers", "i64_srem", "(i64, i64) -> i64", "dividend divisor", "i64.rem_s",
            "Signed remainder, with the sign of the dividend.", _DIVIDE,
        ),
        Declaration(
            "integers", "i64_udiv", "(u64, u64) -> u64", "dividend divisor", "i64.div_u",
            "Unsigned quotient, truncated.", _DIVIDE,
        ),
        Declaration(
            "integers", "i64_urem", "(u64, u64) -> u64", "dividend divisor", "i64.rem_u",
            "Unsigned remainder.", _DIVIDE,
        ),
        Declaration(
            "memories", "memory32_grow", "(vmctx, u32, u32) -> u32",
            "vmctx delta defined_memory_index:defined_memory", "memory.grow",
            "Grow a defined memory by delta pages; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "memories", "imported_memory32_grow", "(vmctx, u32, u32) -> u32",
            "vmctx delta memory_index:imported_memory", "memory.grow",
            "Grow an imported memory by delta pages; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "memories", "memory32_size", "(vmctx, u32) -> u32",
            "vmctx defined_memory_index:defined_memory", "memory.size",
            "The size of a defined memory, in pages of 64 KiB.",
        ),
        Declaration(
            "memories", "imported_memory32_size", "(vmctx, u32) -> u32",
            "vmctx memory_index:imported_memory", "memory.size",
            "The size of an imported memory, in pages of 64 KiB.",
        ),
        Declaration(
            "memories", "memory_copy", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx dst_memory_index:memory dst src_memory_index:memory src len", "memory.copy",
            "Copy len bytes within or between memories; the ranges may overlap.", _HEAP,
        ),
        Declaration(
            "memories", "memory_fill", "(vmctx, u32, u32, u32, u32)",
            "vmctx defined_memory_index:defined_memory dst val len", "memory.fill",
            "Set len bytes of a defined memory to the low byte of val.", _HEAP,
        ),
        Declaration(
            "memories", "imported_memory_fill", "(vmctx, u32, u32, u32, u32)",
            "vmctx memory_index:imported_memory dst val len", "memory.fill",
            "Set len bytes of an imported memory to the low byte of val.", _HEAP,
        ),
        Declaration(
            "memories", "memory_init", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx memory_index:memory data_index:data dst src len", "memory.init",
            "Copy len bytes from a passive data segment.", _HEAP,
        ),
        Declaration(
            "memories", "data_drop", "(vmctx, u32)", "vmctx data_index:data", "data.drop",
            "Drop a passive data segment: its length becomes 0.",
        ),
        Declaration(
            "tables", "table_grow", "(vmctx, u32, u32, reference) -> u32",
            "vmctx table_index:table delta init_value", "table.grow",
            "Grow a table by delta elements; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "tables", "table_fill", "(vmctx, u32, u32, reference, u32)",
            "vmctx table_index:table dst val len", "table.fill",
            "Set len elements of a table to one reference.", _TABLE,
        ),
        Declaration(
            "tables", "table_copy", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx dst_table_index:table src_table_index:table dst src len", "table.copy",
            "Copy len elements within or between tables; the ranges may overlap.", _TABLE,
        ),
        Declaration(
            "tables", "table_init", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx table_index:table elem_index:element dst src len", "table.init",
            "Copy len elements from a passive element segment.", _TABLE,
        ),
        Declaration(
            "tables", "elem_drop", "(vmctx, u32)", "vmctx elem_index:element", "elem.drop",
            "Drop a passive element segment: its length becomes 0.",
        ),
        Declaration(
            "externrefs", "drop_externref", "(externref)", "externref:unowned",
            "(reference count at 0)",
            "Drop the value of an externref whose count has reached 0, and free its box.",
        ),
        Declaration(
            "externrefs", "activations_table_insert_with_gc", "(vmctx, externref)",
            "vmctx externref", "(externref enters a frame)",
            "Insert an externref into the activations table; when that is full, GC first.",
        ),
        Declaration(
            "externrefs", "externref_global_get", "(vmctx, u32) -> externref",
            "vmctx global_index:externref_global", "global.get",
            "The externref of a global, kept alive by the activations table.",
        ),
        Declaration(
            "externrefs", "externref_global_set", "(vmctx, u32, externref)",
            "vmctx global_index:externref_global externref:nullable", "global.set",
            "Put an externref into a global, then drop the one that was there.",
        ),
    )
}  # fmt: skip
"""The 33 rows by name, in the table's order."""


class BuiltinSlot:
    """One slot of the VMContext's builtin array."""

    __slots__ = ("index", "libcall", "name", "reference_type")

    def __init__(self, index: int, libcall: str, reference_type: str = "") -> None:
        self.index = index  # its index in the array
        self.libcall = libcall  # the libcall whose address it holds
        # the element type of the tables that it serves, where the libcall has a slot for each
        self.reference_type = reference_type
        # its name in `wasmtime_environ::builtin` of Wasmtime 0.22
        self.name = f"{libcall}_{reference_type}" if reference_type else libcall

    def __repr__(self) -> str:
        return f"<BuiltinSlot {self.index} {self.name}>"


BUILTIN_SLOTS: tuple[BuiltinSlot, ...] = tuple(
    BuiltinSlot(index, *name.split(":"))
    for index, name in enumerate(
        (
            "memory32_grow",
            "imported_memory32_grow",
            "memory32_size",
            "imported_memory32_size",
            "table_copy",
            "table_init",
            "elem_drop",
            "memory_copy",
            "memory_fill",
            "imported_memory_fill",
            "memory_init",
            "data_drop",
            "table_grow:funcref",
            "table_grow:externref",
            "table_fill:externref",
            "table_fill:funcref",
            "drop_externref",
            "activations_table_insert_with_gc",
            "externref_global_get",
            "externref_global_set",
        )
    )
)
"""The slots of the VMContext's builtin array, in Wasmtime's order.

Growing and filling a table have one slot for each reference type, and one routine for both.
"""

BUILTIN_ARRAY: tuple[str, ...] = tuple(slot.libcall for slot in BUILTIN_SLOTS)
"""The libcall in each slot of the builtin array."""
