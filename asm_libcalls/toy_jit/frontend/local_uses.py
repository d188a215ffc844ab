"""How often a function uses each local, and calls: the compiler chooses registers by this.

The validator notes the uses while it reads the function, because reading the list of instructions
once more for them takes a tenth of a compilation.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.operands import Frame

CALL, LIBCALL_ON_NUMBERS = -1, -2
"""In the place of a local's index: a call, and a libcall that the compiler may emit inline."""

LOCALS = frozenset((op.LOCAL_GET, op.LOCAL_SET, op.LOCAL_TEE))
"""The instructions that use a local."""

CALLS = {
    **dict.fromkeys(
        (op.OPCODES[f"i64.{verb}"] for verb in
         ("div_s", "div_u", "rem_s", "rem_u", "shl", "shr_s", "shr_u")),
        LIBCALL_ON_NUMBERS,
    ),
    **dict.fromkeys(
        (op.OPCODES[f"{valtype}.{verb}"] for valtype in ("f32", "f64", "f32x4", "f64x2")
         for verb in ("ceil", "floor", "trunc", "nearest")),
        LIBCALL_ON_NUMBERS,
    ),
    **dict.fromkeys(
        (op.CALL, op.CALL_INDIRECT, op.TABLE_GET, op.TABLE_SET, op.MEMORY_SIZE, op.MEMORY_GROW,
         *range(op.MEMORY_INIT, op.TABLE_FILL + 1)),
        CALL,
    ),
}  # fmt: skip
"""By opcode: CALL or LIBCALL_ON_NUMBERS."""

_ITERATIONS = 8  # assumed, of a loop
_MOST_WEIGHT = _ITERATIONS**6


def weight_inside(weight: int) -> int:
    """Return the weight of a use in a loop, whose own weight is given."""
    return min(weight * _ITERATIONS, _MOST_WEIGHT)


class LocalUses:
    """The uses of a function's locals, and its calls, in the order of its code."""

    __slots__ = ("indices", "loops")

    def __init__(self) -> None:
        self.indices: list[int] = []  # of the locals, or CALL or LIBCALL_ON_NUMBERS
        # of each LOOP and its END: the position in `indices`, that in `Body.instructions`, and the
        # frame of the loop that begins
        self.loops: list[tuple[int, int, Frame | None]] = []

    def begin_loop(self, at: int, frame: Frame) -> None:
        """Note the beginning of a loop, whose instruction is the one at a position."""
        self.loops.append((len(self.indices), at, frame))

    def end_loop(self, at: int) -> None:
        """Note the end of the innermost loop."""
        self.loops.append((len(self.indices), at, None))

    def weigh(self, count: int) -> tuple[list[int], bool]:
        """Return how often each of `count` locals is used, and whether there is a loop.

        A use in a loop counts as several. A loop that no branch targets does not count. The last
        two numbers are those of LIBCALL_ON_NUMBERS and CALL.
        """
        weights = [0] * (count + 2)
        weight, at, has_loops = 1, 0, False
        outside: list[int] = []  # the weights outside each loop
        indices = self.indices
        by_weight: defaultdict[int, list[int]] = defaultdict(list)
        for position, _, loop in self.loops:
            by_weight[weight] += indices[at:position]
            at = position
            if loop is None:
                weight = outside.pop()
            else:
                outside.append(weight)
                if loop.targeted:
                    has_loops = True
                    weight = weight_inside(weight)
        by_weight[weight] += indices[at:]
        for weight, used in by_weight.items():
            for i, uses in Counter(used).items():
                weights[i] += weight * uses
        return weights, has_loops
