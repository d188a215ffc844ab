"""Assembles PeachPy instructions to stencils, with their holes and stack effects."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from asm_libcalls.emitter.image import Hole, Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.stencils.stack_effects import describe

_HOLE = struct.Struct("<i")
_FIRST_PLACEHOLDER = 0x5EA1_0000  # no instruction of a stencil has these bytes by itself


def assemble(
    name: str, body: Callable[[Callable[[str], int]], object], *, has_effects: bool = False
) -> Routine:
    """Assemble a stencil of an image.

    `name` is its symbol, with the prefix that ``parts.read`` takes. `body` emits the instructions.
    Its argument is a function that makes a hole: ``hole("offset")`` is a 32-bit displacement or
    immediate. With `has_effects`, record its stack effects, which the call frames of compositions
    need.
    """
    placeholders: dict[str, int] = {}

    def hole(number: str) -> int:
        return placeholders.setdefault(number, _FIRST_PLACEHOLDER + len(placeholders))

    instructions: list[Any] = []
    routine = sequence(name, lambda: body(hole), stencil=instructions)
    holes = [
        Hole("slot" if reference.is_slot else "stencil", reference.offset, reference.symbol)
        for reference in routine.references
    ]
    for number, placeholder in placeholders.items():
        pattern = _HOLE.pack(placeholder)
        at = routine.code.find(pattern)
        assert at >= 0, f"{name}: the hole {number} is not in the code"
        while at >= 0:
            holes.append(Hole("number", at, number))
            at = routine.code.find(pattern, at + len(pattern))
    effects = ""
    if has_effects:
        names = {value: number for number, value in placeholders.items()}
        effects = describe(instructions, names)
    return Routine(name, routine.code, routine.size, holes=tuple(holes), effects=effects)
