"""LEB128 integers (spec 2.0, section 5.2.2), the slow and exact way.

Most integers in a module take one byte, and whoever is in a hurry reads that byte itself. These
functions read the others, and refuse what the spec refuses: more bytes than the width needs, and
unused bits in the last byte that are not zero (unsigned) or copies of the sign (signed).
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import MalformedModule

__all__ = ["signed", "unsigned"]


def unsigned(code: bytes, pos: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Read an unsigned integer of at most `bits` bits at `pos`.

    Returns
    -------
    tuple of int
        The value, and the position behind it.

    Raises
    ------
    MalformedModule
        If it is too long or too large, or not finished before `end`.
    """
    value = shift = 0
    while True:
        if shift >= bits:
            raise MalformedModule("integer representation too long", pos)
        if pos >= end:
            raise MalformedModule("unexpected end of section or function", end)
        byte = code[pos]
        payload = byte & 0x7F
        if payload >> (bits - shift):
            raise MalformedModule("integer too large", pos)
        value |= payload << shift
        shift += 7
        pos += 1
        if byte < 0x80:
            return value, pos


def signed(code: bytes, pos: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Read a two's complement integer of at most `bits` bits at `pos`; see :func:`unsigned`."""
    value = shift = 0
    while True:
        if shift >= bits:
            raise MalformedModule("integer representation too long", pos)
        if pos >= end:
            raise MalformedModule("unexpected end of section or function", end)
        byte = code[pos]
        if bits - shift < 7:
            # The sign bit of the value and all bits above it, as far as this byte has them.
            signs = (-1 << (bits - shift - 1)) & 0x7F
            if byte & signs not in (0, signs):
                raise MalformedModule("integer too large", pos)
        value |= (byte & 0x7F) << shift
        shift += 7
        pos += 1
        if byte < 0x80:
            if byte & 0x40:
                value -= 1 << shift
            return value, pos
