"""Reads stencils from an image and composes routines from them, without PeachPy."""

from __future__ import annotations

import struct

from asm_libcalls.emitter.image import Reference, Routine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asm_libcalls.emitter.image import Hole
    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["Part", "Stencil", "compose", "read"]

_HOLE = struct.Struct("<i")


class Stencil:
    """A piece of machine code.

    Attributes
    ----------
    code : bytes
    holes : tuple of Hole
    effects : str
        Its effects on the stack, for ``stack_effects.py``; "" if they were not recorded.
    """

    __slots__ = ("code", "effects", "holes")

    def __init__(self, code: bytes, holes: tuple[Hole, ...] = (), effects: str = "") -> None:
        self.code = code
        self.holes = holes
        self.effects = effects


class Part:
    """A stencil in a composition.

    Attributes
    ----------
    stencil : Stencil
    numbers : dict of str to int
        Values for its holes, signed 32-bit.
    slots : dict of str to str
        New names of slots, and of the roles that it jumps to, by their names in the stencil.
    role : str
        Its name as a jump target of other parts, or "".
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


def read(loaded: LoadedImage, prefix: str) -> dict[str, Stencil]:
    """Return the stencils of an image whose names begin with `prefix`, by the rest of the name."""
    return {
        name[len(prefix) :]: Stencil(loaded.original(name), placed.holes, placed.effects)
        for name, placed in loaded.image.stencils.items()
        if name.startswith(prefix)
    }


def compose(name: str, parts: Iterable[Part]) -> Routine:
    """Concatenate stencils and fill in all their holes, except the slots.

    Raises
    ------
    KeyError
        A hole has no number, or no part has the role that a jump names.
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
        for hole in part.stencil.holes:
            at = start + hole.offset
            if hole.kind == "number":
                _HOLE.pack_into(code, at, part.numbers[hole.symbol])
            elif hole.kind == "slot":
                slot = part.slots.get(hole.symbol, hole.symbol)
                references.append(Reference(at, slot, True))
            else:
                role = part.slots.get(hole.symbol, hole.symbol)
                _HOLE.pack_into(code, at, roles[role] - (at + _HOLE.size))
    return Routine(name, bytes(code), len(code), tuple(references))
