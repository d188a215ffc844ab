"""Encodes an image as the content of a file, and decodes it. No file is opened or trusted here.

The file is an ELF shared object (``elf_object.py``), for dynamic linkers, debuggers and profilers.
Two more sections are for this module:

==================== ==============================================================
``.identity``        digest, key, and eight places and sizes (little-endian)
``.contents``        what assembled it, every routine, label, slot and stencil, by :mod:`marshal`
==================== ==============================================================

The digest is BLAKE2b of everything but itself. It detects files damaged by a full disk, a crash or
a bad disk. It is no signature: the reader must check the file's owner.
"""

from __future__ import annotations

import marshal
from _struct import Struct

from asm_libcalls.emitter.image import MARSHAL_VERSION, Image, PlacedStencil

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from asm_libcalls.emitter.elf_object import Symbol

KEY_SIZE = 32
"""Bytes of a digest, and of a key."""

_BEGINNING = b"\x7fELF\x02\x01\x01"
_IDENTITY = Struct(f"<{KEY_SIZE}s{KEY_SIZE}s8Q")
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

    `key` is the digest of everything that the image was made from, :data:`KEY_SIZE` bytes.
    `assembler` is a name for display, `level` the N of x86-64-vN, 1 to 4, that the CPU must have.
    The dynamic linker finds the `exports` by name, by default all routines, and the file by
    `soname`.
    """
    from asm_libcalls.emitter import elf_object
    from asm_libcalls.emitter.shared_object import CLAIM_SIZE

    table = _table(image, assembler)
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
    content, places = made.content, made.places
    assert places[".identity"] == (_IDENTITY_AT, _IDENTITY.size)
    _IDENTITY.pack_into(
        content, _IDENTITY_AT, bytes(KEY_SIZE), key, len(content), *places[".contents"],
        *places[".text"], image.size - len(image.code), *places[".eh_frame"],
    )  # fmt: skip
    content[_IDENTITY_AT:_DIGESTED_FROM] = _digest_of(content)
    return bytes(content)


def _table(image: Image, assembler: str) -> bytes:
    stencils = {name: (s.offset, s.size, s.rows, s.effects) for name, s in image.stencils.items()}
    straight = sorted(image.straight)
    # Few programs need the last two, so their content is read on demand.
    later = [marshal.dumps(each, MARSHAL_VERSION) for each in (image.labels, stencils)]
    # The assembler's name is one line, for display.
    items = [" ".join(assembler.split()), image.routines, straight, image.slots, *later]
    return marshal.dumps(items, MARSHAL_VERSION)


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

    Raise DamagedImage if the content is truncated, altered, of another version or of another key.
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
    table = marshal.loads(memoryview(content)[table_at : table_at + table_size])
    assembler, routines, straight, slots, labels, stencils = table
    code = content[code_at : code_at + code_size]
    frames = content[frames_at : frames_at + frames_size]
    image = Image(
        code,
        routines,
        slots,
        code_size + slots_size,
        lambda: _read_frames(frames, frames_at - code_at, routines),
        lambda: marshal.loads(labels),
        lambda: _read_stencils(stencils),
        frozenset(straight),
    )
    return image, code_at, assembler


def _read_stencils(content: bytes) -> dict[str, PlacedStencil]:
    return {name: PlacedStencil(*row) for name, row in marshal.loads(content).items()}


def _read_frames(content: bytes, at: int, routines: dict[str, tuple[int, int]]) -> dict[str, bytes]:
    from asm_libcalls.emitter import eh_frame

    found = {(start, size): changes for start, size, changes in eh_frame.read(content, at)}
    return {name: found[place] for name, place in routines.items() if place in found}
