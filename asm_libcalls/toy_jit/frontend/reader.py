"""A bounds-checked cursor over the bytes of one section, and LEB128 (spec 2.0, section 5)."""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.frontend import proposals
from asm_libcalls.toy_jit.frontend.module import REFERENCE_TYPES, VALUE_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Reader:
    """Reads `data` from `pos` to `end`. All offsets are from the beginning of the module."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes, pos: int, end: int) -> None:
        self.data = data
        self.pos = pos
        self.end = end

    def byte(self) -> int:
        """Read one byte."""
        pos = self.pos
        if pos >= self.end:
            raise MalformedModule("unexpected end of section or function", self.end)
        self.pos = pos + 1
        return self.data[pos]

    def take(self, count: int) -> bytes:
        """Read `count` bytes."""
        pos = self.pos
        if count > self.end - pos:
            raise MalformedModule("unexpected end of section or function", self.end)
        self.pos = pos + count
        return self.data[pos : self.pos]

    def u32(self) -> int:
        """Read an unsigned integer."""
        pos = self.pos
        if pos < self.end:
            value = self.data[pos]
            if value < 0x80:  # most are one byte
                self.pos = pos + 1
                return value
        value, self.pos = unsigned(self.data, self.pos, self.end)
        return value

    def signed(self, bits: int) -> int:
        """Read a signed integer."""
        value, self.pos = signed(self.data, self.pos, self.end, bits)
        return value

    def length(self) -> int:
        """Read the number of bytes or elements that follow.

        An element takes at least one byte. So a length above the number of bytes that are left is
        refused here, before a loop or an allocation of that length.
        """
        start = self.pos
        count = self.u32()
        if count > self.end - self.pos:
            raise MalformedModule("length out of bounds", start)
        return count

    def index(self, space: Sequence[object], noun: str) -> int:
        """Read an index into `space`."""
        start = self.pos
        index = self.u32()
        if index >= len(space):
            raise InvalidModule(f"unknown {noun} {index}", start)
        return index

    def sized(self) -> Reader:
        """Read a size, skip so many bytes, and return a reader of them."""
        size = self.length()
        start = self.pos
        self.pos = start + size
        return Reader(self.data, start, self.pos)

    def name(self) -> str:
        """Read a name (spec 2.0, section 5.2.4)."""
        start = self.pos
        data = self.take(self.length())
        try:
            # Refuses overlong forms, surrogates, and all above 0x10FFFF, as the spec requires.
            return data.decode()
        except UnicodeDecodeError:
            raise MalformedModule("malformed UTF-8 encoding", start) from None

    def value_type(self) -> int:
        """Read a number, vector or reference type."""
        valtype = self.byte()
        if valtype not in VALUE_TYPES:
            proposals.check(proposals.VALUE_TYPES, valtype, self.pos - 1)
            raise MalformedModule("malformed value type", self.pos - 1)
        return valtype

    def reference_type(self) -> int:
        """Read a reference type."""
        valtype = self.byte()
        if valtype not in REFERENCE_TYPES:
            proposals.check(proposals.VALUE_TYPES, valtype, self.pos - 1)
            raise MalformedModule("malformed reference type", self.pos - 1)
        return valtype

    def value_types(self) -> bytes:
        """Read a vector of value types."""
        return bytes([self.value_type() for _ in range(self.length())])


# -- LEB128 integers (spec 2.0, section 5.2.2)
#
# As the spec requires, these are refused: more bytes than the width needs, and unused bits in the
# last byte that are not zero (unsigned) or copies of the sign (signed).


def unsigned(code: bytes, pos: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Read an unsigned integer of at most `bits` bits; return it and the position behind it.

    Raise MalformedModule if it is too long or too large, or does not end before `end`.
    """
    if bits == 32 and end - pos > 4:
        value = code[pos]
        if value < 0x80:
            return value, pos + 1
        # Adding a byte subtracts the continuation bit of the one before.
        byte = code[pos + 1]
        value += (byte << 7) - 0x80
        if byte < 0x80:
            return value, pos + 2
        byte = code[pos + 2]
        value += (byte << 14) - 0x4000
        if byte < 0x80:
            return value, pos + 3
        byte = code[pos + 3]
        value += (byte << 21) - 0x20_0000
        if byte < 0x80:
            return value, pos + 4
        byte = code[pos + 4]  # linkers write addresses and indices with all five bytes
        if byte < 0x10:
            return value + (byte << 28) - 0x1000_0000, pos + 5
    return _read(code, pos, end, bits, is_signed=False)


def signed(code: bytes, pos: int, end: int, bits: int = 32) -> tuple[int, int]:
    """Read a two's complement integer of 32 to 64 bits at `pos`; see :func:`unsigned`."""
    if end - pos > 4:
        value = code[pos]
        if value < 0x80:
            return (value ^ 0x40) - 0x40, pos + 1
        byte = code[pos + 1]
        value += (byte << 7) - 0x80
        if byte < 0x80:
            return (value ^ 0x2000) - 0x2000, pos + 2
        byte = code[pos + 2]
        value += (byte << 14) - 0x4000
        if byte < 0x80:
            return (value ^ 0x10_0000) - 0x10_0000, pos + 3
        byte = code[pos + 3]
        value += (byte << 21) - 0x20_0000
        if byte < 0x80:
            return (value ^ 0x800_0000) - 0x800_0000, pos + 4
        byte = code[pos + 4]
        if byte < 8:  # positive, and fits 32 bits
            return value + (byte << 28) - 0x1000_0000, pos + 5
    return _read(code, pos, end, bits, is_signed=True)


def _read(code: bytes, pos: int, end: int, bits: int, is_signed: bool) -> tuple[int, int]:
    most = -(-bits // 7)
    value = shift = byte = 0
    for byte in code[pos : min(pos + most, end)]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    size = shift // 7
    if is_signed and byte & 0x40:
        value -= 1 << shift
    least, beyond = (-1 << bits - 1, 1 << bits - 1) if is_signed else (0, 1 << bits)
    if size == most and not least <= value < beyond:
        raise MalformedModule("integer too large", pos + size - 1)
    if byte < 0x80 and size:
        return value, pos + size
    if size == most:
        raise MalformedModule("integer representation too long", pos + size)
    raise MalformedModule("unexpected end of section or function", end)
