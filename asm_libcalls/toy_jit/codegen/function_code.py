"""The code of a function so far: copies of stencils, and of values from place to place.

:mod:`~asm_libcalls.toy_jit.codegen.places` says what a place is.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.copies import COPIES, INSTRUCTION_COPIES, MOVES, fill_in
from asm_libcalls.toy_jit.codegen.encodings import CONSTANT
from asm_libcalls.toy_jit.codegen.registers import NEGATED
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.body import Instruction

    Place = tuple[Any, ...]


def constant(value: int) -> Place:
    """Return the place of a known value of up to 64 bits."""
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return ("const", value)
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    return ("wide", low - (low >> 31 << 32), high - (high >> 31 << 32))


def pattern(place: Place) -> int:
    """Return the bits of a known value."""
    high = place[2] & 0xFFFFFFFF if place[0] == "wide" else 0xFFFFFFFF if place[1] < 0 else 0
    return int(place[1] & 0xFFFFFFFF | high << 32)


JUMPS = {condition: TEMPLATES[f"jump.{condition}"][0] for condition in NEGATED}
JUMPS[""] = TEMPLATES["jump"][0]
"""By condition: the jump that it takes; by "" the one that is always taken."""


_copy, _form, _move = COPIES.kept.get, INSTRUCTION_COPIES.kept.get, MOVES.kept.get


class FunctionCode:
    """Emits the code of a function, at the end of the module's.

    With its subclasses it has at most 30 attributes: CPython reads those of larger objects slower.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.code = layout.code  # the module's
        # the current instruction (see asm_libcalls.toy_jit.frontend.body)
        self.current: Instruction = (op.END, None, 0)
        # the jumps that trap: the offsets of their distances, their roles, and the offset of
        # their instruction from the first one
        self.traps: list[tuple[int, str, int]] = []

    def origin(self) -> int:
        """Return the offset of the current instruction in the module."""
        return self.layout.start + self.current[2]

    def emit(self, name: str, *values: int) -> None:
        """Copy a stencil; the values are those of its holes, in the order of the holes' names."""
        key = name, values
        bytes_, jumps = _copy(key) or COPIES.add(key)
        code = self.code
        if jumps:
            start = len(code)
            for at, role in jumps:
                self.traps.append((start + at, role, self.current[2]))
        code += bytes_

    def emit_symbol(self, name: str, symbol: str, *values: int) -> None:
        """Copy a stencil whose last hole is for the value of a symbol, which loading fills in."""
        holes = TEMPLATES[name][1]
        at = next(at for at, which in holes if which == len(values))
        self.layout.relocations.setdefault(symbol, []).append(len(self.code) + at)
        self.emit(name, *values, *[0] * (len(holes) - len(values)))

    def form(
        self,
        name: str,
        to: str = "",
        left: str = "",
        right: str = "",
        index: str = "",
        offset: int = 0,
        value: int = 0,
    ) -> None:
        """Copy a stencil of one instruction in its shortest form; see ``stencils/forms.py``.

        `offset` and `value` are its displacement and its immediate.
        """
        key = name, to, left, right, index, offset, value
        self.code += _form(key) or INSTRUCTION_COPIES.add(key)

    def with_constant(self, name: str, value: int, to: str, left: str = "") -> None:
        """Copy a stencil of one instruction whose operand in memory is a constant of 16 bytes."""
        self.form(name, to, left, index=CONSTANT)
        self.layout.constants.setdefault(value, []).append(len(self.code) - 4)

    def move(self, target: Place, source: Place) -> None:
        """Copy a value. Changes no flags, and of registers only the target and rdx."""
        key = target, source
        code = _move(key)
        if code is None:
            code = MOVES.add(key)
        if code is False:
            self.with_constant("f64.load", pattern(source), target[0])
        else:
            self.code += code

    def jump(self, condition: str, patches: list[int]) -> None:
        """Copy a jump whose target is not known yet, and note it in `patches`.

        It is taken if a condition holds, or always if that is "".
        """
        code = self.code
        code += JUMPS[condition]
        patches.append(len(code) - 4)

    def jump_back(self, condition: str, target: int) -> None:
        """Copy a jump to a known offset."""
        code = self.code
        code += JUMPS[condition]
        self.patch_jump(len(code) - 4, target)

    def land(self, patches: list[int]) -> None:
        """Make these jumps lead here."""
        code = self.code
        behind = len(code) - 4
        for at in patches:
            fill_in(code, at, behind - at)

    def patch_jump(self, at: int, target: int) -> None:
        """Fill in the distance of a jump, the last four bytes of its instruction."""
        fill_in(self.code, at, target - (at + 4))
