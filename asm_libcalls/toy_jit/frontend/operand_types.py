"""A memo of how instructions change the types of a block's operands, for the whole process.

The operands of a block are few, and of few types. So the validator looks most instructions up: an
:class:`OperandTypes` has, by *effect*, the types after an instruction. An effect is the opcode of
an instruction whose type is fixed, or one of PUSH, POP, PEEK and SELECT by a value type.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import I32, REFERENCE_TYPES, VALUE_TYPES

PUSH, POP, PEEK, SELECT = (
    {valtype: effect for effect, valtype in enumerate(VALUE_TYPES, first)}
    for first in range(op.COUNT, op.COUNT + 4 * len(VALUE_TYPES), len(VALUE_TYPES))
)
"""By value type: the effects of instructions on locals, globals and operands of any type."""

NUMBERS = frozenset(VALUE_TYPES) - frozenset(REFERENCE_TYPES)
"""The types of which `select` without a type chooses."""

MOST = 24
"""Operands. A block that has more is validated without this memo."""

_MOST_KEPT = 1 << 10  # of 6 KB; large modules need 400

_EFFECTS = {
    opcode: op.TYPES[opcode]
    for opcode, signature in enumerate(op.SIGNATURES)
    if signature is not None or opcode in (op.I32_CONST, op.I64_CONST)
}
for _valtype in VALUE_TYPES:
    _one = bytes([_valtype])
    _EFFECTS[PUSH[_valtype]] = b"", _one
    _EFFECTS[POP[_valtype]] = _one, b""
    _EFFECTS[PEEK[_valtype]] = _one, _one
    _EFFECTS[SELECT[_valtype]] = bytes([_valtype, _valtype, I32]), _one

_UNKNOWN: list[OperandTypes | None] = [None] * (max(_EFFECTS) + 1)


class OperandTypes:
    """The types of a block's operands: ``types.after[effect] or types.find(effect)``."""

    __slots__ = ("after", "depth", "types")

    def __init__(self, types: bytes) -> None:
        self.types = types
        self.depth = len(types)  # their number
        # by effect, or None if it is not known; a list, which CPython reads faster than a dict
        self.after = [*_UNKNOWN]

    def find(self, effect: int) -> OperandTypes | None:
        """Find and keep the types after an effect; None if the instruction is not valid here."""
        params, results = _EFFECTS[effect]
        if not self.types.endswith(params):
            return None
        after = operand_types(self.types[: self.depth - len(params)] + results)
        self.after[effect] = after
        return after


_kept: dict[bytes, OperandTypes] = {}


def operand_types(types: bytes) -> OperandTypes | None:
    """Return the OperandTypes of these types, or None if they are more than MOST."""
    kept = _kept.get(types)
    if kept is None and len(types) <= MOST:
        if len(_kept) >= _MOST_KEPT:
            for each in [*_kept.values()]:
                each.after[:] = _UNKNOWN  # they refer to one another
            _kept.clear()
            _kept[b""] = EMPTY
        kept = _kept.setdefault(types, OperandTypes(types))
    return kept


EMPTY = _kept[b""] = OperandTypes(b"")
