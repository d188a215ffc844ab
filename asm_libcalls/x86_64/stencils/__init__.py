"""Copy and patch: pieces of machine code, assembled once, put together at run time without PeachPy.

A *stencil* is a few instructions with *holes*: four bytes each, that hold a number which is known
only when the stencil is used (a displacement, a count), or the distance to a slot or to another
stencil. Stencils are routines of the image, so they are in its file where there is one; nobody
runs them there. Where their holes are is kept as labels of the image.

Source of the name: Xu and Kjolstad, "Copy-and-Patch Compilation", OOPSLA 2021.
"""

from __future__ import annotations

import struct

from asm_libcalls.emitter.image import Reference, Routine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["Part", "Stencil", "assemble", "compose", "read"]

_HOLE = struct.Struct("<i")
_FIRST_PLACEHOLDER = 0x5EA1_0000  # no instruction of a stencil has these bytes by itself
_NUMBER, _SLOT, _STENCIL, _EFFECTS = "number", "slot", "stencil", "effects"


class Stencil:
    """A piece of machine code.

    Attributes
    ----------
    code : bytes
    holes : tuple of (int, str)
        Offset and name of each number to fill in.
    references : tuple of Reference
        The distances to fill in: to slots, and to other stencils by their role.
    effects : str
        What it does to the stack, for ``stencil_frames.py``; "" too where nobody asked for it.
    """

    __slots__ = ("code", "effects", "holes", "references")

    def __init__(
        self,
        code: bytes,
        holes: tuple[tuple[int, str], ...],
        references: tuple[Reference, ...],
        effects: str = "",
    ) -> None:
        self.code = code
        self.holes = holes
        self.references = references
        self.effects = effects


class Part:
    """A stencil in a composition.

    Attributes
    ----------
    stencil : Stencil
    numbers : dict of str to int
        What to write into its holes, signed 32-bit.
    slots : dict of str to str
        For each slot that goes by another name here than in the stencil, the name here.
    role : str
        What other parts call it in their jumps, or "".
    """

    __slots__ = ("numbers", "role", "slots", "stencil")

    def __init__(
        self,
        stencil: Stencil,
        numbers: Mapping[str, int] | None = None,
        slots: Mapping[str, str] | None = None,
        role: str = "",
    ) -> None:
        self.stencil = stencil
        self.numbers = numbers or {}
        self.slots = slots or {}
        self.role = role


def assemble(
    name: str, body: Callable[[Callable[[str], int]], object], *, has_effects: bool = False
) -> Routine:
    """Assemble a stencil into a routine of the image; needs PeachPy.

    Parameters
    ----------
    name : str
        The routine's symbol, with the prefix that :func:`read` is given.
    body : callable
        Writes the instructions. It is given a function that makes a hole: ``hole("offset")``
        stands for a 32-bit displacement or immediate.
    has_effects : bool
        Note what it does to the stack, so that the frames of compositions are known.
    """
    from asm_libcalls.x86_64.assembler import sequence

    placeholders: dict[str, int] = {}

    def hole(number: str) -> int:
        return placeholders.setdefault(number, _FIRST_PLACEHOLDER + len(placeholders))

    instructions: list[Any] = []
    routine = sequence(name, lambda: body(hole), stencil=instructions)
    marks = [
        (_SLOT if reference.is_slot else _STENCIL, reference.symbol, reference.offset)
        for reference in routine.references
    ]
    for number, placeholder in placeholders.items():
        pattern = _HOLE.pack(placeholder)
        at = routine.code.find(pattern)
        assert at >= 0, f"{name}: the hole {number} is not in the code"
        while at >= 0:
            marks.append((_NUMBER, number, at))
            at = routine.code.find(pattern, at + len(pattern))
    if has_effects:
        from asm_libcalls.x86_64.stencils.stack_effects import describe

        names = {value: number for number, value in placeholders.items()}
        marks.append((_EFFECTS, describe(instructions, names), 0))
    labels = {f"{name}|{kind}|{symbol}|{at}": at for kind, symbol, at in marks}
    return Routine(name, routine.code, routine.size, (), labels)


def read(loaded: LoadedImage, prefix: str) -> dict[str, Stencil]:
    """Return the stencils of an image whose names begin with `prefix`, by the rest of the name."""
    holes: dict[str, list[tuple[int, str]]] = {}
    references: dict[str, list[Reference]] = {}
    effects: dict[str, str] = {}
    for symbol in loaded.image.routines:
        if not symbol.startswith(prefix):
            continue
        name, *mark = symbol.split("|")
        holes.setdefault(name, [])
        references.setdefault(name, [])
        if mark:
            kind, target, at = mark
            if kind == _NUMBER:
                holes[name].append((int(at), target))
            elif kind == _EFFECTS:
                effects[name] = target
            else:
                references[name].append(Reference(int(at), target, kind == _SLOT))
    return {
        name[len(prefix) :]: Stencil(
            loaded.code(name), tuple(holes[name]), tuple(references[name]), effects.get(name, "")
        )
        for name in holes
    }


def compose(name: str, parts: Iterable[Part]) -> Routine:
    """Put stencils one after the other and fill in all their holes, except the slots.

    Raises
    ------
    KeyError
        A hole has no number, or a jump no part with the role that it names.
    """
    placed: list[tuple[int, Part]] = []
    roles: dict[str, int] = {}
    code = bytearray()
    for part in parts:
        placed.append((len(code), part))
        if part.role:
            roles[part.role] = len(code)
        code += part.stencil.code
    references = []
    for start, part in placed:
        for at, number in part.stencil.holes:
            _HOLE.pack_into(code, start + at, part.numbers[number])
        for reference in part.stencil.references:
            at = start + reference.offset
            if reference.is_slot:
                slot = part.slots.get(reference.symbol, reference.symbol)
                references.append(Reference(at, slot, True))
            else:
                _HOLE.pack_into(code, at, roles[reference.symbol] - (at + _HOLE.size))
    return Routine(name, bytes(code), len(code), tuple(references))
