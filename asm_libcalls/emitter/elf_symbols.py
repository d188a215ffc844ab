"""Reads the symbols of an ELF object of another compiler. Only the format is here.

Source: System V ABI (gABI) 4.1, chapter 4.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_SECTIONS_AT, _SECTION_SIZE = 0x28, 0x3A  # e_shoff; e_shentsize, e_shnum
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SHT_SYMTAB, _SHN_UNDEF, _STB_GLOBAL, _STT_FUNC = 2, 0, 1, 2
_LINKERS = "_GLOBAL_OFFSET_TABLE_"  # the linker defines it


def undefined_symbols(content: bytes) -> Iterator[str]:
    """Yield the symbols that an object file refers to and does not define.

    A weak symbol is not among them: without a definition it is 0 on purpose. Raise ValueError if
    the content is no 64-bit little-endian ELF file.
    """
    for name, info, section, _ in _symbols(content):
        if section == _SHN_UNDEF and info >> 4 == _STB_GLOBAL and name != _LINKERS:
            yield name


def defined_functions(content: bytes) -> Iterator[tuple[str, int]]:
    """Yield the name and the size in bytes of each function that an object file defines."""
    for name, info, section, size in _symbols(content):
        if section != _SHN_UNDEF and info & 0xF == _STT_FUNC:
            yield name, size


def _symbols(content: bytes) -> Iterator[tuple[str, int, int, int]]:
    """Yield name, ``st_info``, section and size of each symbol."""
    if not content.startswith(_IDENT):
        raise ValueError(f"no ELF object of 64 bits: it begins with {content[:6]!r}")
    (at,) = struct.unpack_from("<Q", content, _SECTIONS_AT)
    size, count = struct.unpack_from("<HH", content, _SECTION_SIZE)
    sections = [_SECTION.unpack_from(content, at + i * size) for i in range(count)]
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != _SHT_SYMTAB:
            continue
        strings = sections[link][4]
        for name, info, _, section, _, its_size in _SYMBOL.iter_unpack(
            content[start : start + length]
        ):
            begin = strings + name
            symbol = content[begin : content.index(0, begin)].decode("utf-8", "replace")
            yield symbol, info, section, its_size
