"""Bytes to :class:`Module`: the binary format, and the validity of all but function bodies.

The sections come in a fixed order in which everything is defined before it is used (the data count
section exists for this reason), so decoding and validating are one walk over the bytes. Only the
functions' locals and instructions stay as they are, found and measured; the pass of
:mod:`~asm_libcalls.toy_jit.validator` reads them.

Hostile input costs no more than its length: every count is checked against the bytes that are
left before anything is done that many times.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import constants, leb128, names
from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.module import (
    FUNCREF,
    I32,
    Data,
    Element,
    Export,
    Function,
    FuncType,
    Global,
    GlobalType,
    Import,
    Limits,
    Module,
    TableType,
    type_names,
)
from asm_libcalls.toy_jit.reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.toy_jit.module import ConstExpr

__all__ = ["decode_module"]

MAX_ARITY = 1000  # parameters, and results, of a function type: the limit of browsers and Wasmtime
MAX_PAGES = 0x1_0000  # of a memory: 4 GiB

UNEVEN_CODE = "function and code section have inconsistent lengths"
UNEVEN_DATA = "data count and data section have inconsistent lengths"


def decode_module(binary: bytes | bytearray | memoryview) -> Module:
    """Decode a module, and validate all of it but the bodies of its functions.

    Parameters
    ----------
    binary : bytes-like
        A module in the binary format (spec 2.0, section 5).

    Returns
    -------
    Module
        Not to be trusted before :func:`~asm_libcalls.toy_jit.validator.validate_function` has
        seen each function.

    Raises
    ------
    InvalidModule
        If the bytes are no valid module.
    """
    binary = bytes(memoryview(binary))  # refuses an int, of which bytes() makes zeros
    for start, field, what in (
        (0, b"\0asm", "magic header not detected"),
        (4, b"\1\0\0\0", "unknown binary version"),
    ):
        found = binary[start : start + 4]
        if found != field:
            raise MalformedModule("unexpected end" if field.startswith(found) else what, start)
    return _Decoder(Module(binary)).decode()


class _Decoder:
    """The module that is being filled, and what is only needed until it is full."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.declared: list[Function] = []  # the functions that the code section has to define
        # What an import or export of each kind is an index into, with the kind's name there and
        # the noun for messages.
        self.kinds: tuple[tuple[str, Sequence[object], str], ...] = (
            ("func", module.functions, "function"),
            ("table", module.tables, "table"),
            ("memory", module.memories, "memory"),
            ("global", module.globals, "global"),
        )

    def decode(self) -> Module:
        """Read the sections (spec 2.0, section 5.5.2)."""
        module = self.module
        reader = Reader(module.binary, 8, len(module.binary))
        last_rank = 0
        while reader.pos < reader.end:
            start = reader.pos
            section_id = reader.byte()
            if section_id > len(_SECTIONS):
                raise MalformedModule("malformed section id", start)
            section = reader.sized()
            if section_id == 0:
                self.custom_section(section)
                continue
            rank, read = _SECTIONS[section_id]
            if rank <= last_rank:
                raise MalformedModule("unexpected content after last section", start)
            last_rank = rank
            read(self, section)
            if section.pos != section.end:
                raise MalformedModule("section size mismatch", section.pos)
        if self.declared and not self.declared[-1].end:
            raise MalformedModule(UNEVEN_CODE, reader.end)
        if module.data_count not in (None, len(module.data)):
            raise MalformedModule(UNEVEN_DATA, reader.end)
        return module

    # -- sections

    def custom_section(self, reader: Reader) -> None:
        if reader.name() == "name":
            names.read(reader, self.module)

    def type_section(self, reader: Reader) -> None:
        for _ in range(reader.length()):
            start = reader.pos
            if reader.byte() != 0x60:
                raise MalformedModule("malformed function type", start)
            params, results = reader.value_types(), reader.value_types()
            if len(params) > MAX_ARITY or len(results) > MAX_ARITY:
                raise LimitExceeded(f"more than {MAX_ARITY} parameters or results", start)
            self.module.types.append(FuncType(params, results))

    def import_section(self, reader: Reader) -> None:
        module = self.module
        for _ in range(reader.length()):
            module_name, name = reader.name(), reader.name()
            kind = self.kind(reader, "malformed import kind")
            described: FuncType | TableType | Limits | GlobalType
            if kind == 0:
                described = self.function(reader).type
                module.imported_functions += 1
            elif kind == 1:
                described = self.table(reader)
                module.imported_tables += 1
            elif kind == 2:
                described = self.memory(reader)
                module.imported_memories += 1
            else:
                described = self.global_type(reader)
                module.globals.append(Global(described, None))
                module.imported_globals += 1
            module.imports.append(Import(module_name, name, self.kinds[kind][0], described))

    def function_section(self, reader: Reader) -> None:
        self.declared = [self.function(reader) for _ in range(reader.length())]

    def table_section(self, reader: Reader) -> None:
        for _ in range(reader.length()):
            self.table(reader)

    def memory_section(self, reader: Reader) -> None:
        for _ in range(reader.length()):
            self.memory(reader)

    def global_section(self, reader: Reader) -> None:
        module = self.module
        for _ in range(reader.length()):
            globaltype = self.global_type(reader)
            init = constants.read(reader, module, globaltype.value)
            module.globals.append(Global(globaltype, init))

    def export_section(self, reader: Reader) -> None:
        module = self.module
        seen = set()
        for _ in range(reader.length()):
            start = reader.pos
            name = reader.name()
            kind, space, noun = self.kinds[self.kind(reader, "malformed export kind")]
            index = reader.index(space, noun)
            if kind == "func":
                module.references.add(index)
            if name in seen:
                raise InvalidModule("duplicate export name", start)
            seen.add(name)
            module.exports.append(Export(name, kind, index))

    def start_section(self, reader: Reader) -> None:
        module = self.module
        start = reader.pos
        module.start = reader.index(module.functions, "function")
        if module.functions[module.start].type != FuncType(b"", b""):
            raise InvalidModule("start function must not have parameters or results", start)

    def element_section(self, reader: Reader) -> None:
        for _ in range(reader.length()):
            self.module.elements.append(self.element(reader))

    def data_count_section(self, reader: Reader) -> None:
        self.module.data_count = reader.u32()

    def code_section(self, reader: Reader) -> None:
        start = reader.pos
        if reader.length() != len(self.declared):
            raise MalformedModule(UNEVEN_CODE, start)
        for function in self.declared:
            body = reader.sized()
            function.start, function.end = body.pos, body.end

    def data_section(self, reader: Reader) -> None:
        module = self.module
        start = reader.pos
        count = reader.length()
        if module.data_count not in (None, count):
            raise MalformedModule(UNEVEN_DATA, start)
        for _ in range(count):
            module.data.append(self.data(reader))

    # -- what sections consist of

    def kind(self, reader: Reader, what: str) -> int:
        """Read the kind of an import or export."""
        kind = reader.byte()
        if kind >= len(self.kinds):
            raise MalformedModule(what, reader.pos - 1)
        return kind

    def function(self, reader: Reader) -> Function:
        """Read the type of a function, and add one to the index space."""
        type_index = reader.index(self.module.types, "type")
        function = Function(type_index, self.module.types[type_index])
        self.module.functions.append(function)
        return function

    def limits(self, reader: Reader, most: int, what: str) -> Limits:
        """Read limits within `most` (spec 2.0, sections 5.3.7 and 3.2.1)."""
        start = reader.pos
        has_maximum, reader.pos = leb128.unsigned(reader.data, start, reader.end, bits=1)
        minimum = reader.u32()
        maximum = reader.u32() if has_maximum else None
        if minimum > most or (maximum is not None and maximum > most):
            raise InvalidModule(what, start)
        if maximum is not None and minimum > maximum:
            raise InvalidModule("size minimum must not be greater than maximum", start)
        return Limits(minimum, maximum)

    def table(self, reader: Reader) -> TableType:
        """Read the type of a table, and add one to the index space."""
        element = reader.reference_type()
        table = TableType(element, self.limits(reader, 0xFFFF_FFFF, ""))  # no u32 is too large
        self.module.tables.append(table)
        return table

    def memory(self, reader: Reader) -> Limits:
        """Read the type of a memory, and add one to the index space."""
        start = reader.pos
        what = f"memory size must be at most {MAX_PAGES} pages (4GiB)"
        memory = self.limits(reader, MAX_PAGES, what)
        if self.module.memories:
            raise InvalidModule("multiple memories are not allowed", start)
        self.module.memories.append(memory)
        return memory

    def global_type(self, reader: Reader) -> GlobalType:
        """Read the type of a global."""
        valtype = reader.value_type()
        mutable = reader.byte()
        if mutable > 1:
            raise MalformedModule("malformed mutability", reader.pos - 1)
        return GlobalType(valtype, mutable == 1)

    def element(self, reader: Reader) -> Element:
        """Read an element segment (spec 2.0, section 5.5.12)."""
        module = self.module
        start = reader.pos
        flags = reader.u32()
        if flags > 7:
            raise MalformedModule("malformed elements segment kind", start)
        mode = "active" if not flags & 1 else "declarative" if flags & 2 else "passive"
        has_expressions = flags & 4
        table, offset, reftype = 0, None, FUNCREF
        if mode == "active":
            # Bit 1 says that the table is named; without it, table 0 has to be there all the same.
            table_start = reader.pos
            table = reader.u32() if flags & 2 else 0
            if table >= len(module.tables):
                raise InvalidModule(f"unknown table {table}", table_start)
            offset = constants.read(reader, module, I32)
        if flags & 3:  # all but the short forms say what their elements are
            if has_expressions:
                reftype = reader.reference_type()
            elif reader.byte() != 0:
                raise MalformedModule("malformed element kind", reader.pos - 1)
        init: list[ConstExpr] = []
        for _ in range(reader.length()):
            if has_expressions:
                init.append(constants.read(reader, module, reftype))
            else:
                index = reader.index(module.functions, "function")
                module.references.add(index)
                init.append((op.REF_FUNC, index))
        if mode == "active" and module.tables[table].element != reftype:
            have = type_names(bytes([reftype, module.tables[table].element]))
            raise InvalidModule(f"type mismatch: element segment and table: {have}", start)
        return Element(reftype, init, mode, table, offset)

    def data(self, reader: Reader) -> Data:
        """Read a data segment (spec 2.0, section 5.5.14)."""
        module = self.module
        start = reader.pos
        flags = reader.u32()
        if flags > 2:
            raise MalformedModule("malformed data segment kind", start)
        if flags == 1:
            return Data(reader.take(reader.length()), "passive", 0, None)
        memory_start = reader.pos
        memory = reader.u32() if flags == 2 else 0
        if memory >= len(module.memories):
            raise InvalidModule(f"unknown memory {memory}", memory_start)
        offset = constants.read(reader, module, I32)
        return Data(reader.take(reader.length()), "active", memory, offset)


# By section id: its place in the order, and its reader. The data count comes before the code.
_SECTIONS = {
    1: (1, _Decoder.type_section),
    2: (2, _Decoder.import_section),
    3: (3, _Decoder.function_section),
    4: (4, _Decoder.table_section),
    5: (5, _Decoder.memory_section),
    6: (6, _Decoder.global_section),
    7: (7, _Decoder.export_section),
    8: (8, _Decoder.start_section),
    9: (9, _Decoder.element_section),
    12: (10, _Decoder.data_count_section),
    10: (11, _Decoder.code_section),
    11: (12, _Decoder.data_section),
}
