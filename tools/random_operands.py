"""Make the operands of random code, and instructions of fixed type; see :mod:`random_bodies`.

An instruction takes some operands from the stack and makes the others, so that values stay on the
stack across statements and blocks, which compilers rarely do.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import F32, F64, I32, V128
from random_spaces import CANONICAL, PAGE
from wasm_encoding import CONST, NUMBERS, encoded, s, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from random_spaces import IndexSpaces

_EQUAL = {F32: 0x5B, F64: 0x61}

TYPES = {opcode: (tuple(params), tuple(rest)) for opcode, (params, rest) in enumerate(op.TYPES)}
_FIXED = {
    opcode: TYPES[opcode]
    for opcode, signature in enumerate(op.SIGNATURES)
    if opcode not in op.ALIGNMENTS and (signature or op.IMMEDIATES[opcode] in ("k", "K"))
}
_SCALARS = [opcode for opcode in _FIXED if V128 not in sum(_FIXED[opcode], ())]
_VALUES = (*NUMBERS, V128)
_MAKERS = {t: [o for o, (_, results) in _FIXED.items() if results == (t,)] for t in _VALUES}
_SCALAR_MAKERS = {t: [o for o in _SCALARS if o in made] for t, made in _MAKERS.items()}
_LOADS = {t: [o for o in op.ALIGNMENTS if TYPES[o] == ((I32,), (t,))] for t in _VALUES}
_LANE_LOADS = [o for o in op.ALIGNMENTS if TYPES[o] == ((I32, V128), (V128,))]
STORES = [o for o in op.ALIGNMENTS if TYPES[o][1] == ()]
SCALAR_STORES = [opcode for opcode in STORES if opcode < op.VECTORS]
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


class OperandMaker:
    """The code of a function that is being made, and what is on the operand stack there."""

    def __init__(
        self, module: IndexSpaces, params: tuple[int, ...], results: tuple[int, ...]
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

    def emit(self, opcode: int, *immediates: bytes) -> None:
        """Append an instruction."""
        self.code += encoded(opcode)
        for immediate in immediates:
            self.code += immediate

    def base(self) -> int:
        """Return the height of the stack below the innermost block."""
        return self.labels[-1][0]

    def value(self, value_type: int, depth: int = 2) -> None:
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
            self.apply(random.choice(self.makers[value_type]), depth - 1)
            return
        elif choice < 0.9 and depth and value_type in _VALUES and self.module.pages:
            self.address()
            opcode = random.choice(_LOADS[value_type])
            if value_type == V128 and random.random() < 0.2:
                opcode = random.choice(_LANE_LOADS)
                self.value(V128, depth - 1)
                self.stack.pop()
            self.emit(opcode, *self.immediates(opcode))
            self.stack.pop()
        elif choice < 0.95 and value_type in self.module.tables:
            self.index()
            tables = [i for i, known in enumerate(self.module.tables) if known == value_type]
            self.emit(op.TABLE_GET, u(random.choice(tables)))
            self.stack.pop()
        else:
            self.code += self.module.constant(value_type)
        self.stack.append(value_type)
        self.taken = taken

    def operands(self, params: Sequence[int], depth: int = 1) -> None:
        """Have these types on top of the stack: some of what is there, and the rest anew."""
        taken = self.taken
        own = self.stack[max(self.base(), taken) :]
        most = min(len(own), len(params))
        fits = [k for k in range(most + 1) if own[len(own) - k :] == [*params[:k]]]
        for value_type in params[self.random.choice(fits) :]:
            self.taken = len(self.stack)
            self.value(value_type, depth)
        self.taken = taken

    def apply(self, opcode: int, depth: int = 1) -> None:
        """Emit an instruction of fixed type, with its operands."""
        params, results = _FIXED[opcode]
        self.operands(params, depth)
        if opcode in _SHOW_BITS and params[-1] in CANONICAL:
            self.canonical(params[-1])
        self.emit(opcode, *self.immediates(opcode))
        self.replace(len(params), results)
        if opcode in _ANY_NAN:
            self._canonical_lanes(_ANY_NAN[opcode])

    def immediates(self, opcode: int) -> list[bytes]:
        """Return an instruction's immediates."""
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

    def replace(self, count: int, results: Iterable[int]) -> None:
        """Note that an instruction took so many operands, and its results."""
        del self.stack[len(self.stack) - count :]
        self.stack += results

    def canonical(self, value_type: int) -> None:
        """Make the canonical NaN of any NaN on top of the stack: x if x == x else NaN."""
        at = u(self.scratch[value_type])
        self.emit(op.LOCAL_TEE, at)
        self.emit(CONST[value_type], CANONICAL[value_type])
        self.emit(op.LOCAL_GET, at)
        self.emit(op.LOCAL_GET, at)
        self.emit(_EQUAL[value_type])
        self.emit(op.SELECT)

    def masked(self, mask: int) -> None:
        """Push an i32 that is rarely above a mask, and is an operand of what follows."""
        self.operands((I32,))
        if self.random.random() < 0.97:
            self.emit(op.I32_CONST, s(mask))
            self.emit(op.OPCODES["i32.and"])
        self.taken = len(self.stack)

    def address(self) -> None:
        """Push a memory's address, which is rarely beyond its end."""
        self.masked(0xFFFF)

    def index(self) -> None:
        """Push an index of a table's element, which is rarely beyond its end."""
        self.masked(self.random.choice((1, 3, 7)))

    def _memarg(self, opcode: int) -> bytes:
        random = self.random
        offset = random.choice((0, 0, 0, 1, 8, 100, 65528))
        if random.random() < 0.01:
            offset = random.choice((65535, PAGE * 3, 0x7FFFFFF8, 0x7FFFFFFF, 0xFFFFFFFF))
        return u(random.randint(0, op.ALIGNMENTS[opcode])) + u(offset)
