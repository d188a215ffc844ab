"""Reads the symbols that an ELF object of another compiler needs. Only the format is here.

Source: System V ABI (gABI) 4.1, chapter 4.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["undefined_symbols"]

_IDENT = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_SECTIONS_AT, _SECTION_SIZE = 0x28, 0x3A  # e_shoff; e_shentsize, e_shnum
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SHT_SYMTAB, _SHN_UNDEF, _STB_GLOBAL = 2, 0, 1
_LINKERS = "_GLOBAL_OFFSET_TABLE_"  # the linker defines it


def undefined_symbols(content: bytes) -> Iterator[str]:
    """Yield the symbols that an object file refers to and does not define.

    A weak symbol is not among them: without a definition it is 0 on purpose.

    Raises
    ------
    ValueError
        The content is no 64-bit little-endian ELF file.
    """
    if not content.startswith(_IDENT):
        raise ValueError(f"no ELF object of 64 bits: it begins with {content[:6]!r}")
    (at,) = struct.unpack_from("<Q", content, _SECTIONS_AT)
    size, count = struct.unpack_from("<HH", content, _SECTION_SIZE)
    sections = [_SECTION.unpack_from(content, at + i * size) for i in range(count)]
    for _, kind, _, _, start, length, link, *_ in sections:
        if kind != _SHT_SYMTAB:
            continue
        strings = sections[link][4]
        for name, info, _, section, _, _ in _SYMBOL.iter_unpack(content[start : start + length]):
            if section == _SHN_UNDEF and info >> 4 == _STB_GLOBAL:
                begin = strings + name
                symbol = content[begin : content.index(0, begin)].decode()
                if symbol != _LINKERS:
                    yield symbol
