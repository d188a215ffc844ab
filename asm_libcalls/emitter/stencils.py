"""Reads stencils from an image and composes routines from them, without PeachPy.

``x86_64/stencils/`` makes them.
"""

from __future__ import annotations

from _struct import Struct

from asm_libcalls.emitter.image import Hole, Image, Reference, Routine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_HOLE = Struct("<i")


class Stencil:
    """A piece of machine code."""

    __slots__ = ("code", "effects", "holes")

    def __init__(self, code: bytes, holes: tuple[Hole, ...] = (), effects: str = "") -> None:
        self.code = code
        self.holes = holes
        # its effects on the stack, for `stack_effects.py`; "" if they were not recorded
        self.effects = effects


class Part:
    """A stencil in a composition."""

    __slots__ = ("numbers", "role", "slots", "stencil")

    def __init__(
        self,
        stencil: Stencil,
        numbers: Mapping[str, int] | None = None,
        slots: Mapping[str, str] | None = None,
        role: str = "",
    ) -> None:
        self.stencil = stencil
        self.numbers = numbers or {}  # values for its holes, signed 32-bit
        # new names of slots, and of the roles that it jumps to, by their names in the stencil
        self.slots = slots or {}
        self.role = role  # its name as a jump target of other parts, or ""


def read(image: Image, prefix: str) -> dict[str, Stencil]:
    """Return the stencils of an image whose names begin with `prefix`, by the rest of the name."""
    return {
        name[len(prefix) :]: Stencil(image.original(name), placed.holes, placed.effects)
        for name, placed in image.stencils.items()
        if name.startswith(prefix)
    }


class Stencils:
    """The stencils of an image whose names begin with `prefix`, made when they are asked for."""

    __slots__ = ("_image", "_made", "_prefix")

    def __init__(self, image: Image, prefix: str) -> None:
        self._image = image
        self._prefix = prefix
        self._made: dict[str, Stencil] = {}

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self._image.stencils

    def __getitem__(self, name: str) -> Stencil:
        # Not `get`, which locks the dict in builds without the GIL: after a fork, the child keeps a
        # lock that another thread held. A subscript does not lock.
        try:
            return self._made[name]
        except KeyError:
            placed = self._image.stencils[self._prefix + name]
            code = self._image.original(self._prefix + name)
            stencil = self._made[name] = Stencil(code, placed.holes, placed.effects)
            return stencil


def compose(name: str, parts: Iterable[Part]) -> Routine:
    """Concatenate stencils and fill in all their holes, except the slots.

    Raise KeyError if a hole has no number, or no part has the role that a jump names.
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
