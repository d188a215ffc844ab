"""Encodes an image as the content of a file, and decodes it. No file is opened or trusted here.

The file is an ELF shared object (``elf_object.py``), for dynamic linkers, debuggers and profilers.
Two more sections are for this module:

==================== ==============================================================
``.identity``        digest, key, and eight places and sizes (little-endian)
``.contents``        UTF-8 lines: what assembled it, then every routine, label, stencil and slot
==================== ==============================================================

The digest is BLAKE2b of everything but itself. It detects files damaged by a full disk, a crash or
a bad disk. It is no signature: the reader must check the file's owner.
"""

from __future__ import annotations

import struct
from functools import partial

from asm_libcalls.emitter.image import Hole, Image, PlacedStencil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asm_libcalls.emitter.elf_object import Symbol

__all__ = ["KEY_SIZE", "DamagedImage", "digest", "pack", "unpack"]

KEY_SIZE = 32
"""Bytes of a digest, and of a key."""

_BEGINNING = b"\x7fELF\x02\x01\x01"
_IDENTITY = struct.Struct(f"<{KEY_SIZE}s{KEY_SIZE}s8Q")
_IDENTITY_AT = 512
_DIGESTED_FROM = _IDENTITY_AT + KEY_SIZE


class DamagedImage(ValueError):
    """The content is not that of an image file with the expected key; the message says why."""


def digest(*parts: bytes | memoryview) -> bytes:
    """Return a strong hash of byte strings; each length is hashed too, so boundaries matter."""
    try:
        # hashlib wraps this; importing hashlib loads OpenSSL too (2 ms and more).
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    hasher = blake2b(digest_size=KEY_SIZE)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def pack(
    image: Image,
    key: bytes,
    assembler: str,
    *,
    level: int = 1,
    exports: Collection[str] | None = None,
    soname: str = "",
) -> bytes:
    """Return the content of an image file.

    Parameters
    ----------
    image : Image
        The linked image.
    key : bytes
        Digest of everything that the image was made from, :data:`KEY_SIZE` bytes.
    assembler : str
        Name of the assembler, for display.
    level : int
        The N of x86-64-vN, 1 to 4, that the CPU must have.
    exports : collection of str, optional
        Routines that the dynamic linker finds by name; by default all.
    soname : str
        The name of the shared object for the dynamic linker, if it has one.
    """
    from asm_libcalls.emitter import elf_object
    from asm_libcalls.emitter.shared_object import CLAIM_SIZE

    table = "\n".join([" ".join(assembler.split()), *_lines(image)]).encode()
    frames = image.frames
    made = elf_object.write(
        image.code,
        bytes(image.size - len(image.code) + CLAIM_SIZE),
        list(_symbols(image, frames, exports)),
        [(*image.routines[name], changes) for name, changes in frames.items()],
        identity_size=_IDENTITY.size,
        contents=table,
        level=level,
        soname=soname,
    )
    assert made.identity_at == _IDENTITY_AT
    content = made.content
    _IDENTITY.pack_into(
        content, _IDENTITY_AT, bytes(KEY_SIZE), key, len(content), made.contents_at, len(table),
        made.code_at, len(image.code), image.size - len(image.code), *made.frames,
    )  # fmt: skip
    content[_IDENTITY_AT:_DIGESTED_FROM] = _digest_of(content)
    return bytes(content)


def _lines(image: Image) -> Iterator[str]:
    """Yield a line for each item of the image: kind, name and offsets, separated by tabs."""
    rows: list[tuple[object, ...]] = [
        *(
            ("straight" if name in image.straight else "routine", name, at, size)
            for name, (at, size) in image.routines.items()
        ),
        *(("label", name, at) for name, at in image.labels.items()),
        *(("slot", name, at) for name, at in image.slots.items()),
    ]
    for name, stencil in image.stencils.items():
        holes = [field for h in stencil.holes for field in (h.kind, h.offset, h.symbol)]
        rows.append(("stencil", name, stencil.offset, stencil.size, stencil.effects, *holes))
    for row in rows:
        for field in row:
            if not str(field).isprintable():
                raise ValueError(f"the name {field!r} cannot be written to an image file")
        yield "\t".join(map(str, row))


def _symbols(
    image: Image, frames: Collection[str], exports: Collection[str] | None
) -> Iterator[Symbol]:
    from asm_libcalls.emitter.code_names import title
    from asm_libcalls.emitter.elf_object import Symbol

    for name in frames:  # stencils and labels have none
        at, size = image.routines[name]
        is_exported = exports is None or name in exports
        yield Symbol(title(name), at, size, is_function=True, is_exported=is_exported)
    for name, at in image.slots.items():
        yield Symbol(f"slot.{name}", at, 8, is_function=False, is_exported=False)


def _digest_of(content: bytes | bytearray) -> bytes:
    view = memoryview(content)
    return digest(view[:_IDENTITY_AT], view[_DIGESTED_FROM:])


def unpack(content: bytes, key: bytes) -> tuple[Image, int, str]:
    """Return the image in a file's content, the offset of its code, and its assembler's name.

    Raises
    ------
    DamagedImage
        The content is truncated, altered, of another version or of another key.
    """
    if len(content) < _IDENTITY_AT + _IDENTITY.size:
        raise DamagedImage(f"it ends after {len(content)} bytes")
    if not content.startswith(_BEGINNING):
        raise DamagedImage("it is no image file of this version")
    expected, its_key, size, *places = _IDENTITY.unpack_from(content, _IDENTITY_AT)
    table_at, table_size, code_at, code_size, slots_size, frames_at, frames_size = places
    if its_key != key:
        raise DamagedImage("it was made from other sources, or for another CPU")
    if len(content) != size:
        raise DamagedImage(f"it has {len(content)} bytes, not {size}")
    if _digest_of(content) != expected:
        raise DamagedImage("its content does not have the digest that it names")
    assembler, *lines = content[table_at : table_at + table_size].decode().split("\n")
    routines: dict[str, tuple[int, int]] = {}
    straight: set[str] = set()
    labels: dict[str, int] = {}
    slots: dict[str, int] = {}
    stencils: dict[str, PlacedStencil] = {}
    for line in lines:
        kind, name, at, *more = line.split("\t")
        if kind in ("routine", "straight"):
            routines[name] = int(at), int(more[0])
            if kind == "straight":
                straight.add(name)
        elif kind == "label":
            labels[name] = int(at)
        elif kind == "slot":
            slots[name] = int(at)
        else:
            size, effects, *fields = more
            holes = tuple(map(Hole, fields[::3], map(int, fields[1::3]), fields[2::3]))
            stencils[name] = PlacedStencil(int(at), int(size), holes, effects)
    code = content[code_at : code_at + code_size]
    frames = partial(
        _read_frames, content[frames_at : frames_at + frames_size], frames_at - code_at, routines
    )
    size = code_size + slots_size
    image = Image(code, routines, slots, size, frames, labels, stencils, frozenset(straight))
    return image, code_at, assembler


def _read_frames(content: bytes, at: int, routines: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    from asm_libcalls.emitter import eh_frame

    found = {(start, size): changes for start, size, changes in eh_frame.read(content, at)}
    return {name: found[place] for name, place in routines.items() if place in found}
