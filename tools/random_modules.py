"""Make random WebAssembly modules that are valid, and that end.

    random_modules.make(random.Random(7))       -> the binary format of one

Everything of WebAssembly 2.0 but SIMD comes up. Loops and functions use fuel, which the exported
function ``refuel`` gives back: so a call ends, by a trap if need be. All that there is to compare
between two implementations is exported. Nowhere do the bits of a NaN that an instruction made
decide anything: before a store, a reinterpretation or a copysign it becomes the canonical one.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import EXTERNREF, F32, F64, FUNCREF, I32, I64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

__all__ = ["make", "s", "u"]

NUMBERS = (I32, I64, F32, F64)
REFERENCES = (FUNCREF, EXTERNREF)
FUEL = 400
PAGE = 65536

_END = b"\x0b"
_EMPTY = b"\x40"
_CONST = {I32: 0x41, I64: 0x42, F32: 0x43, F64: 0x44}
_CANONICAL = {F32: bytes.fromhex("0000c07f"), F64: bytes.fromhex("000000000000f87f")}
_EQUAL = {F32: 0x5B, F64: 0x61}

_FIXED = {
    opcode: (tuple(signature[0]), tuple(signature[2]))
    for opcode, signature in enumerate(op.SIGNATURES)
    if signature is not None and opcode not in op.ALIGNMENTS
}
_MAKERS = {t: [o for o, (_, results) in _FIXED.items() if results == (t,)] for t in NUMBERS}
_LOADS = {
    t: [o for o in op.ALIGNMENTS if op.SIGNATURES[o][2] == bytes([t])]  # type: ignore[index]
    for t in NUMBERS
}
_STORES = [o for o in op.ALIGNMENTS if op.SIGNATURES[o][2] == b""]  # type: ignore[index]
_SHOW_BITS = frozenset(
    op.OPCODES[name]
    for name in (
        "i32.reinterpret_f32", "i64.reinterpret_f64", "f32.copysign", "f64.copysign",
    )
)  # fmt: skip

_INTEGERS = (0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 65535, 65536, -1, -2, -128, -129)
_FLOATS = {
    F32: ("00000000", "00000080", "0000803f", "000080bf", "0000003f", "000020c0", "0000807f",
          "000080ff", "0000c07f", "0100807f", "0000004f", "0000004b", "01000000", "ffff7f7f"),
    F64: ("0000000000000000", "0000000000000080", "000000000000f03f", "000000000000f0bf",
          "000000000000e03f", "00000000000004c0", "000000000000f07f", "000000000000f0ff",
          "000000000000f87f", "010000000000f07f", "000000000000e041", "0000000000004043",
          "0100000000000000", "ffffffffffffef7f"),
}  # fmt: skip


def u(value: int) -> bytes:
    """Return an unsigned LEB128."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def s(value: int) -> bytes:
    """Return a signed LEB128."""
    encoded = bytearray()
    while not -0x40 <= value < 0x40:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value & 0x7F])


def vector(items: Sequence[bytes]) -> bytes:
    """Return a vector of encoded items."""
    return u(len(items)) + b"".join(items)


def sized(content: bytes) -> bytes:
    """Return bytes with their length before them."""
    return u(len(content)) + content


def encoded(opcode: int) -> bytes:
    """Return an opcode's bytes."""
    return b"\xfc" + u(opcode - 0x100) if opcode >= 0x100 else bytes([opcode])


def make(random: Random) -> bytes:
    """Return a random module in the binary format."""
    return _ModuleMaker(random).make()


class _ModuleMaker:
    """A module that is being made: its index spaces, imports first."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.types: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.functions: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.globals: list[tuple[int, bool]] = []
        self.tables: list[int] = []
        self.pages = 0
        self.elements: list[int] = []
        self.data = 0
        self.fuel = 0  # the index of its global

    def type_index(self, params: Iterable[int], results: Iterable[int]) -> int:
        """Return the index of a function type, which may be new."""
        functype = (tuple(params), tuple(results))
        if functype not in self.types:
            self.types.append(functype)
        return self.types.index(functype)

    def some_types(self, most: int) -> tuple[int, ...]:
        """Return up to so many value types."""
        choices = (*NUMBERS, *NUMBERS, *REFERENCES)
        return tuple(self.random.choices(choices, k=self.random.randint(0, most)))

    def some_functype(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return a function type; sometimes one with very many parameters."""
        most = 12 if self.random.random() < 0.1 else 4
        return self.some_types(most), self.some_types(self.random.choice((1, 1, 1, 3, 6)))

    def make(self) -> bytes:
        """Choose everything, and encode it."""
        random = self.random
        imports = self._imports()
        imported = len(self.functions)
        memories = []
        if not self.pages and random.random() < 0.9:
            self.pages = random.choice((1, 1, 1, 2, 3))
            largest = random.choice((self.pages, self.pages + 2))
            memories.append(b"\x01" + u(self.pages) + u(largest))
        tables = []
        for _ in range(random.randint(0, 3)):
            element, size = random.choice(REFERENCES), random.randint(0, 12)
            self.tables.append(element)
            tables.append(bytes([element, 1]) + u(size) + u(size + random.randint(0, 8)))
        for _ in range(random.randint(1, 5)):
            self.functions.append(self.some_functype())
        refuel = len(self.functions)
        self.functions.append(((), ()))
        globals_ = self._globals()
        data = self._data()
        elements = self._elements()
        code = [self._body(i) for i in range(imported, refuel)]
        code.append(sized(u(0) + b"\x41" + s(FUEL) + b"\x24" + u(self.fuel) + _END))
        start = b""
        plain = [i for i in range(refuel) if self.functions[i] == ((), ())]
        if plain and random.random() < 0.1:
            start = u(random.choice(plain))
        exports = [
            *((f"f{i}", 0, i) for i in range(refuel)),
            ("refuel", 0, refuel),
            *((f"t{i}", 1, i) for i in range(len(self.tables))),
            *(("m", 2, 0) for _ in range(bool(self.pages))),
            *((f"g{i}", 3, i) for i in range(len(self.globals))),
        ]
        declared = [u(self.type_index(*functype)) for functype in self.functions[imported:]]
        sections = [
            (2, vector(imports)),
            (3, vector(declared)),
            (4, vector(tables)),
            (5, vector(memories)),
            (6, vector(globals_)),
            (7, vector([sized(n.encode()) + bytes([kind]) + u(i) for n, kind, i in exports])),
            (8, start),
            (9, vector(elements)),
            (12, u(len(data))),
            (10, vector(code)),
            (11, vector(data)),
        ]
        types = vector(
            [b"\x60" + sized(bytes(params)) + sized(bytes(rest)) for params, rest in self.types]
        )
        # The types that the code turned out to want are known only now, and come first.
        return b"\0asm\1\0\0\0" + b"".join(
            bytes([id_]) + sized(content) for id_, content in [(1, types), *sections] if content
        )

    def _imports(self) -> list[bytes]:
        random = self.random
        imports: list[bytes] = []

        def add(kind: int, description: bytes) -> None:
            imports.append(
                sized(b"host") + sized(b"%d" % len(imports)) + bytes([kind]) + description
            )

        for _ in range(random.choice((0, 0, 1, 2, 4))):
            self.functions.append(self.some_functype())
            add(0, u(self.type_index(*self.functions[-1])))
        for _ in range(random.choice((0, 0, 1, 3))):
            value_type, mutable = random.choice((*NUMBERS, *REFERENCES)), random.random() < 0.5
            self.globals.append((value_type, mutable))
            add(3, bytes([value_type, mutable]))
        if random.random() < 0.2:
            self.pages = 1
            add(2, b"\x01\x01\x04")
        if random.random() < 0.2:
            self.tables.append(random.choice(REFERENCES))
            add(1, bytes([self.tables[-1], 1]) + u(4) + u(10))
        return imports

    def constant(self, value_type: int) -> bytes:
        """Return a constant expression, without its end."""
        random = self.random
        if value_type in REFERENCES:
            if value_type == FUNCREF and self.functions and random.random() < 0.7:
                return b"\xd2" + u(random.randrange(len(self.functions)))
            return bytes([0xD0, value_type])
        if value_type in _FLOATS:
            if random.random() < 0.5:
                immediate = bytes.fromhex(random.choice(_FLOATS[value_type]))
            else:
                immediate = random.randbytes(len(_CANONICAL[value_type]))
        else:
            bits = 32 if value_type == I32 else 64
            kind = random.random()
            if kind < 0.5:
                value = random.choice(_INTEGERS)
            elif kind < 0.8:
                value = random.getrandbits(random.randint(1, bits))
            else:
                value = (1 << random.randrange(bits)) - random.randint(0, 2)
            value &= (1 << bits) - 1
            immediate = s(value - (value >> (bits - 1) << bits))
        return bytes([_CONST[value_type]]) + immediate

    def _globals(self) -> list[bytes]:
        random = self.random
        imported = list(self.globals)
        globals_ = []
        for _ in range(random.randint(0, 6)):
            value_type, mutable = random.choice((*NUMBERS, *REFERENCES)), random.random() < 0.7
            same = [i for i, known in enumerate(imported) if known == (value_type, False)]
            init = self.constant(value_type)
            if same and random.random() < 0.5:
                init = b"\x23" + u(random.choice(same))
            globals_.append(bytes([value_type, mutable]) + init + _END)
            self.globals.append((value_type, mutable))
        self.fuel = len(self.globals)
        self.globals.append((I32, True))
        globals_.append(bytes([I32, 1]) + b"\x41" + s(FUEL) + _END)
        return globals_

    def _data(self) -> list[bytes]:
        random = self.random
        data = []
        for _ in range(random.choice((0, 1, 2, 3))):
            content = random.randbytes(random.choice((0, 1, 5, 40)))
            if self.pages and random.random() < 0.6:
                room = self.pages * PAGE - len(content)
                # One in fifty does not fit.
                at = (
                    room + random.randint(1, 9)
                    if random.random() < 0.02
                    else random.randint(0, room)
                )
                data.append(b"\x00\x41" + s(at) + _END + sized(content))
            else:
                data.append(b"\x01" + sized(content))
        self.data = len(data)
        return data

    def _elements(self) -> list[bytes]:
        random = self.random
        elements = []
        for _ in range(random.choice((0, 1, 2, 4))):
            element = random.choice(REFERENCES)
            items = [self.constant(element) + _END for _ in range(random.randint(0, 5))]
            tables = [i for i, known in enumerate(self.tables) if known == element]
            if tables and random.random() < 0.5:
                # A table may be smaller: then instantiation traps.
                at = b"\x41" + s(random.choice((0, 0, 0, 1, 3))) + _END
                encoding = (
                    b"\x06" + u(random.choice(tables)) + at + bytes([element]) + vector(items)
                )
            elif element == FUNCREF and random.random() < 0.5:
                indices = [u(random.randrange(len(self.functions))) for _ in items]
                encoding = b"\x01\x00" + vector(indices)
            else:
                mode = random.choice((b"\x05", b"\x05", b"\x07"))
                encoding = mode + bytes([element]) + vector(items)
            elements.append(encoding)
            self.elements.append(element)
        return elements

    def _body(self, index: int) -> bytes:
        return _BodyMaker(self, *self.functions[index]).make()


class _BodyMaker:
    """The code of a function that is being made, and what is on the operand stack there."""

    def __init__(
        self, module: _ModuleMaker, params: tuple[int, ...], results: tuple[int, ...]
    ) -> None:
        self.module = module
        self.random = random = module.random
        self.results = results
        most = random.choice((3, 3, 8, 30))
        self.locals = [*params, *module.some_types(most), F32, F64]
        self.own_locals = self.locals[len(params) :]
        self.scratch = {F32: len(self.locals) - 2, F64: len(self.locals) - 1}
        self.code = bytearray()
        self.stack: list[int] = []
        self.taken = 0  # what is below this height on the stack is an operand already
        self.labels: list[
            tuple[int, tuple[int, ...]]
        ] = []  # height below it, what a branch carries
        self.budget = random.choice((10, 40, 40, 120))  # statements

    def make(self) -> bytes:
        """Return the function's entry in the code section."""
        self._use_fuel()
        self.labels.append((0, self.results))
        self._sequence(self.results)
        groups = vector([u(1) + bytes([value_type]) for value_type in self.own_locals])
        return sized(groups + bytes(self.code) + _END)

    # -- values

    def emit(self, opcode: int, *immediates: bytes) -> None:
        """Append an instruction."""
        self.code += encoded(opcode)
        for immediate in immediates:
            self.code += immediate

    def _base(self) -> int:
        return self.labels[-1][0]

    def _value(self, value_type: int, depth: int = 2) -> None:
        """Push a value of a type."""
        random = self.random
        taken = self.taken
        choice = random.random()
        ready = [i for i, known in enumerate(self.locals) if known == value_type]
        kept = [i for i, (known, _) in enumerate(self.module.globals) if known == value_type]
        if choice < 0.4 and ready:
            self.emit(op.LOCAL_GET, u(random.choice(ready)))
        elif choice < 0.5 and kept:
            self.emit(op.GLOBAL_GET, u(random.choice(kept)))
        elif choice < 0.8 and depth and value_type in NUMBERS:
            self._apply(random.choice(_MAKERS[value_type]), depth - 1)
            return
        elif choice < 0.9 and depth and value_type in NUMBERS and self.module.pages:
            self._address()
            opcode = random.choice(_LOADS[value_type])
            self.emit(opcode, self._memarg(opcode))
            self.stack.pop()
        elif choice < 0.95 and value_type in self.module.tables:
            self._index()
            tables = [i for i, known in enumerate(self.module.tables) if known == value_type]
            self.emit(op.TABLE_GET, u(random.choice(tables)))
            self.stack.pop()
        else:
            self.code += self.module.constant(value_type)
        self.stack.append(value_type)
        self.taken = taken

    def _operands(self, params: Sequence[int], depth: int = 1) -> None:
        """Have these types on top of the stack: some of what is there, and the rest anew."""
        taken = self.taken
        own = self.stack[max(self._base(), taken) :]
        most = min(len(own), len(params))
        fits = [k for k in range(most + 1) if own[len(own) - k :] == [*params[:k]]]
        for value_type in params[self.random.choice(fits) :]:
            self.taken = len(self.stack)
            self._value(value_type, depth)
        self.taken = taken

    def _apply(self, opcode: int, depth: int = 1) -> None:
        """Emit an instruction of fixed type, with its operands."""
        params, results = _FIXED[opcode]
        self._operands(params, depth)
        if opcode in _SHOW_BITS and params[-1] in _CANONICAL:
            self._canonical(params[-1])
        self.emit(opcode)
        self._replace(len(params), results)

    def _replace(self, count: int, results: Iterable[int]) -> None:
        del self.stack[len(self.stack) - count :]
        self.stack += results

    def _canonical(self, value_type: int) -> None:
        """Make the canonical NaN of any NaN on top of the stack: x if x == x else NaN."""
        at = u(self.scratch[value_type])
        self.emit(op.LOCAL_TEE, at)
        self.emit(_CONST[value_type], _CANONICAL[value_type])
        self.emit(op.LOCAL_GET, at)
        self.emit(op.LOCAL_GET, at)
        self.emit(_EQUAL[value_type])
        self.emit(op.SELECT)

    def _masked(self, mask: int) -> None:
        """Push an i32 that is rarely above a mask, and is an operand of what follows."""
        self._operands((I32,))
        if self.random.random() < 0.97:
            self.emit(op.I32_CONST, s(mask))
            self.emit(op.OPCODES["i32.and"])
        self.taken = len(self.stack)

    def _address(self) -> None:
        self._masked(0xFFFF)

    def _index(self) -> None:
        self._masked(self.random.choice((1, 3, 7)))

    def _memarg(self, opcode: int) -> bytes:
        random = self.random
        offset = random.choice((0, 0, 0, 1, 8, 100, 65528))
        if random.random() < 0.01:
            offset = random.choice((65535, PAGE * 3, 0x7FFFFFF8, 0x7FFFFFFF, 0xFFFFFFFF))
        return u(random.randint(0, op.ALIGNMENTS[opcode])) + u(offset)

    # -- statements

    def _sequence(self, results: tuple[int, ...]) -> None:
        """Emit statements, and have the results of the block on the stack at its end."""
        base = self._base()
        for _ in range(self.random.randint(1, 12)):
            self.budget -= 1
            if self.budget <= 0:
                break
            if self._statement():
                if self.random.random() < 0.3:
                    self._dead_code()
                self.stack[base:] = results
                return
        while len(self.stack) - base > len(results) or (
            self.stack[base:] != [*results[: len(self.stack) - base]]
        ):
            self.emit(op.DROP)
            self.stack.pop()
        for value_type in results[len(self.stack) - base :]:
            self.taken = len(self.stack)
            self._value(value_type)

    def _dead_code(self) -> None:
        """Emit what nothing reaches: operands there may be of any type."""
        del self.stack[self._base() :]
        for _ in range(self.random.randint(1, 4)):
            choice = self.random.random()
            if choice < 0.3 and not self.stack[self._base() :]:
                # Its operands come from nowhere.
                opcode = self.random.choice([*_FIXED])
                self.emit(opcode)
                self.emit(op.DROP)
            elif choice < 0.4 and not self.stack[self._base() :]:
                self.emit(op.DROP)
            elif self._statement():
                del self.stack[self._base() :]
        while len(self.stack) > self._base():
            self.emit(op.DROP)
            self.stack.pop()

    def _statement(self) -> bool:
        """Emit something; return whether what follows is dead."""
        random = self.random
        self.taken = self._base()
        kinds, weights = zip(*_STATEMENTS.items(), strict=True)
        kind = random.choices(kinds, weights)[0]
        return bool(getattr(self, f"_emit_{kind}")())

    def _emit_operation(self) -> None:
        depth = self.random.choice((1, 2, 2, 2, 6))  # the last for more operands than registers
        self._apply(self.random.choice([*_FIXED]), depth)

    def _emit_value(self) -> None:
        self._value(self.random.choice((*NUMBERS, *REFERENCES)))

    def _emit_drop(self) -> None:
        if len(self.stack) > self._base():
            self.emit(op.DROP)
            self.stack.pop()

    def _emit_nop(self) -> None:
        self.emit(op.NOP)

    def _emit_select(self) -> None:
        value_type = self.random.choice((*NUMBERS, *REFERENCES))
        self._operands((value_type, value_type, I32))
        if value_type in REFERENCES or self.random.random() < 0.3:
            self.emit(op.SELECT_T, u(1), bytes([value_type]))
        else:
            self.emit(op.SELECT)
        self._replace(2, ())
        self.stack[-1] = value_type

    def _emit_local(self) -> None:
        scratch = len(self.scratch)
        if len(self.locals) == scratch:
            return
        index = self.random.randrange(len(self.locals) - scratch)
        self._operands((self.locals[index],))
        if self.random.random() < 0.4:
            self.emit(op.LOCAL_TEE, u(index))
        else:
            self.emit(op.LOCAL_SET, u(index))
            self.stack.pop()

    def _emit_global(self) -> None:
        settable = [
            i for i, (_, mutable) in enumerate(self.module.globals)
            if mutable and i != self.module.fuel
        ]  # fmt: skip
        if settable:
            index = self.random.choice(settable)
            self._operands((self.module.globals[index][0],))
            self.emit(op.GLOBAL_SET, u(index))
            self.stack.pop()

    def _emit_reference(self) -> None:
        self._operands((self.random.choice(REFERENCES),))
        self.emit(op.REF_IS_NULL)
        self._replace(1, (I32,))

    def _emit_store(self) -> None:
        if not self.module.pages:
            return
        opcode = self.random.choice(_STORES)
        value_type = op.SIGNATURES[opcode][0][1]  # type: ignore[index]
        self._address()
        self._value(value_type)
        if value_type in _CANONICAL:
            self._canonical(value_type)
        self.emit(opcode, self._memarg(opcode))
        self._replace(2, ())

    def _emit_memory(self) -> None:
        module, random = self.module, self.random
        if not module.pages:
            return
        choice = random.choice(("size", "grow", "fill", "copy", "init", "drop"))
        if choice == "size":
            self.emit(op.MEMORY_SIZE, b"\0")
            self.stack.append(I32)
        elif choice == "grow":
            self._masked(1)
            self.emit(op.MEMORY_GROW, b"\0")
        elif choice in ("fill", "copy"):
            self._address()
            self._address()
            self._masked(random.choice((7, 255, 4095)))
            self.emit(*((op.MEMORY_FILL, b"\0") if choice == "fill" else (op.MEMORY_COPY, b"\0\0")))
            self._replace(3, ())
        elif module.data:
            index = u(random.randrange(module.data))
            if choice == "drop":
                self.emit(op.DATA_DROP, index)
                return
            self._address()
            self._masked(7)
            self._masked(7)
            self.emit(op.MEMORY_INIT, index, b"\0")
            self._replace(3, ())

    def _emit_table(self) -> None:
        module, random = self.module, self.random
        if not module.tables:
            return
        table = random.randrange(len(module.tables))
        element = module.tables[table]
        choice = random.choice(("set", "size", "grow", "fill", "copy", "init", "drop"))
        segments = [i for i, known in enumerate(module.elements) if known == element]
        if choice == "set":
            self._index()
            self._value(element)
            self.emit(op.TABLE_SET, u(table))
            self._replace(2, ())
        elif choice == "size":
            self.emit(op.TABLE_SIZE, u(table))
            self.stack.append(I32)
        elif choice == "grow":
            self._operands((element,))
            self._masked(3)
            self.emit(op.TABLE_GROW, u(table))
            self._replace(2, (I32,))
        elif choice == "fill":
            self._index()
            self._value(element)
            self._masked(3)
            self.emit(op.TABLE_FILL, u(table))
            self._replace(3, ())
        elif choice == "copy":
            source = random.choice([i for i, known in enumerate(module.tables) if known == element])
            self._index()
            self._index()
            self._masked(3)
            self.emit(op.TABLE_COPY, u(table), u(source))
            self._replace(3, ())
        elif segments:
            segment = u(random.choice(segments))
            if choice == "drop":
                self.emit(op.ELEM_DROP, segment)
                return
            self._index()
            self._masked(1)
            self._masked(3)
            self.emit(op.TABLE_INIT, segment, u(table))
            self._replace(3, ())

    # -- control

    def _use_fuel(self) -> None:
        fuel = u(self.module.fuel)
        self.emit(op.GLOBAL_GET, fuel)
        self.emit(op.OPCODES["i32.eqz"])
        self.emit(op.IF, _EMPTY)
        self.emit(op.UNREACHABLE)
        self.emit(op.END)
        self.emit(op.GLOBAL_GET, fuel)
        self.emit(op.I32_CONST, s(1))
        self.emit(op.OPCODES["i32.sub"])
        self.emit(op.GLOBAL_SET, fuel)

    def _emit_block(self) -> None:
        random = self.random
        if len(self.labels) > 6:
            return
        opcode = random.choice((op.BLOCK, op.LOOP, op.LOOP, op.IF))
        results = self.module.some_types(random.choice((0, 1, 1, 3)))
        own = self.stack[self._base() :]
        count = random.choice((0, 0, min(len(own), random.randint(0, 3))))
        params = tuple(own[len(own) - count :])
        if opcode == op.IF:
            self.taken = len(self.stack)
            self._value(I32)
            self.stack.pop()
        if not params and len(results) < 2 and random.random() < 0.8:
            blocktype = bytes(results) or _EMPTY
        else:
            blocktype = s(self.module.type_index(params, results))
        self.emit(opcode, blocktype)
        height = len(self.stack) - count
        self.labels.append((height, params if opcode == op.LOOP else results))
        if opcode == op.LOOP:
            self._use_fuel()
        self._sequence(results)
        if opcode == op.IF and (params != results or random.random() < 0.7):
            self.emit(op.ELSE)
            self.stack[height:] = params
            self._sequence(results)
        self.labels.pop()
        self.emit(op.END)

    def _label(self) -> tuple[bytes, tuple[int, ...]]:
        depth = self.random.randrange(len(self.labels))
        return u(depth), self.labels[-1 - depth][1]

    def _emit_branch_if(self) -> None:
        label, carried = self._label()
        self._operands((*carried, I32))
        self.emit(op.BR_IF, label)
        self.stack.pop()

    def _emit_branch(self) -> bool:
        label, carried = self._label()
        self._operands(carried)
        self.emit(op.BR, label)
        return True

    def _emit_branch_table(self) -> bool:
        default, carried = self._label()
        same = [i for i, (_, other) in enumerate(reversed(self.labels)) if other == carried]
        targets = [u(self.random.choice(same)) for _ in range(self.random.randint(0, 5))]
        self._operands((*carried, I32))
        if self.random.random() < 0.7:
            self.emit(op.I32_CONST, s(7))
            self.emit(op.OPCODES["i32.and"])
        self.emit(op.BR_TABLE, vector(targets), default)
        return True

    def _emit_return(self) -> bool:
        self._operands(self.results)
        self.emit(op.RETURN)
        return True

    def _emit_unreachable(self) -> bool:
        self.emit(op.UNREACHABLE)
        return True

    def _emit_call(self) -> None:
        index = self.random.randrange(len(self.module.functions))
        params, results = self.module.functions[index]
        self._operands(params)
        self.emit(op.CALL, u(index))
        self._replace(len(params), results)

    def _emit_call_indirect(self) -> None:
        module, random = self.module, self.random
        tables = [i for i, element in enumerate(module.tables) if element == FUNCREF]
        if not tables:
            return
        params, results = random.choice(module.functions)
        self._operands(params)
        self.taken = len(self.stack)
        self._value(I32)
        if random.random() < 0.9:
            self.emit(op.I32_CONST, s(3))
            self.emit(op.OPCODES["i32.and"])
        type_index = u(module.type_index(params, results))
        self.emit(op.CALL_INDIRECT, type_index, u(random.choice(tables)))
        self._replace(len(params) + 1, results)


_STATEMENTS = {
    "operation": 30, "value": 12, "drop": 6, "nop": 1, "select": 5, "local": 20, "global": 5,
    "reference": 2, "store": 8, "memory": 5, "table": 5, "block": 16, "branch_if": 6, "branch": 1,
    "branch_table": 1, "return": 0.6, "unreachable": 0.2, "call": 4, "call_indirect": 3,
}  # fmt: skip
"""What a statement may be, and how often."""
