"""ELF shared objects as the specification has them, read by a small parser that knows no writer."""

from __future__ import annotations

import struct
from typing import NamedTuple


class Segment(NamedTuple):
    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    size: int
    alignment: int


class Section(NamedTuple):
    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class Symbol(NamedTuple):
    name: str
    binding: int
    kind: int
    section: int
    address: int
    size: int


class ElfFile:
    """The headers of an ELF file."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        (ident, self.type, self.machine, version, self.entry, segments_at, sections_at, _, size,
         segment_size, segments, section_size, sections, names) = struct.unpack_from(
            "<16sHHIQQQIHHHHHH", content
        )  # fmt: skip
        assert ident[:7] == b"\x7fELF\x02\x01\x01"
        assert (version, size, segment_size, section_size) == (1, 64, 56, 64)
        self.segments = []
        for i in range(segments):
            kind, flags, offset, address, _, *rest = struct.unpack_from(
                "<IIQQQQQQ", content, segments_at + 56 * i
            )
            self.segments.append(Segment(kind, flags, offset, address, *rest))
        raw = [
            struct.unpack_from("<IIQQQQIIQQ", content, sections_at + 64 * i)
            for i in range(sections)
        ]
        self.sections = [Section(self.string(raw[names][4], r[0]), *r[1:]) for r in raw]
        assert sections_at + 64 * sections == len(content)

    def string(self, table_at: int, offset: int) -> str:
        start = table_at + offset
        return self.content[start : self.content.index(b"\0", start)].decode()

    def section(self, name: str) -> Section:
        (found,) = (section for section in self.sections if section.name == name)
        return found

    def data(self, name: str) -> bytes:
        section = self.section(name)
        return self.content[section.offset : section.offset + section.size]

    def symbols(self, name: str) -> list[Symbol]:
        """Return the symbols of a table, without the first one, which is none."""
        section = self.section(name)
        strings = self.sections[section.link].offset
        result = []
        for at in range(section.offset, section.offset + section.size, section.entry):
            text, info, _, where, address, size = struct.unpack_from("<IBBHQQ", self.content, at)
            result.append(
                Symbol(self.string(strings, text), info >> 4, info & 15, where, address, size)
            )
        assert result[0] == Symbol("", 0, 0, 0, 0, 0)
        return result[1:]

    def look_up(self, name: str) -> Symbol | None:
        """Find an exported symbol as a dynamic linker does, by the hash table."""
        table = self.data(".hash")
        buckets, _ = struct.unpack_from("<II", table)
        numbers = struct.unpack_from(f"<{len(table) // 4 - 2}I", table, 8)
        value = 0
        for byte in name.encode():  # the gABI's function, in other words
            value = (value << 4) + byte
            value ^= (value >> 24) & 0xF0
            value &= 0x0FFFFFFF
        number = numbers[value % buckets]
        while number:
            symbol = self.symbols(".dynsym")[number - 1]
            if symbol.name == name:
                return symbol
            number = numbers[buckets + number]
        return None

    def _dynamic(self, tag: int) -> list[str]:
        strings = self.section(".dynstr").offset
        entries = struct.iter_unpack("<qQ", self.data(".dynamic"))
        return [self.string(strings, value) for each, value in entries if each == tag]

    def soname(self) -> str | None:
        """Return the name by which linked programs find it, if it has one."""
        names = self._dynamic(14)  # DT_SONAME
        assert len(names) < 2
        return names[0] if names else None

    def needed(self) -> list[str]:
        """Return the names of the libraries that it needs."""
        return self._dynamic(1)  # DT_NEEDED
