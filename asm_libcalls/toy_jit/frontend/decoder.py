"""Bytes to :class:`Module`: the binary format, and the validity of all but function bodies.

The sections have a fixed order, in which definitions precede uses (the data count section exists
for this reason). So decoding and validating are one pass over the bytes. It records only the place
of a function body; :mod:`~asm_libcalls.toy_jit.frontend.validator` reads them.

The cost of hostile input is proportional to its length: each count is checked against the bytes
that are left before anything is done that many times.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.frontend import module as parts
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend import proposals
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.toy_jit.frontend.instruction_rules import READERS
from asm_libcalls.toy_jit.frontend.module import (
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    V128,
    FuncType,
    Limits,
    Module,
    type_names,
)
from asm_libcalls.toy_jit.frontend.operands import Operands
from asm_libcalls.toy_jit.frontend.reader import Reader, unsigned
from asm_libcalls.vmcontext import MAXIMUM_PAGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ARITY = 1000  # parameters, and results, of a function type: the limit of browsers and Wasmtime
MAX_TABLES = 100  # the limit of Wasmtime; each has mappings, whose number is limited

_NOTHING = Budget(0)  # constant expressions use nothing that is limited

UNEVEN_CODE = "function and code section have inconsistent lengths"
UNEVEN_DATA = "data count and data section have inconsistent lengths"


def decode_module(binary: bytes | bytearray | memoryview) -> Module:
    """Decode a binary module (spec 2.0, section 5), and validate all but its functions' bodies.

    It is valid only if :func:`~asm_libcalls.toy_jit.frontend.validator.validate_function` accepts
    each function. Raise InvalidModule if the bytes are no valid module.
    """
    binary = bytes(memoryview(binary))  # refuses an int, of which bytes() makes zeros
    if binary[:4] == b"\0asm" and binary[6:8] == b"\1\0":  # the layer, which is 0 for modules
        raise proposals.refusal(proposals.COMPONENT, 4)
    for start, field, what in (
        (0, b"\0asm", "magic header not detected"),
        (4, b"\1\0\0\0", "unknown binary version"),
    ):
        found = binary[start : start + 4]
        if found != field:
            raise MalformedModule("unexpected end" if field.startswith(found) else what, start)
    return _Decoder(Module(binary)).decode()


class _Decoder:
    """The module that is being decoded, and the state of decoding."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.exported: set[str] = set()
        self.stacks = Operands(module, Reader(b"", 0, 0), b"", _NOTHING)  # of constant expressions
        self.defined = 0  # the number of functions that have code, or are imports
        # By the kind of an import or export: its index space, its name, and the noun for messages.
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
        next_rank = 0
        while reader.pos < reader.end:
            start = reader.pos
            section_id = reader.byte()
            if section_id > len(_SECTIONS):
                proposals.check(proposals.SECTIONS, section_id, start)
                raise MalformedModule("malformed section id", start)
            section = reader.sized()
            if section_id == 0:
                if section.name() == "name":
                    self.names(section)
                continue
            if _RANKS[section_id] < next_rank:
                raise MalformedModule("unexpected content after last section", start)
            next_rank = _RANKS[section_id] + 1
            read = _SECTIONS[section_id]
            for _ in range(1 if section_id in _SINGLE else section.length()):
                read(self, section)
            if section.pos != section.end:
                raise MalformedModule("section size mismatch", section.pos)
        if self.defined != len(module.functions):
            raise MalformedModule(UNEVEN_CODE, reader.end)
        if module.data_count not in (None, len(module.data)):
            raise MalformedModule(UNEVEN_DATA, reader.end)
        return module

    def names(self, reader: Reader) -> None:
        """Read the name section (spec 2.0, appendix A.4).

        A custom section cannot make a module invalid (spec 2.0, section 5.5.3): a malformed one is
        ignored.
        """
        name = None
        function_names = {}
        try:
            while reader.pos < reader.end:
                subsection_id, subsection = reader.byte(), reader.sized()
                if subsection_id == 0:  # the module's
                    name = subsection.name()
                elif subsection_id == 1:  # its functions'
                    for _ in range(subsection.length()):
                        index = subsection.u32()
                        function_names[index] = subsection.name()
        except InvalidModule:
            return
        self.module.name, self.module.function_names = name, function_names

    # -- the items of sections

    def type_(self, reader: Reader) -> None:
        start = reader.pos
        form = reader.byte()
        if form != 0x60:
            proposals.check(proposals.TYPE_FORMS, form, start)
            raise MalformedModule("malformed function type", start)
        params, results = reader.value_types(), reader.value_types()
        if len(params) > MAX_ARITY or len(results) > MAX_ARITY:
            raise LimitExceeded(f"more than {MAX_ARITY} parameters or results", start)
        self.module.types.append(FuncType(params, results))

    def import_(self, reader: Reader) -> None:
        module = self.module
        module_name, name = reader.name(), reader.name()
        kind = self.kind(reader, "malformed import kind")
        described: FuncType | parts.TableType | Limits | parts.GlobalType
        if kind == 0:
            described = self.function(reader).type
            module.imported_functions = self.defined = len(module.functions)
        elif kind == 1:
            described = self.table(reader)
            module.imported_tables = len(module.tables)
        elif kind == 2:
            described = self.memory(reader)
            module.imported_memories = len(module.memories)
        else:
            described = self.global_type(reader)
            module.globals.append(parts.Global(described, None))
            module.imported_globals = len(module.globals)
        module.imports.append(parts.Import(module_name, name, self.kinds[kind][0], described))

    def function(self, reader: Reader) -> parts.Function:
        type_index = reader.index(self.module.types, "type")
        function = parts.Function(type_index, self.module.types[type_index], 0, 0)
        self.module.functions.append(function)
        return function

    def table(self, reader: Reader) -> parts.TableType:
        if len(self.module.tables) == MAX_TABLES:
            raise LimitExceeded(f"more than {MAX_TABLES} tables", reader.pos)
        if reader.data[reader.pos : reader.end].startswith(b"\x40\0"):
            raise proposals.refusal(proposals.TABLE_INITIALIZER, reader.pos)
        element = reader.reference_type()
        limits = self.limits(reader, 0xFFFF_FFFF, "", proposals.TABLE_FLAGS)  # as u32 allows
        table = parts.TableType(element, limits)
        self.module.tables.append(table)
        return table

    def memory(self, reader: Reader) -> Limits:
        start = reader.pos
        what = f"memory size must be at most {MAXIMUM_PAGES} pages (4GiB)"
        memory = self.limits(reader, MAXIMUM_PAGES, what, proposals.MEMORY_FLAGS)
        if self.module.memories:
            raise proposals.refusal(proposals.SECOND_MEMORY, start)
        self.module.memories.append(memory)
        return memory

    def global_(self, reader: Reader) -> None:
        globaltype = self.global_type(reader)
        init = self.constant(reader, globaltype.value)
        self.module.globals.append(parts.Global(globaltype, init))

    def export(self, reader: Reader) -> None:
        module, start = self.module, reader.pos
        name = reader.name()
        kind, space, noun = self.kinds[self.kind(reader, "malformed export kind")]
        index = reader.index(space, noun)
        if kind == "func":
            module.references.add(index)
        if name in self.exported:
            raise InvalidModule("duplicate export name", start)
        self.exported.add(name)
        module.exports.append(parts.Export(name, kind, index))

    def start(self, reader: Reader) -> None:
        start = reader.pos
        index = self.module.start = reader.index(self.module.functions, "function")
        if self.module.functions[index].type != FuncType(b"", b""):
            raise InvalidModule("start function must not have parameters or results", start)

    def data_count(self, reader: Reader) -> None:
        self.module.data_count = reader.u32()

    def code(self, reader: Reader) -> None:
        start = reader.pos
        if self.defined == len(self.module.functions):
            raise MalformedModule(UNEVEN_CODE, start)
        function = self.module.functions[self.defined]
        self.defined += 1
        body = reader.sized()
        function.start, function.end = body.pos, body.end

    def element(self, reader: Reader) -> None:
        """Read an element segment (spec 2.0, section 5.5.12)."""
        module, start = self.module, reader.pos
        flags = reader.u32()
        if flags > 7:
            raise MalformedModule("malformed elements segment kind", start)
        mode = "active" if not flags & 1 else "declarative" if flags & 2 else "passive"
        has_expressions = flags & 4
        table, offset, reftype = 0, None, FUNCREF
        if mode == "active":
            # Bit 1: the table's index follows. Without it the table is 0, which must exist too.
            table = self.index(reader, module.tables, "table", flags & 2)
            offset = self.constant(reader, I32)
        if flags & 3:  # all but the short forms have the type of their elements
            if has_expressions:
                reftype = reader.reference_type()
            elif reader.byte() != 0:
                raise MalformedModule("malformed element kind", reader.pos - 1)
        init: list[parts.ConstExpr] = []
        for _ in range(reader.length()):
            if has_expressions:
                init.append(self.constant(reader, reftype))
            else:
                index = reader.index(module.functions, "function")
                module.references.add(index)
                init.append((op.REF_FUNC, index))
        if mode == "active" and module.tables[table].element != reftype:
            have = type_names(bytes([reftype, module.tables[table].element]))
            raise InvalidModule(f"type mismatch: element segment and table: {have}", start)
        module.elements.append(parts.Element(reftype, init, mode, table, offset))

    def data(self, reader: Reader) -> None:
        """Read a data segment (spec 2.0, section 5.5.14)."""
        module, start = self.module, reader.pos
        flags = reader.u32()
        if flags > 2:
            raise MalformedModule("malformed data segment kind", start)
        mode, memory, offset = "passive", 0, None
        if flags != 1:
            mode, memory = "active", self.index(reader, module.memories, "memory", flags)
            offset = self.constant(reader, I32)
        init = reader.take(reader.length())
        module.data.append(parts.Data(init, mode, memory, offset))

    # -- what items consist of

    def kind(self, reader: Reader, what: str) -> int:
        """Read the kind of an import or export."""
        kind = reader.byte()
        if kind >= len(self.kinds):
            proposals.check(proposals.EXTERNAL_KINDS, kind, reader.pos - 1)
            raise MalformedModule(what, reader.pos - 1)
        return kind

    def index(self, reader: Reader, space: Sequence[object], noun: str, is_there: int) -> int:
        """Read an index, or return 0 if it is left out; check that it is in its space."""
        if not is_there and not space:
            raise InvalidModule(f"unknown {noun} 0", reader.pos)
        return reader.index(space, noun) if is_there else 0

    def constant(self, reader: Reader, expected: int) -> parts.ConstExpr:
        """Read a constant expression of a value type (spec 2.0, section 3.3.10).

        Extended constant expressions (WebAssembly 3.0) also add, subtract and multiply integers.
        """
        module, start = self.module, reader.pos
        exprs: list[parts.ConstExpr] = []
        found = bytearray()
        while True:
            at = reader.pos
            opcode = reader.byte()
            if opcode == op.END:
                break
            if opcode in (op.PREFIX, op.VECTOR_PREFIX):
                opcode = op.prefixed(opcode, reader.u32(), at)
            elif op.NAMES[opcode] is None:
                raise op.illegal(opcode, at)
            if opcode not in _CONSTANT:
                raise InvalidModule("constant expression required", at)
            valtype = _CONSTANT[opcode]
            if opcode in _ARITHMETIC:
                if found[-2:] != bytes([valtype, valtype]):
                    raise _mismatch(op.NAMES[opcode], [valtype, valtype], found[-2:], at)
                del found[-1:]
                exprs.append((opcode, None))
                continue
            self.stacks.reader = reader
            immediate = READERS[opcode][0](self.stacks)
            if opcode == op.REF_NULL:
                valtype = immediate
            elif opcode == op.REF_FUNC:
                module.references.add(immediate)
            elif opcode == op.GLOBAL_GET:
                # Globals of the module itself are not allowed, not even earlier ones (3.4.10).
                if immediate >= module.imported_globals:
                    raise InvalidModule(f"unknown global {immediate}", at)
                if module.globals[immediate].type.mutable:
                    raise InvalidModule("constant expression required", at)
                valtype = module.globals[immediate].type.value
            exprs.append((opcode, immediate))
            found.append(valtype)
        if found != bytes([expected]):
            raise _mismatch("constant expression", [expected], found[-10:], start)
        return exprs[0] if len(exprs) == 1 else (op.BLOCK, tuple(exprs))

    def limits(
        self, reader: Reader, most: int, what: str, features: Sequence[tuple[int, tuple[str, str]]]
    ) -> Limits:
        """Read limits within `most` (spec 2.0, sections 5.3.7 and 3.2.1)."""
        start = reader.pos
        flags = reader.data[start] if start < reader.end else 0
        for flag, feature in features:
            if flags < 0x10 and flags & flag:
                raise proposals.refusal(feature, start)
        has_maximum, reader.pos = unsigned(reader.data, start, reader.end, bits=1)
        minimum = reader.u32()
        maximum = reader.u32() if has_maximum else None
        if minimum > most or (maximum is not None and maximum > most):
            raise InvalidModule(what, start)
        if maximum is not None and minimum > maximum:
            raise InvalidModule("size minimum must not be greater than maximum", start)
        return Limits(minimum, maximum)

    def global_type(self, reader: Reader) -> parts.GlobalType:
        """Read the type of a global."""
        valtype = reader.value_type()
        mutable = reader.byte()
        if mutable > 1:
            raise MalformedModule("malformed mutability", reader.pos - 1)
        return parts.GlobalType(valtype, mutable == 1)


# By section id, in the order of sections: the reader of an item. The data count precedes the code.
_SECTIONS = {
    1: _Decoder.type_, 2: _Decoder.import_, 3: _Decoder.function, 4: _Decoder.table,
    5: _Decoder.memory, 6: _Decoder.global_, 7: _Decoder.export, 8: _Decoder.start,
    9: _Decoder.element, 12: _Decoder.data_count, 10: _Decoder.code, 11: _Decoder.data,
}  # fmt: skip
_RANKS = {section_id: rank for rank, section_id in enumerate(_SECTIONS)}
_SINGLE = (8, 12)  # these have one item, and no count of items

_ARITHMETIC = {
    op.I32_ADD: I32, op.I32_SUB: I32, op.I32_MUL: I32,
    op.I64_ADD: I64, op.I64_SUB: I64, op.I64_MUL: I64,
}  # fmt: skip
# The instructions of constant expressions, and the type of each result; 0 means that the immediate
# determines it.
_CONSTANT = {
    op.I32_CONST: I32, op.I64_CONST: I64, op.F32_CONST: F32, op.F64_CONST: F64,
    op.V128_CONST: V128, op.REF_FUNC: FUNCREF, op.REF_NULL: 0, op.GLOBAL_GET: 0,
    **_ARITHMETIC,
}  # fmt: skip


def _mismatch(what: str | None, need: list[int], have: bytearray, offset: int) -> InvalidModule:
    types = f"{type_names(bytes(need))} but has {type_names(bytes(have))}"
    return InvalidModule(f"type mismatch: {what} requires {types}", offset)
