"""Which locals live in registers: those that loops use most, where calls do not cost more.

A local that is chosen has its register in the whole function. Its slot is used only while a call
runs, since all these registers are the callee's to change.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import F32, F64, I32, I64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.validator import Body

__all__ = ["choose_registers", "is_brief", "operand_registers"]

INTEGERS = 8
FLOATS = 12
OPERANDS = 2  # registers of each kind that are left for operands

_LOOP_WEIGHT = 8  # how often a loop is guessed to run
_SAVE_AND_RESTORE = 2  # what a call costs a local, in uses of it

_LOCALS = frozenset((op.LOCAL_GET, op.LOCAL_SET, op.LOCAL_TEE))
_SHIFTS = frozenset(op.OPCODES[f"i64.{verb}"] for verb in ("shl", "shr_s", "shr_u"))
_LONG_CALLS = frozenset(
    (
        op.CALL, op.CALL_INDIRECT, op.TABLE_GET, op.TABLE_SET, op.MEMORY_SIZE, op.MEMORY_GROW,
        *range(op.MEMORY_INIT, op.TABLE_FILL + 1),
    )
)  # fmt: skip
_CALLS = _LONG_CALLS | frozenset(
    (
        *(op.OPCODES[f"i64.{verb}_{sign}"] for verb in ("div", "rem") for sign in "su"),
        *(
            op.OPCODES[f"{value_type}.{verb}"]
            for value_type in ("f32", "f64")
            for verb in ("ceil", "floor", "trunc", "nearest")
        ),
    )
)  # fmt: skip


def is_brief(body: Body) -> bool:
    """Return whether a function soon ends, whatever it is given: no loop, and no call but numbers.

    For a call of it the GIL need not be released.
    """
    for opcode, immediate, _, _ in body.instructions:
        if opcode in _LONG_CALLS or (opcode == op.LOOP and immediate.targeted):
            return False
    return True


def operand_registers(places: list[str]) -> tuple[list[str], list[str]]:
    """Return the registers that no local has: integers, and floats."""
    integers = [f".r{k}" for k in range(INTEGERS)]
    floats = [f".x{k}" for k in range(FLOATS)]
    return [p for p in integers if p not in places], [p for p in floats if p not in places]


def choose_registers(body: Body, inline: bool) -> list[str]:
    """Return for each local the suffix of its register's stencils, or "" for none.

    Parameters
    ----------
    body : Body
        The function.
    inline : bool
        Whether 64-bit shifts are no calls.
    """
    types = body.local_types
    uses = [0] * len(types)
    places = [""] * len(types)
    if not uses:
        return places
    calls_of = _CALLS if inline else _CALLS | _SHIFTS
    weight, calls = 1, 0
    weights = []
    for opcode, immediate, _, _ in body.instructions:
        if opcode in _LOCALS:
            uses[immediate] += weight
        elif opcode in calls_of:
            calls += weight
        elif opcode == op.LOOP:
            weights.append(weight)
            if immediate.targeted and weight < _LOOP_WEIGHT**6:
                weight *= _LOOP_WEIGHT
        elif opcode in (op.BLOCK, op.IF):
            weights.append(weight)
        elif opcode == op.END and weights:
            weight = weights.pop()
    threshold = 2 + _SAVE_AND_RESTORE * calls
    by_use = sorted(range(len(types)), key=lambda i: -uses[i])
    integers = floats = 0
    for i in by_use:
        if uses[i] <= threshold:
            break
        if types[i] in (I32, I64) and integers < INTEGERS - OPERANDS:
            places[i], integers = f".r{integers}", integers + 1
        elif types[i] in (F32, F64) and floats < FLOATS - OPERANDS:
            places[i], floats = f".x{floats}", floats + 1
    return places
