"""Registers: their use in stencils, and the choice of locals that get one.

A local that gets a register has it in the whole function. Its slot is used only during calls, since
a callee may change all these registers.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import F32, F64, I32, I64, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.validator import Body

__all__ = [
    "ACCUMULATORS", "FLOATS", "INTEGERS", "NEGATED", "as_vector", "choose_registers", "is_brief",
    "lower_half", "operand_registers",
]  # fmt: skip

INTEGERS = ("rsi", "rdi", "r8", "r9", "r10", "r11", "rbx", "r12")
FLOATS = tuple(f"xmm{i}" for i in range(2, 14))
"""The registers of locals, and of operands besides the accumulators."""

ACCUMULATORS = {"i": ("rax", "rcx"), "f": ("xmm0", "xmm1"), "v": ("v14", "v15", "v1")}
"""The registers of a stencil's first, second and third operand: of integers, floats, and vectors.
The vectors' third is the register of a second float, because no float stays in that."""

NEGATED = {
    "z": "nz", "nz": "z", "c": "nc", "nc": "c", "be": "a", "a": "be",
    "l": "ge", "ge": "l", "le": "g", "g": "le",
}  # fmt: skip
"""The conditions that stencils test, by Intel's condition codes, and their opposites."""

_FOR_OPERANDS = 2  # registers of each kind that no local gets
_FOR_VECTORS = 3  # as above, of floats and vectors together, in functions that have vectors
_SHORT_LOOP = 300  # instructions
_LOOP_WEIGHT = 8  # assumed number of iterations of a loop
_SAVE_AND_RESTORE = 2  # the cost of a call for a local in a register, in uses of the local

_LOCALS = (op.LOCAL_GET, op.LOCAL_SET, op.LOCAL_TEE)
_LONG_CALLS = frozenset((
    op.CALL, op.CALL_INDIRECT, op.TABLE_GET, op.TABLE_SET, op.MEMORY_SIZE, op.MEMORY_GROW,
    *range(op.MEMORY_INIT, op.TABLE_FILL + 1),
))  # fmt: skip
_CALLS = _LONG_CALLS.union(
    (op.OPCODES[f"i64.{verb}"] for verb in
     ("div_s", "div_u", "rem_s", "rem_u", "shl", "shr_s", "shr_u")),
    *(range(op.OPCODES[f"{valtype}.ceil"], op.OPCODES[f"{valtype}.sqrt"])
      for valtype in ("f32", "f64")),
    (op.OPCODES[f"{lanes}.{verb}"] for lanes in ("f32x4", "f64x2")
     for verb in ("ceil", "floor", "trunc", "nearest")),
)  # fmt: skip


def lower_half(register: str) -> str:
    """Return the name of the lower 32 bits of a general-purpose register."""
    return f"{register}d" if register[1].isdigit() else f"e{register[1:]}"


def operand_registers(types: bytes) -> tuple[str, ...]:
    """Return the registers of a stencil's operands; the first of a kind is the accumulator."""
    seen = {"i": 0, "f": 0, "v": 0}
    registers = []
    for valtype in types:
        kind = "f" if valtype in (F32, F64) else "v" if valtype == V128 else "i"
        registers.append(ACCUMULATORS[kind][seen[kind]])
        seen[kind] += 1
    return tuple(registers)


def as_vector(register: str) -> str:
    """Return the name of a register of floats when it holds a vector."""
    return register.replace("xmm", "v")


def is_brief(body: Body) -> bool:
    """Return whether a function ends soon for all arguments: no loop, no calls but on numbers.

    A call of it need not release the GIL.
    """
    return not any(
        opcode in _LONG_CALLS or (opcode == op.LOOP and immediate.targeted)
        for opcode, immediate, _, _ in body.instructions
    )


def choose_registers(body: Body, inline: bool) -> dict[int, str]:
    """Choose the locals that get registers, those that loops use most; return them by index.

    Parameters
    ----------
    body : Body
        The function.
    inline : bool
        Whether instructions replace libcalls on numbers, which are no calls then.
    """
    types = body.local_types
    uses = [0] * len(types)
    calls_of = _LONG_CALLS if inline else _CALLS
    weight, calls = 1, 0
    weights = []
    for opcode, immediate, _, _ in body.instructions:
        if opcode in _LOCALS:
            uses[immediate] += weight
        elif opcode in calls_of:
            calls += weight
        elif opcode in (op.BLOCK, op.LOOP, op.IF):
            weights.append(weight)
            if opcode == op.LOOP and immediate.targeted and weight < _LOOP_WEIGHT**6:
                weight *= _LOOP_WEIGHT
        elif opcode == op.END and weights:
            weight = weights.pop()
    if body.vectors:
        carried = _carried(body)
        uses = [carried[i] if t == V128 else uses[i] for i, t in enumerate(types)]
    threshold = 2 + _SAVE_AND_RESTORE * calls
    floats = FLOATS[: -(_FOR_VECTORS if body.vectors else _FOR_OPERANDS)]
    free = {I32: list(INTEGERS[:-_FOR_OPERANDS]), F32: list(floats)}
    free[I64], free[F64], free[V128] = free[I32], free[F32], free[F32]
    chosen = {}
    for i in sorted(range(len(types)), key=lambda i: -uses[i]):
        if uses[i] <= threshold:
            break
        if free.get(types[i]):
            register = free[types[i]].pop(0)
            chosen[i] = as_vector(register) if types[i] == V128 else register
    return chosen


def _carried(body: Body) -> list[int]:
    """Return how often each vector is read in short loops before the loop writes it.

    Only such a local gains from a register. Elsewhere, or if a loop writes the vector first and so
    does not carry it to the next iteration, a register for operands often still has its value.
    """
    carried = [0] * len(body.local_types)
    # Of the innermost loop: its begin, its weight, the vectors that it has written, and those that
    # it has read before. `blocks` has the same of enclosing loops, for each open block.
    begin, weight = 0, 1
    written: set[int] | None = None
    read: list[int] = []
    blocks: list[tuple[int, int, set[int] | None, list[int]]] = []
    for at, (opcode, immediate, _, _) in enumerate(body.instructions):
        if opcode in (op.BLOCK, op.LOOP, op.IF):
            blocks.append((begin, weight, written, read))
            if opcode == op.LOOP and immediate.targeted:
                weight = min(weight * _LOOP_WEIGHT, _LOOP_WEIGHT**6)
                begin, written, read = at, set(), []
        elif opcode == op.END and blocks:
            if immediate.opcode == op.LOOP and written is not None and at - begin < _SHORT_LOOP:
                for i in read:
                    carried[i] += weight
            begin, weight, written, read = blocks.pop()
        elif written is not None and opcode in _LOCALS and body.local_types[immediate] == V128:
            if opcode != op.LOCAL_GET:
                written.add(immediate)
            elif immediate not in written:
                read.append(immediate)
    return carried
