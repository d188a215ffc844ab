"""LEB128 integers (spec 2.0, section 5.2.2).

What the spec refuses is refused: more bytes than the width needs, and unused bits in the last byte
that are not zero (unsigned) or copies of the sign (signed).
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
    return _read(code, pos, end, bits, is_signed=False)


def signed(code: bytes, pos: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Read a two's complement integer of at most `bits` bits at `pos`; see :func:`unsigned`."""
    return _read(code, pos, end, bits, is_signed=True)


def _read(code: bytes, pos: int, end: int, bits: int, is_signed: bool) -> tuple[int, int]:
    value = shift = 0
    while True:
        if shift >= bits:
            raise MalformedModule("integer representation too long", pos)
        if pos >= end:
            raise MalformedModule("unexpected end of section or function", end)
        byte = code[pos]
        # The bits of this byte that the width has not, and those of the sign.
        unused = (-1 << min(7, bits - shift - is_signed)) & 0x7F
        if byte & unused and not (is_signed and byte & unused == unused):
            raise MalformedModule("integer too large", pos)
        value |= (byte & 0x7F) << shift
        shift += 7
        pos += 1
        if byte < 0x80:
            return value - (1 << shift if is_signed and byte & 0x40 else 0), pos
