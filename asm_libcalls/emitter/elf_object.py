"""Writes linked code as an ELF shared object for x86-64. Only the format is here, no policy.

The file has what a dynamic linker maps and finds symbols by, what debuggers and profilers name and
unwind frames by, and two sections for the writer's own data. It refers to no other library, has no
relocations and no initializers::

    read         headers, .identity, .note.gnu.property, .hash, .dynsym, .dynstr, .eh_frame_hdr,
                 .eh_frame
    read, run    .text         from the next page on
    read, write  .data, from the page after the code on; .dynamic
    not mapped   .contents, .symtab, .strtab, .shstrtab, section headers

Every address equals its offset in the file.

Source: System V ABI (gABI) 4.1, chapters 4 and 5; its AMD64 supplement 1.0; Linux Standard Base
5.0, 10.6; Linux Extensions to gABI (``.note.gnu.property``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence

from asm_libcalls.emitter.image import CODE_PAGE

_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")  # 64 bits, little-endian, version 1, System V
_ET_EXEC, _ET_DYN, _EM_X86_64 = 2, 3, 62
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_ENTRY = struct.Struct("<qQ")  # of .dynamic

_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_PT_GNU_EH_FRAME, _PT_GNU_STACK, _PT_GNU_PROPERTY = 0x6474E550, 0x6474E551, 0x6474E553
_SEGMENTS = 8
_RUN, _WRITE, _READ = 1, 2, 4

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_HASH, _SHT_DYNAMIC, _SHT_NOTE = 1, 2, 3, 5, 6, 7
_SHT_NOBITS, _SHT_DYNSYM, _SHT_X86_64_UNWIND = 8, 11, 0x70000001
_WRITABLE, _ALLOC, _EXECUTE = 1, 2, 4  # SHF_*

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14
_OBJECT, _FUNCTION = 1, 2  # STT_*
_LOCAL, _GLOBAL = 0, 1  # STB_*

_SECTIONS = (
    "", ".identity", ".note.gnu.property", ".hash", ".dynsym", ".dynstr", ".eh_frame_hdr",
    ".eh_frame", ".text", ".data", ".dynamic", ".contents", ".symtab", ".strtab", ".shstrtab",
)  # fmt: skip
_SYMBOL_SECTIONS = ("", ".text", ".eh_frame", ".symtab", ".strtab", ".shstrtab")

# GNU_PROPERTY_X86_ISA_1_NEEDED: the C library refuses to load the file on older CPUs.
_GNU_PROPERTY_TYPE_0, _ISA_1_NEEDED = 5, 0xC0008002


class Symbol:
    """A function of the code, or eight bytes of the data."""

    __slots__ = ("at", "is_exported", "is_function", "name", "size")

    def __init__(
        self, name: str, at: int, size: int, *, is_function: bool, is_exported: bool
    ) -> None:
        self.name = name
        self.at = at  # offset from the beginning of the code
        self.size = size
        self.is_function = is_function
        # whether the dynamic linker finds it by name; debuggers always do
        self.is_exported = is_exported


class Object:
    """A written shared object, with the offset and size of each section."""

    __slots__ = ("content", "places")

    def __init__(self, content: bytearray, places: dict[str, tuple[int, int]]) -> None:
        self.content = content  # the whole file; the bytes of `.identity` are still zeros
        self.places = places  # that of `.identity` is the same in every file


def write(
    code: bytes,  # whole pages; the code refers to the data, which follows it, relative to rip
    data: bytes,  # initial content of the writable data, of which each process has its own copy
    symbols: Sequence[Symbol],
    # offset from the beginning of the code, size and call frame instructions of each function with
    # known frames
    functions: Sequence[tuple[int, int, bytes]],
    *,
    identity_size: int,  # size of `.identity` in bytes, which the caller fills in
    contents: bytes,  # content of `.contents`
    level: int,  # the N of x86-64-vN, 1 to 4, that the CPU must have
    soname: str = "",  # the name by which programs that are linked with it find it; "" for none
) -> Object:
    """Write a shared object."""
    assert code
    assert not len(code) % CODE_PAGE
    ordered = sorted(symbols, key=lambda symbol: symbol.is_exported)  # local ones come first

    def lay_out(code_at: int) -> _File:
        file = _File(_SECTIONS, code_at, _SEGMENTS)
        file.add(".identity", _SHT_PROGBITS, _ALLOC, bytes(identity_size))
        file.add(".note.gnu.property", _SHT_NOTE, _ALLOC, _isa(level))
        exported = [symbol for symbol in ordered if symbol.is_exported]
        file.add(".hash", _SHT_HASH, _ALLOC, _hash(exported), link=".dynsym", entry=4)
        file.add_symbols(".dynsym", ".dynstr", _SHT_DYNSYM, _ALLOC, exported, soname)
        file.add_frames(functions)
        file.add(".text", _SHT_PROGBITS, _ALLOC | _EXECUTE, code, alignment=CODE_PAGE)
        file.add(".data", _SHT_PROGBITS, _ALLOC | _WRITABLE, data)
        dynamic = _dynamic(file.places, file.extra_at)
        file.add(
            ".dynamic", _SHT_DYNAMIC, _ALLOC | _WRITABLE, dynamic, link=".dynstr", entry=_ENTRY.size
        )
        file.add(".contents", _SHT_PROGBITS, 0, contents, alignment=1)
        file.add_symbols(".symtab", ".strtab", _SHT_SYMTAB, 0, ordered)
        return file

    # Symbols and frames hold addresses. So the file is laid out once to learn the code's offset.
    code_at, _ = lay_out(0).places[".text"]
    file = lay_out(code_at)
    return Object(file.finish(_ET_DYN, list(_segments(file.places))), file.places)


def write_symbols(functions: Sequence[tuple[int, int, str, bytes]]) -> bytes:
    """Write an ELF object with symbols and frames, for a debugger, of code that is in no file.

    `functions` are the address, size in bytes, name and call frame instructions of each.
    """
    from asm_libcalls.emitter import eh_frame

    start = min(at for at, *_ in functions)
    size = max(at + size for at, size, *_ in functions) - start
    file = _File(_SYMBOL_SECTIONS, start, 0)
    file.add(".text", _SHT_NOBITS, _ALLOC | _EXECUTE, b"", alignment=1, memory=(start, size))
    frames = eh_frame.encode_anywhere((at, size, changes) for at, size, _, changes in functions)
    file.add(".eh_frame", _SHT_PROGBITS, _ALLOC, frames)
    symbols = [
        Symbol(name, at - start, size, is_function=True, is_exported=False)
        for at, size, name, _ in functions
    ]
    file.add_symbols(".symtab", ".strtab", _SHT_SYMTAB, 0, symbols)
    return bytes(file.finish(_ET_EXEC, []))


class _File:
    """The file so far: its content, and its section headers."""

    def __init__(self, sections: tuple[str, ...], code_at: int, segments: int) -> None:
        self.sections = sections
        self.code_at = code_at
        self.content = bytearray(_HEADER.size + segments * _SEGMENT.size)
        self.headers = [bytes(_SECTION.size)]
        self.places: dict[str, tuple[int, int]] = {}
        self.extra_at = 0
        self._names, self._name_at = _strings(sections)

    def add(
        self,
        name: str,
        kind: int,
        flags: int,
        content: bytes | bytearray,
        *,
        alignment: int = 8,
        link: str = "",
        info: int = 0,
        entry: int = 0,
        memory: tuple[int, int] | None = None,
    ) -> None:
        """Append a section; `memory` is its address and size if it has no content in the file."""
        assert self.sections[len(self.headers)] == name
        at = self.align(alignment)
        self.content += content
        self.places[name] = at, len(content)
        address, size = memory or (at if flags & _ALLOC else 0, len(content))
        linked = self.sections.index(link)
        fields = (kind, flags, address, at, size, linked, info, alignment, entry)
        self.headers.append(_SECTION.pack(self._name_at[name], *fields))

    def align(self, alignment: int) -> int:
        self.content += bytes(-len(self.content) % alignment)
        return len(self.content)

    def add_symbols(
        self,
        name: str,
        strings: str,
        kind: int,
        flags: int,
        symbols: Sequence[Symbol],
        extra: str = "",
    ) -> None:
        """Append symbols, local ones first, and their names; `extra` is one more string."""
        names, name_at = _strings([*[symbol.name for symbol in symbols], extra])
        self.extra_at = name_at[extra]
        content = bytearray(_SYMBOL.size)
        for symbol in symbols:
            content += _SYMBOL.pack(
                name_at[symbol.name],
                (_GLOBAL if symbol.is_exported else _LOCAL) << 4
                | (_FUNCTION if symbol.is_function else _OBJECT),
                0,
                self.sections.index(".text" if symbol.is_function else ".data"),
                self.code_at + symbol.at,
                symbol.size,
            )
        first_global = 1 + sum(not symbol.is_exported for symbol in symbols)
        self.add(name, kind, flags, content, link=strings, info=first_global, entry=_SYMBOL.size)
        self.add(strings, _SHT_STRTAB, flags, names, alignment=1)

    def add_frames(self, functions: Sequence[tuple[int, int, bytes]]) -> None:
        from asm_libcalls.emitter import eh_frame

        index, frames = eh_frame.encode(
            [(self.code_at + at, size, changes) for at, size, changes in functions], self.align(8)
        )
        self.add(".eh_frame_hdr", _SHT_PROGBITS, _ALLOC, index)
        self.add(".eh_frame", _SHT_X86_64_UNWIND, _ALLOC, frames)

    def finish(self, kind: int, segments: Sequence[bytes]) -> bytearray:
        """Append the section headers, fill in the file header, and return the content."""
        self.add(".shstrtab", _SHT_STRTAB, 0, self._names, alignment=1)
        sections_at = self.align(8)
        content = self.content + b"".join(self.headers)
        header = _HEADER.pack(
            _IDENT, kind, _EM_X86_64, 1, 0, _HEADER.size if segments else 0, sections_at, 0,
            _HEADER.size, _SEGMENT.size, len(segments), _SECTION.size, len(self.headers),
            len(self.headers) - 1,
        )  # fmt: skip
        beginning = header + b"".join(segments)
        content[: len(beginning)] = beginning
        return content


def _segments(places: dict[str, tuple[int, int]]) -> Iterator[bytes]:
    def segment(kind: int, flags: int, start: int, end: int, alignment: int = 8) -> bytes:
        size = end - start
        return _SEGMENT.pack(kind, flags, start, start, start, size, size, alignment)

    def of(kind: int, flags: int, name: str, alignment: int = 8) -> bytes:
        at, size = places[name]
        return segment(kind, flags, at, at + size, alignment)

    yield segment(_PT_LOAD, _READ, 0, sum(places[".eh_frame"]), CODE_PAGE)
    yield of(_PT_LOAD, _READ | _RUN, ".text", CODE_PAGE)
    end = sum(places[".dynamic"])
    yield segment(_PT_LOAD, _READ | _WRITE, places[".data"][0], end, CODE_PAGE)
    yield of(_PT_DYNAMIC, _READ | _WRITE, ".dynamic")
    yield of(_PT_NOTE, _READ, ".note.gnu.property")
    yield of(_PT_GNU_PROPERTY, _READ, ".note.gnu.property")
    yield of(_PT_GNU_EH_FRAME, _READ, ".eh_frame_hdr")
    yield segment(_PT_GNU_STACK, _READ | _WRITE, 0, 0, 16)


def _strings(texts: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    """Return a string table, and the offset of each string in it."""
    content = bytearray(1)
    places = {"": 0}
    for text in texts:
        if text not in places:
            places[text] = len(content)
            content += text.encode("utf-8", "surrogateescape") + b"\0"  # a file's name may be bytes
    return bytes(content), places


def _hash(symbols: Sequence[Symbol]) -> bytes:
    """Return the hash table of the symbols from number 1 on."""
    buckets = [0] * max(1, len(symbols))
    chain = [0]
    for number, symbol in enumerate(symbols, 1):
        bucket = _hash_of(symbol.name.encode()) % len(buckets)
        chain.append(buckets[bucket])
        buckets[bucket] = number
    numbers = [len(buckets), len(chain), *buckets, *chain]
    return struct.pack(f"<{len(numbers)}I", *numbers)


def _hash_of(name: bytes) -> int:
    result = 0
    for byte in name:
        result = (result << 4) + byte
        high = result & 0xF0000000
        result = (result ^ high >> 24) & ~high
    return result


def _dynamic(places: dict[str, tuple[int, int]], soname_at: int) -> bytes:
    entries = (
        *([(_DT_SONAME, soname_at)] if soname_at else []),
        (_DT_HASH, places[".hash"][0]),
        (_DT_SYMTAB, places[".dynsym"][0]),
        (_DT_SYMENT, _SYMBOL.size),
        (_DT_STRTAB, places[".dynstr"][0]),
        (_DT_STRSZ, places[".dynstr"][1]),
        (0, 0),
    )
    return b"".join(_ENTRY.pack(*entry) for entry in entries)


def _isa(level: int) -> bytes:
    needed = struct.pack("<IIII", _ISA_1_NEEDED, 4, (1 << level) - 1, 0)
    return struct.pack("<III", 4, len(needed), _GNU_PROPERTY_TYPE_0) + b"GNU\0" + needed
