"""THE TABLE: each of the 33 libcalls of Wasmtime 0.22 declared once. Everything else derives.

A row fixes the name, the C signature, what may trap and where the address stands in the
VMContext's builtin array. Prototypes, addresses, the command line, the type stubs, the ABI page
of the documentation and the tests' parameters all come from here; the two implementations are
found by the row's family and name, in ``x86_64/FAMILY.py`` and ``fallback/FAMILY.py``.

Source: ``wasmtime_runtime::libcalls`` and ``wasmtime_environ::builtin`` of Wasmtime 0.22.
"""

from __future__ import annotations

from asm_libcalls.signatures import Signature
from asm_libcalls.traps import TrapCode

__all__ = ["BUILTIN_ARRAY", "DECLARATIONS", "SYMBOL_PREFIX", "Declaration"]

SYMBOL_PREFIX = "wasmtime_"


class Declaration:
    """One row of the table.

    Attributes
    ----------
    name : str
        The libcall's name, as Wasmtime spells it.
    signature : Signature
        Its C signature.
    parameters : tuple of str
        The names of the parameters, in order.
    instruction : str
        The WebAssembly instruction that is compiled to it, or what else calls it.
    doc : str
        One sentence.
    family : str
        The module that implements it, in each backend.
    traps : tuple of TrapCode
        What it may trap with; empty if it never does.
    """

    __slots__ = (
        "doc",
        "family",
        "instruction",
        "name",
        "parameters",
        "signature",
        "traps",
    )

    def __init__(
        self,
        family: str,
        name: str,
        signature: str,
        parameters: str,
        instruction: str,
        doc: str,
        traps: tuple[TrapCode, ...] = (),
    ) -> None:
        self.family = family
        self.name = name
        self.signature = Signature(signature)
        self.parameters = tuple(parameters.split())
        self.instruction = instruction
        self.doc = doc
        self.traps = traps

    def __repr__(self) -> str:
        return f"<Declaration {self.name}{self.signature}>"

    @property
    def symbol(self) -> str:
        """The C symbol, for example ``wasmtime_i64_sdiv``."""
        return SYMBOL_PREFIX + self.name

    @property
    def c_declaration(self) -> str:
        """The C prototype."""
        return self.signature.c_declaration(self.symbol, self.parameters)


_DIVIDE = (TrapCode.INTEGER_DIVISION_BY_ZERO,)
_HEAP = (TrapCode.HEAP_OUT_OF_BOUNDS,)
_TABLE = (TrapCode.TABLE_OUT_OF_BOUNDS,)

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
            (*_DIVIDE, TrapCode.INTEGER_OVERFLOW),
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
            "vmctx delta defined_memory_index", "memory.grow",
            "Grow a defined memory by delta pages; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "memories", "imported_memory32_grow", "(vmctx, u32, u32) -> u32",
            "vmctx delta memory_index", "memory.grow",
            "Grow an imported memory by delta pages; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "memories", "memory32_size", "(vmctx, u32) -> u32",
            "vmctx defined_memory_index", "memory.size",
            "The size of a defined memory, in pages of 64 KiB.",
        ),
        Declaration(
            "memories", "imported_memory32_size", "(vmctx, u32) -> u32",
            "vmctx memory_index", "memory.size",
            "The size of an imported memory, in pages of 64 KiB.",
        ),
        Declaration(
            "memories", "memory_copy", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx dst_memory_index dst src_memory_index src len", "memory.copy",
            "Copy len bytes within or between memories; the ranges may overlap.", _HEAP,
        ),
        Declaration(
            "memories", "memory_fill", "(vmctx, u32, u32, u32, u32)",
            "vmctx defined_memory_index dst val len", "memory.fill",
            "Set len bytes of a defined memory to the low byte of val.", _HEAP,
        ),
        Declaration(
            "memories", "imported_memory_fill", "(vmctx, u32, u32, u32, u32)",
            "vmctx memory_index dst val len", "memory.fill",
            "Set len bytes of an imported memory to the low byte of val.", _HEAP,
        ),
        Declaration(
            "memories", "memory_init", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx memory_index data_index dst src len", "memory.init",
            "Copy len bytes from a passive data segment.", _HEAP,
        ),
        Declaration(
            "memories", "data_drop", "(vmctx, u32)", "vmctx data_index", "data.drop",
            "Drop a passive data segment: its length becomes 0.",
        ),
        Declaration(
            "tables", "table_grow", "(vmctx, u32, u32, reference) -> u32",
            "vmctx table_index delta init_value", "table.grow",
            "Grow a table by delta elements; the previous size, or 0xFFFFFFFF.",
        ),
        Declaration(
            "tables", "table_fill", "(vmctx, u32, u32, reference, u32)",
            "vmctx table_index dst val len", "table.fill",
            "Set len elements of a table to one reference.", _TABLE,
        ),
        Declaration(
            "tables", "table_copy", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx dst_table_index src_table_index dst src len", "table.copy",
            "Copy len elements within or between tables; the ranges may overlap.", _TABLE,
        ),
        Declaration(
            "tables", "table_init", "(vmctx, u32, u32, u32, u32, u32)",
            "vmctx table_index elem_index dst src len", "table.init",
            "Copy len elements from a passive element segment.", _TABLE,
        ),
        Declaration(
            "tables", "elem_drop", "(vmctx, u32)", "vmctx elem_index", "elem.drop",
            "Drop a passive element segment: its length becomes 0.",
        ),
        Declaration(
            "externrefs", "drop_externref", "(externref)", "externref", "(reference count at 0)",
            "Drop the value of an externref whose count has reached 0, and free its box.",
        ),
        Declaration(
            "externrefs", "activations_table_insert_with_gc", "(vmctx, externref)",
            "vmctx externref", "(externref enters a frame)",
            "Insert an externref into the activations table; when that is full, GC first.",
        ),
        Declaration(
            "externrefs", "externref_global_get", "(vmctx, u32) -> externref",
            "vmctx global_index", "global.get",
            "The externref of a global, kept alive by the activations table.",
        ),
        Declaration(
            "externrefs", "externref_global_set", "(vmctx, u32, externref)",
            "vmctx global_index externref", "global.set",
            "Put an externref into a global, then drop the one that was there.",
        ),
    )
}  # fmt: skip
"""The 33 rows by name, in the table's order."""


BUILTIN_ARRAY: tuple[str, ...] = (
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
    "table_grow",  # funcref
    "table_grow",  # externref
    "table_fill",  # externref
    "table_fill",  # funcref
    "drop_externref",
    "activations_table_insert_with_gc",
    "externref_global_get",
    "externref_global_set",
)
"""The libcall in each slot of the VMContext's builtin array (growing and filling a table has one
slot for each reference type, and one body for both)."""
