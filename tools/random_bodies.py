"""Make the code of random functions; see :mod:`random_modules`.

Each statement takes some operands from the stack and makes the others, so that values stay on the
stack across statements and blocks, which compilers rarely do.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import F32, F64, FUNCREF, I32, V128
from wasm_encoding import CONST, END, NUMBERS, REFERENCES, encoded, s, sized, u, vector

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from random_modules import ModuleMaker

__all__ = ["CANONICAL", "PAGE", "BodyMaker"]

PAGE = 65536
CANONICAL = {F32: bytes.fromhex("0000c07f"), F64: bytes.fromhex("000000000000f87f")}
"""The bits of the canonical NaN, by type."""

_EMPTY = b"\x40"
_EQUAL = {F32: 0x5B, F64: 0x61}

_TYPES = {opcode: (tuple(params), tuple(rest)) for opcode, (params, rest) in enumerate(op.TYPES)}
_FIXED = {
    opcode: _TYPES[opcode]
    for opcode, signature in enumerate(op.SIGNATURES)
    if opcode not in op.ALIGNMENTS and (signature or op.IMMEDIATES[opcode] in ("k", "K"))
}
_SCALARS = [opcode for opcode in _FIXED if V128 not in sum(_FIXED[opcode], ())]
_VALUES = (*NUMBERS, V128)
_MAKERS = {t: [o for o, (_, results) in _FIXED.items() if results == (t,)] for t in _VALUES}
_SCALAR_MAKERS = {t: [o for o in _SCALARS if o in made] for t, made in _MAKERS.items()}
_LOADS = {t: [o for o in op.ALIGNMENTS if _TYPES[o] == ((I32,), (t,))] for t in _VALUES}
_LANE_LOADS = [o for o in op.ALIGNMENTS if _TYPES[o] == ((I32, V128), (V128,))]
_STORES = [o for o in op.ALIGNMENTS if _TYPES[o][1] == ()]
_SCALAR_STORES = [opcode for opcode in _STORES if opcode < op.VECTORS]
_SHOW_BITS = frozenset(
    op.OPCODES[name]
    for name in (
        "i32.reinterpret_f32", "i64.reinterpret_f64", "f32.copysign", "f64.copysign",
        "f32x4.splat", "f64x2.splat", "f32x4.replace_lane", "f64x2.replace_lane",
    )
)  # fmt: skip
_ANY_NAN = {
    op.OPCODES[f"{lanes}.{verb}"]: lanes
    for lanes, others in (("f32x4", "demote_f64x2_zero"), ("f64x2", "promote_low_f32x4"))
    for verb in (
        "add", "sub", "mul", "div", "min", "max", "sqrt", "ceil", "floor", "trunc", "nearest",
        others,
    )
}  # fmt: skip
_CANONICAL_LANES = {"f32x4": CANONICAL[F32] * 4, "f64x2": CANONICAL[F64] * 2}


class BodyMaker:
    """The code of a function that is being made, and what is on the operand stack there."""

    def __init__(
        self, module: ModuleMaker, params: tuple[int, ...], results: tuple[int, ...]
    ) -> None:
        self.module = module
        self.random = random = module.random
        self.results = results
        most = random.choice((3, 3, 8, 30))
        self.locals = [*params, *module.some_types(most)]
        kept = len(self.locals)
        self.locals += (F32, F64, V128) if module.vectors else (F32, F64)
        self.own_locals = self.locals[len(params) :]
        self.scratch = {value_type: i for i, value_type in enumerate(self.locals[kept:], kept)}
        self.makers = _MAKERS if module.vectors else _SCALAR_MAKERS
        self.fixed = [*_FIXED] if module.vectors else _SCALARS
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
        return sized(groups + bytes(self.code) + END)

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
        elif choice < 0.8 and depth and value_type in _VALUES:
            self._apply(random.choice(self.makers[value_type]), depth - 1)
            return
        elif choice < 0.9 and depth and value_type in _VALUES and self.module.pages:
            self._address()
            opcode = random.choice(_LOADS[value_type])
            if value_type == V128 and random.random() < 0.2:
                opcode = random.choice(_LANE_LOADS)
                self._value(V128, depth - 1)
                self.stack.pop()
            self.emit(opcode, *self._immediates(opcode))
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
        if opcode in _SHOW_BITS and params[-1] in CANONICAL:
            self._canonical(params[-1])
        self.emit(opcode, *self._immediates(opcode))
        self._replace(len(params), results)
        if opcode in _ANY_NAN:
            self._canonical_lanes(_ANY_NAN[opcode])

    def _immediates(self, opcode: int) -> list[bytes]:
        random = self.random
        immediates = []
        for letter in op.IMMEDIATES[opcode]:
            if letter == "k":
                immediates.append(u(random.randrange(op.LANES[opcode])))
            elif letter == "K":
                immediates.append(self._shuffle())
            else:
                immediates.append(self._memarg(opcode))
        return immediates

    def _shuffle(self) -> bytes:
        """Return the lanes of a shuffle: any, or such as compilers use."""
        random = self.random
        size = random.choice((1, 1, 2, 4, 4, 8))
        count = 16 // size
        kind = random.choice(("any", "one", "align", "alternate", "blend"))
        if kind == "align":
            first = random.randrange(17)
            return bytes(range(first, first + 16))
        if kind == "one":
            base = random.choice((0, count))
            lanes = [base + random.randrange(count) for _ in range(count)]
        elif kind == "alternate":
            first, swap = random.choice((0, count // 2)), random.choice((0, 1))
            lanes = [first + i // 2 + count * (i % 2 ^ swap) for i in range(count)]
        elif kind == "blend":
            lanes = [i + count * random.randrange(2) for i in range(count)]
        else:
            lanes = [random.randrange(2 * count) for _ in range(count)]
        return bytes(size * lane + i for lane in lanes for i in range(size))

    def _canonical_lanes(self, lanes: str) -> None:
        """Make canonical NaNs of any on top of the stack: x where x == x, else NaN."""
        at = u(self.scratch[V128])
        self.emit(op.LOCAL_TEE, at)
        self.emit(op.V128_CONST, _CANONICAL_LANES[lanes])
        self.emit(op.LOCAL_GET, at)
        self.emit(op.LOCAL_GET, at)
        self.emit(op.OPCODES[f"{lanes}.eq"])
        self.emit(op.OPCODES["v128.bitselect"])

    def _replace(self, count: int, results: Iterable[int]) -> None:
        del self.stack[len(self.stack) - count :]
        self.stack += results

    def _canonical(self, value_type: int) -> None:
        """Make the canonical NaN of any NaN on top of the stack: x if x == x else NaN."""
        at = u(self.scratch[value_type])
        self.emit(op.LOCAL_TEE, at)
        self.emit(CONST[value_type], CANONICAL[value_type])
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
        """Emit unreachable code: operands there may be of any type."""
        del self.stack[self._base() :]
        for _ in range(self.random.randint(1, 4)):
            choice = self.random.random()
            if choice < 0.3 and not self.stack[self._base() :]:
                # Its operands come from nowhere.
                opcode = self.random.choice(self.fixed)
                self.emit(opcode, *self._immediates(opcode))
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
        self._apply(self.random.choice(self.fixed), depth)

    def _emit_value(self) -> None:
        self._value(self.random.choice(self.module.values()))

    def _emit_drop(self) -> None:
        if len(self.stack) > self._base():
            self.emit(op.DROP)
            self.stack.pop()

    def _emit_nop(self) -> None:
        self.emit(op.NOP)

    def _emit_select(self) -> None:
        value_type = self.random.choice(self.module.values())
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
        opcode = self.random.choice(_STORES if self.module.vectors else _SCALAR_STORES)
        value_type = _TYPES[opcode][0][1]
        self._address()
        self._value(value_type)
        if value_type in CANONICAL:
            self._canonical(value_type)
        self.emit(opcode, *self._immediates(opcode))
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
