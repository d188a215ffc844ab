"""A cursor over the bytes of one section, that never reads past its end (spec 2.0, section 5.1)."""

from __future__ import annotations

from asm_libcalls.toy_jit import leb128
from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.module import REFERENCE_TYPES, V128, VALUE_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Reader"]


class Reader:
    """Reads `data` from `pos` to `end`; all offsets are those in the whole module."""

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
            byte = self.data[pos]
            if byte < 0x80:
                self.pos = pos + 1
                return byte
        value, self.pos = leb128.unsigned(self.data, pos, self.end)
        return value

    def signed(self, bits: int) -> int:
        """Read a signed integer."""
        value, self.pos = leb128.signed(self.data, self.pos, self.end, bits)
        return value

    def length(self) -> int:
        """Read how many bytes or elements follow.

        An element takes at least one byte, so a length above the number of bytes that are left is
        refused here, before anybody loops or allocates for it.
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
        """Read a size, and step over that many bytes: a reader of them."""
        size = self.length()
        start = self.pos
        self.pos = start + size
        return Reader(self.data, start, self.pos)

    def name(self) -> str:
        """Read a name (spec 2.0, section 5.2.4)."""
        start = self.pos
        data = self.take(self.length())
        try:
            # Refuses what the spec refuses: overlong forms, surrogates, anything above 0x10FFFF.
            return data.decode()
        except UnicodeDecodeError:
            raise MalformedModule("malformed UTF-8 encoding", start) from None

    def value_type(self) -> int:
        """Read a number or reference type."""
        valtype = self.byte()
        if valtype not in VALUE_TYPES:
            what = "the vector type v128 (SIMD) is not supported" if valtype == V128 else ""
            raise MalformedModule(what or "malformed value type", self.pos - 1)
        return valtype

    def reference_type(self) -> int:
        """Read a reference type."""
        valtype = self.byte()
        if valtype not in REFERENCE_TYPES:
            raise MalformedModule("malformed reference type", self.pos - 1)
        return valtype

    def value_types(self) -> bytes:
        """Read a vector of value types."""
        return bytes([self.value_type() for _ in range(self.length())])
