"""Routines, and their linking into one position-independent image. Pure data, without PeachPy.

An image is code, then (from the next page on) data: a table of eight-byte *slots* that hold
addresses known only at run time, those of C functions and callbacks. Code refers to both relative
to the instruction pointer, so an image contains no address. It can be kept in a file and mapped
anywhere, and its code pages are never written after they are made.
"""

from __future__ import annotations

import marshal
from _struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asm_libcalls.emitter.call_frames import Frames

CODE_PAGE = 4096
"""Slots begin at a multiple of this many bytes; every x86-64 page is a multiple of it."""

MARSHAL_VERSION = 2
"""Of what is kept in files: every Python reads it, and it depends on no object's identity."""

_PADDING = b"\xcc"  # int3: nothing falls through from one routine into the next
_DISPLACEMENT = Struct("<i")


class Reference:
    """Four bytes of a routine that hold the distance to a symbol."""

    __slots__ = ("is_slot", "offset", "symbol")

    def __init__(self, offset: int, symbol: str, is_slot: bool) -> None:
        # offset of the four bytes in the routine; the distance counts from their end
        self.offset = offset
        self.symbol = symbol  # a routine of the image, or a slot
        self.is_slot = is_slot  # whether `symbol` is a slot


class Hole:
    """Four bytes of a stencil that are filled in when it is copied."""

    __slots__ = ("kind", "offset", "symbol")

    def __init__(self, kind: str, offset: int, symbol: str) -> None:
        # a number given when the stencil is copied; the distance to a slot; or the distance to
        # another stencil, by its role
        self.kind = kind
        self.offset = offset  # offset of the four bytes in the stencil
        self.symbol = symbol  # the name of the number, the slot or the role

    def __repr__(self) -> str:
        return f"<Hole {self.kind} {self.symbol} at {self.offset}>"


class Routine:
    """The code of one routine, followed by the constants that it loads."""

    __slots__ = (
        "alignment", "code", "effects", "frames", "holes", "is_straight", "labels", "name",
        "references", "size",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        code: bytes,
        size: int,
        references: tuple[Reference, ...] = (),
        labels: dict[str, int] | None = None,
        alignment: int = 16,
        frames: Frames = (),
        holes: tuple[Hole, ...] | None = None,
        effects: str = "",
        is_straight: bool = False,
    ) -> None:
        self.name = name  # its symbol
        self.code = code  # instructions, then constants
        self.size = size  # how many bytes of `code` are instructions
        self.references = references  # the displacements that the linker fills in
        self.labels = labels or {}  # further symbols inside the routine, with their offsets
        self.alignment = alignment  # the alignment that `code` needs, at least 16
        # its call frames, each with the offset from which it holds; () if they are unknown, and of
        # a stencil
        self.frames = frames
        # those of a stencil, which is copied and never run in the image; None for a routine
        self.holes = holes
        # of a stencil: its effects on the stack, for `stack_effects.py`; "" if not recorded
        self.effects = effects
        # whether all instructions but the last, a `ret`, can be copied in place of a call: they
        # contain no jump and no reference
        self.is_straight = is_straight


class PlacedStencil:
    """A stencil of an image."""

    __slots__ = ("effects", "offset", "rows", "size")

    def __init__(self, offset: int, size: int, rows: bytes, effects: str) -> None:
        # `offset`, `size`: place of its code
        self.offset = offset
        self.size = size
        # The arguments of Hole for each of its holes, by marshal: a program uses few stencils.
        self.rows = rows
        self.effects = effects  # its effects on the stack

    @property
    def holes(self) -> tuple[Hole, ...]:
        """Its holes, made at each access."""
        return tuple([Hole(*row) for row in marshal.loads(self.rows)])


class Image:
    """Linked routines."""

    __slots__ = (
        "_frames", "_labels", "_read_stencils", "_stencils", "code", "routines", "size", "slots",
        "straight",
    )  # fmt: skip

    def __init__(
        self,
        code: bytes,
        routines: dict[str, tuple[int, int]],
        slots: dict[str, int],
        size: int,
        frames: Callable[[], dict[str, bytes]] = dict,
        labels: Callable[[], dict[str, int]] = dict,
        stencils: Callable[[], dict[str, PlacedStencil]] = dict,
        straight: frozenset[str] = frozenset(),
    ) -> None:
        self.code = code  # content of the executable pages; its size is a multiple of CODE_PAGE
        self.routines = routines  # offset and size of each routine in `code`
        self._labels = labels  # not used by every program, nor are the stencils
        self._read_stencils = stencils
        self._stencils: dict[str, PlacedStencil] | None = None
        self.straight = straight  # the routines that can be copied in place of a call
        self.slots = slots  # offset of each slot from the start of `code`
        self.size = size  # bytes of code and data together
        self._frames = frames  # rarely used, so read on demand

    @property
    def labels(self) -> dict[str, int]:
        """Offset of each label of the routines, read at each access."""
        return self._labels()

    @property
    def stencils(self) -> dict[str, PlacedStencil]:
        """The stencils by name."""
        if self._stencils is None:
            self._stencils = self._read_stencils()
        return self._stencils

    def original(self, name: str) -> bytes:
        """Return the bytes of a routine or stencil, without breakpoints that memory may have."""
        placed = self.stencils.get(name)
        at, size = (placed.offset, placed.size) if placed else self.routines[name]
        return self.code[at : at + size]

    @property
    def frames(self) -> dict[str, bytes]:
        """Call frame instructions (``eh_frame.py``) of the routines whose frames are known.

        Computed at each access.
        """
        return self._frames()


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def link(routines: Iterable[Routine]) -> Image:
    """Lay the routines out one after the other and fill in their references.

    Raise ValueError if two routines have the same name, or one refers to an unknown symbol.
    """
    placed: list[tuple[int, Routine]] = []
    symbols: dict[str, int] = {}  # what references can name
    sizes: dict[str, tuple[int, int]] = {}
    stencils: dict[str, PlacedStencil] = {}
    offset = 0
    for routine in routines:
        offset = _aligned(offset, routine.alignment)
        if routine.holes is None:
            sizes[routine.name] = offset, routine.size
        else:
            rows = [(hole.kind, hole.offset, hole.symbol) for hole in routine.holes]
            packed = marshal.dumps(rows, MARSHAL_VERSION)
            stencils[routine.name] = PlacedStencil(offset, routine.size, packed, routine.effects)
        places = [(routine.name, 0)]
        places.extend(routine.labels.items())
        for name, at in places:
            if name in symbols:
                raise ValueError(f"two routines of an image are named {name!r}")
            symbols[name] = offset + at
        placed.append((offset, routine))
        offset += len(routine.code)
    code_size = _aligned(max(offset, 1), CODE_PAGE)

    code = bytearray(_PADDING * code_size)
    slots: dict[str, int] = {}
    for start, routine in placed:
        code[start : start + len(routine.code)] = routine.code
        for reference in routine.references:
            if reference.is_slot:
                target = slots.setdefault(reference.symbol, code_size + 8 * len(slots))
            elif reference.symbol in symbols:
                target = symbols[reference.symbol]
            else:
                raise ValueError(
                    f"routine {routine.name!r} refers to {reference.symbol!r}: unknown"
                )
            at = start + reference.offset
            code[at : at + 4] = _DISPLACEMENT.pack(target - (at + 4))
    framed = [routine for _, routine in placed if routine.frames]
    labels = dict(symbols)
    for name in (*sizes, *stencils):
        labels.pop(name, None)
    return Image(
        bytes(code),
        sizes,
        slots,
        code_size + 8 * len(slots),
        lambda: _call_frames(framed),
        lambda: labels,
        lambda: stencils,
        frozenset([routine.name for _, routine in placed if routine.is_straight]),
    )


def _call_frames(routines: Iterable[Routine]) -> dict[str, bytes]:
    from asm_libcalls.emitter.eh_frame import instructions

    return {routine.name: instructions(routine.frames) for routine in routines}
