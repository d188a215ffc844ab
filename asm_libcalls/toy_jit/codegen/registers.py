"""Registers: what each is for, and which locals live in one.

A local that is chosen has its register in the whole function. Its slot is used only while a call
runs, since all these registers are the callee's to change.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import F32, F64, I32, I64, V128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.validator import Body

__all__ = [
    "ACCUMULATORS", "FLOATS", "INTEGERS", "as_vector", "choose_registers", "is_brief",
    "operand_registers",
]  # fmt: skip

INTEGERS = ("rsi", "rdi", "r8", "r9", "r10", "r11", "rbx", "r12")
FLOATS = tuple(f"xmm{i}" for i in range(2, 14))
"""The registers of locals, and of operands that an accumulator has no room for."""

ACCUMULATORS = {"i": ("rax", "rcx"), "f": ("xmm0", "xmm1"), "v": ("v14", "v15", "v1")}
"""Where stencils have the first and the second operand of a kind: integers, floats, and vectors
(the third one of which is in a register that never keeps a float)."""

_FOR_OPERANDS = 2  # registers of each kind that no local gets
_FOR_VECTORS = 3  # the same of floats and vectors together, in functions that have vectors
_SHORT_LOOP = 300  # instructions
_LOOP_WEIGHT = 8  # how often a loop is guessed to run
_SAVE_AND_RESTORE = 2  # what a call costs a local, in uses of it

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


def operand_registers(types: bytes) -> tuple[str, ...]:
    """Return where a stencil has its operands: the first of a kind in the accumulator."""
    seen = {"i": 0, "f": 0, "v": 0}
    registers = []
    for valtype in types:
        kind = "f" if valtype in (F32, F64) else "v" if valtype == V128 else "i"
        registers.append(ACCUMULATORS[kind][seen[kind]])
        seen[kind] += 1
    return tuple(registers)


def as_vector(register: str) -> str:
    """Return what a register of floats is called where it holds a vector."""
    return register.replace("xmm", "v")


def is_brief(body: Body) -> bool:
    """Return whether a function soon ends, whatever it is given: no loop, and no call but numbers.

    For a call of it the GIL need not be released.
    """
    return not any(
        opcode in _LONG_CALLS or (opcode == op.LOOP and immediate.targeted)
        for opcode, immediate, _, _ in body.instructions
    )


def choose_registers(body: Body, inline: bool) -> dict[int, str]:
    """Return the registers of locals, by their indices: those that loops use most.

    Parameters
    ----------
    body : Body
        The function.
    inline : bool
        Whether libcalls of numbers are no calls.
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
    """Return how often each vector is read in short loops that have not written it before.

    Only there does it pay to keep a vector in a register. Elsewhere, and if a loop writes a vector
    first and so does not carry it from one turn to the next, a register of the operands often has
    the value still.
    """
    carried = [0] * len(body.local_types)
    # Of the innermost loop: where it begins, how often it runs, what it has written, and read
    # before. And that of the loops around it, by the blocks that are open.
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
