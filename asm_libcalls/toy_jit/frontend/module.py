"""The decoded module: types, index spaces, segments (spec 2.0, sections 2.3 and 2.5).

A value type is its byte in the binary format. A sequence of them (parameters, locals, the operand
stack of the validator) is ``bytes``: so it is a slice of the module, and comparing two is fast.

A constant expression, which initialises a global or segment, is a pair ``(opcode, immediate)``:
``(I32_CONST, int)``, ``(I64_CONST, int)``, ``(F32_CONST, bits)``,
``(F64_CONST, bits)``, ``(V128_CONST, bits)``, ``(GLOBAL_GET, global index)``,
``(REF_FUNC, function index)`` or ``(REF_NULL, reference type)``, with the opcodes of
:mod:`~asm_libcalls.toy_jit.frontend.opcodes`.
An extended constant expression, which adds, subtracts or multiplies, is ``(BLOCK, instructions)``:
a tuple of such pairs and pairs like ``(I32_ADD, None)``, in the order of the module.
"""

from __future__ import annotations

I32, I64, F32, F64 = 0x7F, 0x7E, 0x7D, 0x7C
V128 = 0x7B
FUNCREF, EXTERNREF = 0x70, 0x6F

VALUE_TYPES = bytes((I32, I64, F32, F64, V128, FUNCREF, EXTERNREF))
REFERENCE_TYPES = bytes((FUNCREF, EXTERNREF))
VALUE_TYPE_NAMES = {
    I32: "i32", I64: "i64", F32: "f32", F64: "f64", V128: "v128",
    FUNCREF: "funcref", EXTERNREF: "externref",
    0: "_",  # the unknown type of the validator, in code that cannot be reached
}  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, dataclass_transform

    ConstExpr = tuple[int, Any]
else:

    def dataclass_transform() -> Any:
        """Do nothing at run time. Type checkers derive the constructor from a record's fields."""
        return lambda record: record


def type_names(types: bytes) -> str:
    """Spell a sequence of value types: ``[i32 i64]``."""
    return f"[{' '.join(VALUE_TYPE_NAMES[valtype] for valtype in types)}]"


@dataclass_transform()
class Record:
    """Base of records, which have the fields that a class declares, and compare and print by them.

    (The `dataclasses` module is slow to import.)
    """

    def __init__(self, *values: Any, **named: Any) -> None:
        vars(self).update(zip(type(self).__annotations__, values, strict=not named), **named)

    def __eq__(self, other: object) -> bool:
        return vars(other) == vars(self) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        fields = (f"{name}={value!r}" for name, value in sorted(vars(self).items()))
        return f"{type(self).__name__}({', '.join(fields)})"


class FuncType(Record):
    """The type of a function: `params` and `results`, as value types in ``bytes``."""

    params: bytes
    results: bytes

    def __init__(self, params: bytes, results: bytes) -> None:
        self.params = params
        self.results = results

    def __repr__(self) -> str:
        return f"<FuncType {type_names(self.params)} -> {type_names(self.results)}>"


class Limits(Record):
    """The size of a memory (in pages) or table (in elements): `minimum`, `maximum` or None."""

    minimum: int
    maximum: int | None


class TableType(Record):
    """The type of a table: the `element` type, and its `limits`."""

    element: int
    limits: Limits


class GlobalType(Record):
    """The type of a global: its `value` type, and whether it is `mutable`."""

    value: int
    mutable: bool


class Import(Record):
    """One import: `module` and `name`, its `kind` and its `type`.

    The type is that of the kind: ``"func"`` a :class:`FuncType`, ``"table"`` a :class:`TableType`,
    ``"memory"`` :class:`Limits`, ``"global"`` a :class:`GlobalType`.
    """

    module: str
    name: str
    kind: str
    type: FuncType | TableType | Limits | GlobalType


class Export(Record):
    """One export: its `name`, the `kind` (as in :class:`Import`) and the `index` in that space."""

    name: str
    kind: str
    index: int


class Function(Record):
    """A function of the index space.

    `type_index` is the index of its `type` in `Module.types`. Its locals and instructions are the
    bytes from `start` to `end` of the module; both are 0 for an import.
    """

    type_index: int
    type: FuncType
    start: int
    end: int


class Global(Record):
    """A global of the index space: its `type`, and its `init` expression (None for an import)."""

    type: GlobalType
    init: Any


class Element(Record):
    """An element segment."""

    type: int  # the reference type of its elements
    init: list[ConstExpr]  # its elements, as constant expressions
    mode: str  # "passive" (for `table.init`), "active" (for instantiation) or "declarative"
    table: int  # the index of an active segment's table
    offset: ConstExpr | None  # an active segment's offset in the table, a constant expression


class Data(Record):
    """A data segment: the bytes `init`; `mode`, `memory` and `offset` as in :class:`Element`."""

    init: bytes
    mode: str
    memory: int
    offset: ConstExpr | None


class Module:
    """A decoded module.

    Attributes
    ----------
    types : list of FuncType
    imports : list of Import
    functions : list of Function
        The index space, imports first, as are the next three.
    tables : list of TableType
    memories : list of Limits
    globals : list of Global
    imported_functions, imported_tables, imported_memories, imported_globals : int
        How many of each index space are imports.
    exports : list of Export
        In the order of the module.
    start : int or None
        The function that instantiation calls.
    elements : list of Element
    data : list of Data
    data_count : int or None
        The value of the data count section, if the module has one.
    references : set of int
        The functions that `ref.func` may name (C.refs of the spec).
    name : str or None
        From the name section.
    function_names : dict of int to str
        From the name section.
    """

    def __init__(self, binary: bytes) -> None:
        self.binary = binary
        self.types: list[FuncType] = []
        self.imports: list[Import] = []
        self.functions: list[Function] = []
        self.tables: list[TableType] = []
        self.memories: list[Limits] = []
        self.globals: list[Global] = []
        self.imported_functions = self.imported_tables = 0
        self.imported_memories = self.imported_globals = 0
        self.exports: list[Export] = []
        self.start: int | None = None
        self.elements: list[Element] = []
        self.data: list[Data] = []
        self.data_count: int | None = None
        self.references: set[int] = set()
        self.name: str | None = None
        self.function_names: dict[int, str] = {}
        self._exported_names: dict[int, str] | None = None
        self._has_vectors: bool | None = None

    @property
    def has_vectors(self) -> bool:
        """Whether a v128 can come from a global or a function."""
        if self._has_vectors is None:
            types = [functype.params + functype.results for functype in self.types]
            types += [bytes([entry.type.value]) for entry in self.globals]
            self._has_vectors = V128 in b"".join(types)
        return self._has_vectors

    def function_name(self, index: int) -> str | None:
        """Return a function's name, from the name section or an export."""
        if self._exported_names is None:  # the first one of a function counts
            exported = [(e.index, e.name) for e in self.exports if e.kind == "func"]
            self._exported_names = dict(reversed(exported))
        return self.function_names.get(index) or self._exported_names.get(index)
