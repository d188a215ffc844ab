"""What instructions do to the types of a block's operands, kept for the process.

The operands of a block are few, and of few types. So the validator looks most instructions up: an
:class:`OperandTypes` has, by *effect*, the types behind an instruction. An effect is the opcode of
an instruction whose type is fixed, or one of PUSH, POP, PEEK and SELECT plus a value type.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import I32, REFERENCE_TYPES, VALUE_TYPES

PUSH, POP, PEEK, SELECT = range(op.COUNT, op.COUNT + 0x400, 0x100)

NUMBERS = frozenset(VALUE_TYPES) - frozenset(REFERENCE_TYPES)
"""The types of which `select` without a type chooses."""

MOST = 24
"""Operands. A block that has more is validated without this memo."""

_MOST_KEPT = 1 << 12

_EFFECTS = {
    opcode: op.TYPES[opcode]
    for opcode, signature in enumerate(op.SIGNATURES)
    if signature is not None or opcode in (op.I32_CONST, op.I64_CONST)
}
for _valtype in VALUE_TYPES:
    _one = bytes([_valtype])
    _EFFECTS[PUSH + _valtype] = b"", _one
    _EFFECTS[POP + _valtype] = _one, b""
    _EFFECTS[PEEK + _valtype] = _one, _one
    _EFFECTS[SELECT + _valtype] = bytes([_valtype, _valtype, I32]), _one


class OperandTypes(dict[int, "OperandTypes | None"]):
    """The types of a block's operands, by effect; None if the instruction is not valid here."""

    __slots__ = ("depth", "types")

    def __init__(self, types: bytes) -> None:
        self.types = types
        self.depth = len(types)  # their number

    def __missing__(self, effect: int) -> OperandTypes | None:
        params, results = _EFFECTS[effect]
        after = None
        if self.types.endswith(params):
            after = operand_types(self.types[: self.depth - len(params)] + results)
        self[effect] = after
        return after


_kept: dict[bytes, OperandTypes] = {}


def operand_types(types: bytes) -> OperandTypes | None:
    """Return the OperandTypes of these types, or None if they are more than MOST."""
    kept = _kept.get(types)
    if kept is None and len(types) <= MOST:
        if len(_kept) >= _MOST_KEPT:
            for each in [*_kept.values()]:
                each.clear()  # they keep one another
            _kept.clear()
            _kept[b""] = EMPTY
        kept = _kept.setdefault(types, OperandTypes(types))
    return kept


EMPTY = _kept[b""] = OperandTypes(b"")
