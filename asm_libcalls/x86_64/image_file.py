"""An image as the content of a file, and back. No policy here: nothing is opened or trusted.

==================== ==============================================================
header               magic, digest, key, and three sizes (little-endian)
table                UTF-8 lines: what assembled it, then every routine and slot
padding              to the next :data:`~asm_libcalls.x86_64.image.CODE_PAGE`
code                 whole pages, so that they can be mapped where they are
==================== ==============================================================

The digest is BLAKE2b of all that follows it. It finds what a full disk, a crash or a bad disk left;
it is no signature: whom the file belongs to is the reader's question.
"""

from __future__ import annotations

import struct

from asm_libcalls.x86_64.image import CODE_PAGE, Image

__all__ = ["KEY_SIZE", "DamagedImage", "digest", "pack", "unpack"]

KEY_SIZE = 32
"""Bytes of a digest, and of a key."""

_MAGIC = b"asm_libcalls 1\r\n"  # the line end shows a transfer as text
_HEADER = struct.Struct(f"<16s{KEY_SIZE}s{KEY_SIZE}sQQQ")
_DIGESTED_FROM = len(_MAGIC) + KEY_SIZE


class DamagedImage(ValueError):
    """The content is not that of an image file with the expected key; the message says why."""


def digest(*parts: bytes | memoryview) -> bytes:
    """Return a strong hash of some bytes; their lengths count, so no two divisions are alike."""
    try:
        # What hashlib wraps, without the OpenSSL that importing hashlib loads (2 ms and more).
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    hasher = blake2b(digest_size=KEY_SIZE)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def pack(image: Image, key: bytes, assembler: str) -> bytes:
    """Return the content of an image file.

    Parameters
    ----------
    image : Image
    key : bytes
        What the image was made from, :data:`KEY_SIZE` bytes.
    assembler : str
        What made it, for people.
    """
    lines = [" ".join(assembler.split())]
    for name in (*image.routines, *image.slots):
        if not name.isprintable():
            raise ValueError(f"the name {name!r} can not be written to an image file")
    lines += [f"{name}\t{at}\t{size}" for name, (at, size) in image.routines.items()]
    lines += [f"{name}\t{at}" for name, at in image.slots.items()]
    table = "\n".join(lines).encode()
    code_at = -(-(_HEADER.size + len(table)) // CODE_PAGE) * CODE_PAGE
    header = _HEADER.pack(
        _MAGIC, bytes(KEY_SIZE), key, len(table), len(image.code), image.size - len(image.code)
    )
    content = bytearray((header + table).ljust(code_at, b"\0") + image.code)
    hashed = digest(memoryview(content)[_DIGESTED_FROM:])
    content[len(_MAGIC) : _DIGESTED_FROM] = hashed
    return bytes(content)


def unpack(content: bytes, key: bytes) -> tuple[Image, int, str]:
    """Return the image in the content of a file, where its code begins there, and what made it.

    Raises
    ------
    DamagedImage
        It is truncated, altered, of another version or of another key.
    """
    if len(content) < _HEADER.size:
        raise DamagedImage(f"it ends after {len(content)} bytes")
    magic, expected, its_key, table_size, code_size, slots_size = _HEADER.unpack_from(content)
    if magic != _MAGIC:
        raise DamagedImage("it is no image file of this version")
    if its_key != key:
        raise DamagedImage("it was made from other sources, or for another CPU")
    code_at = -(-(_HEADER.size + table_size) // CODE_PAGE) * CODE_PAGE
    if len(content) != code_at + code_size:
        raise DamagedImage(f"it has {len(content)} bytes, not {code_at + code_size}")
    if digest(memoryview(content)[_DIGESTED_FROM:]) != expected:
        raise DamagedImage("its content does not have the digest that it names")
    assembler, *lines = content[_HEADER.size : _HEADER.size + table_size].decode().split("\n")
    routines: dict[str, tuple[int, int]] = {}
    slots: dict[str, int] = {}
    for line in lines:
        name, at, *size = line.split("\t")
        if size:
            routines[name] = int(at), int(size[0])
        else:
            slots[name] = int(at)
    image = Image(content[code_at:], routines, slots, code_size + slots_size)
    return image, code_at, assembler
