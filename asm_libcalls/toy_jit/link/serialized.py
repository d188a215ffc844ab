"""Serialized modules: a compiled module as bytes, which another process can load.

The content, with little-endian numbers::

    magic               16 bytes
    format              u32, padded to 8 bytes
    size                u64, of the whole content
    digest              32 bytes, BLAKE2b of all other bytes
    size of the header  u64
    header              JSON
    sections            the module, its code without addresses, the tables of the code

The header says what the code was made with and for: the version of this package, a digest of the
runtime's data structures that code relies on, the CPU features that it may use, and the options.
All are compared before the code is loaded. The digest detects damage; it is no signature.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from functools import cache

from asm_libcalls import libcalls, vmcontext
from asm_libcalls.emitter.image_file import digest
from asm_libcalls.toy_jit.codegen.layout import OFFSETS
from asm_libcalls.toy_jit.codegen.templates import CPU_FEATURES, STENCILS, USED_FEATURES
from asm_libcalls.toy_jit.errors import DeserializeError
from asm_libcalls.toy_jit.frontend.decoder import decode_module
from asm_libcalls.toy_jit.link.code_tables import CodeTables
from asm_libcalls.toy_jit.options import CompileOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.link.code_tables import Offsets
    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode

MAGIC = b"\x89toy_jit module\n"
"""The first bytes. Neither a text nor a WebAssembly module begins so."""

FORMAT = 1
_HEAD = struct.Struct("<16sI4xQ")
_DIGEST_SIZE = 32
_SIZE = struct.Struct("<Q")
_BEGIN = _HEAD.size + _DIGEST_SIZE + _SIZE.size

_SLOTS = "i"
"""The type code of arrays of slots, relative to rbp."""

_PROTOCOL = (
    "address", "branch_table", "call", "check", "clear", "epilogue", "global", "interrupt",
    "prologue", "ref", "stub", "table",
)  # fmt: skip
"""The groups of stencils that use the runtime's structures. No feature of a CPU changes them."""


def pack(decoded: Module, code: CompiledCode, options: CompileOptions, version: str) -> bytes:
    """Return the content of a serialized module, with the options that it was compiled with.

    `version` is that of this package.
    """
    import json

    tables = code.tables
    sections = [decoded.binary, code.linked_code(), tables.brief]
    sections += (each.tobytes() for each in _arrays(tables))
    header = {
        "version": version,
        "runtime": _runtime(),
        "features": sorted(USED_FEATURES),
        "options": options.as_dict(),
        "has_marks": tables.marks is not None,
        "stubs": tables.stubs,
        "relocations": {symbol: len(holes) for symbol, holes in tables.relocations.items()},
        "sections": [len(section) for section in sections],
    }
    text = json.dumps(header).encode()
    rest = [_SIZE.pack(len(text)), text, *sections]
    size = _HEAD.size + _DIGEST_SIZE + sum(map(len, rest))
    head = _HEAD.pack(MAGIC, FORMAT, size)
    body = b"".join(rest)
    return b"".join((head, digest(head, body), body))


def _arrays(tables: CodeTables) -> Iterator[Offsets]:
    """Yield the tables in the order of the content."""
    yield array(OFFSETS, [offset for function in tables.functions for offset in function])
    yield from (tables.ends, tables.epilogues, tables.returns, tables.origins)
    yield array(OFFSETS) if tables.marks is None else tables.marks
    yield array(OFFSETS, [at for holes in tables.relocations.values() for at in holes])
    # Stack maps: the return addresses, the number of each one's map, and the maps, which many
    # calls share: their sizes, and their slots one behind another.
    numbers: dict[tuple[int, ...], int] = {}
    used = [numbers.setdefault(slots, len(numbers)) for slots in tables.stack_maps.values()]
    yield array(OFFSETS, tables.stack_maps)
    yield array(OFFSETS, used)
    yield array(OFFSETS, map(len, numbers))
    yield array(_SLOTS, [slot for slots in numbers for slot in slots])


def unpack(
    content: memoryview, options: CompileOptions | None, version: str
) -> tuple[Module, bytearray, CodeTables, CompileOptions]:
    """Check the content of a serialized module, bytes, and decode it.

    Return the decoded module, its linked code without the relocations, the code's tables, and the
    options that it was compiled with.

    The module must have been compiled with the options, if some are given. Raise DeserializeError
    if the content is no serialized module, or damaged, or for another version, CPU or options.
    """
    header = _checked_header(content, version)
    made_with = CompileOptions(**header["options"])
    if options is not None:
        _check_options(options.as_dict(), header["options"])
    at = _BEGIN + _SIZE.unpack_from(content, _BEGIN - _SIZE.size)[0]
    sections = []
    for size in header["sections"]:
        sections.append(content[at : at + size])
        at += size
    binary, code, brief, *arrays = sections
    tables = _tables(header, len(code), bytes(brief), arrays)
    return decode_module(binary), bytearray(code), tables, made_with


def _checked_header(content: memoryview, version: str) -> Any:
    """Check all but the options; return the header."""
    import json

    begin = bytes(content[: len(MAGIC)])
    if begin != MAGIC:
        if begin and MAGIC.startswith(begin):
            raise DeserializeError(f"it is truncated, to {len(content)} bytes")
        hint = "; Module(wasm) compiles it" if begin.startswith(b"\0asm") else ""
        what = "it is a WebAssembly module" if hint else f"it begins with {begin!r}"
        raise DeserializeError(f"it is not a serialized module: {what}{hint}")
    if len(content) < _BEGIN:
        raise DeserializeError(f"it is truncated, to {len(content)} bytes")
    _, made_as, size = _HEAD.unpack_from(content)
    if made_as != FORMAT:
        raise DeserializeError(f"it has format {made_as}, and this version reads {FORMAT}")
    if len(content) < size:
        raise DeserializeError(f"it is truncated, to {len(content)} of {size} bytes")
    head, body = content[: _HEAD.size], content[_HEAD.size + _DIGEST_SIZE :]
    if digest(head, body) != content[_HEAD.size : _HEAD.size + _DIGEST_SIZE]:
        raise DeserializeError("it is damaged: the digest of its content is another one")
    end = _BEGIN + _SIZE.unpack_from(body)[0]
    header = json.loads(bytes(content[_BEGIN:end]))
    if header["version"] != version:
        raise DeserializeError(
            f"it was made by asm_libcalls {header['version']}, and this is {version}"
        )
    if header["runtime"] != _runtime():
        raise DeserializeError("it was made by another build of asm_libcalls of the same version")
    missing = sorted(set(header["features"]) - CPU_FEATURES)
    if missing:
        raise DeserializeError(
            f"its code is for a CPU with {', '.join(missing)}, which this one has not"
        )
    return header


def _check_options(given: Mapping[str, Any], made_with: Mapping[str, Any]) -> None:
    differing = [name for name, value in given.items() if made_with[name] != value]
    if differing:
        has = ", ".join(f"{name}={made_with[name]}" for name in differing)
        needs = ", ".join(f"{name}={given[name]}" for name in differing)
        raise DeserializeError(f"it was compiled with {has}, and the options have {needs}")


def _tables(header: Any, size: int, brief: bytes, sections: list[memoryview]) -> CodeTables:
    *all_but_slots, slots = sections
    functions, ends, epilogues, returns, origins, marks, holes, mapped, used, lengths = (
        array(OFFSETS, each.tobytes()) for each in all_but_slots
    )
    relocations, at = {}, 0
    for symbol, count in header["relocations"].items():
        relocations[symbol] = holes[at : at + count]
        at += count
    flat, maps, at = array(_SLOTS, slots.tobytes()), [], 0
    for length in lengths:
        maps.append(tuple(flat[at : at + length]))
        at += length
    return CodeTables(
        size=size,
        functions=list(zip(functions[::2], functions[1::2], strict=True)),
        brief=brief,
        ends=ends,
        epilogues=epilogues,
        returns=returns,
        origins=origins,
        stack_maps={at: maps[number] for at, number in zip(mapped, used, strict=True)},
        stubs=header["stubs"],
        relocations=relocations,
        marks=marks if header["has_marks"] else None,
    )


@cache
def _runtime() -> str:
    """Hash what compiled code relies on: structures, libcalls, and the stencils that use them.

    It differs between builds of one version, such as those of a checkout that is being changed.
    """
    structures = {
        name: [(field[0], getattr(each, field[0]).offset) for field in each._fields_]
        for name, each in sorted(vars(vmcontext).items())
        if isinstance(each, type) and issubclass(each, ctypes.Structure)
    }
    signatures = {name: str(each.signature) for name, each in libcalls.DECLARATIONS.items()}
    # Not TEMPLATES, which has those of vectors only when a module needed them.
    names = sorted(name for name in STENCILS if name.partition(".")[0] in _PROTOCOL)
    stencils = [(name, STENCILS[name].code, STENCILS[name].holes) for name in names]
    parts = (structures, signatures, libcalls.BUILTIN_ARRAY, stencils)
    return digest(*(repr(part).encode() for part in parts)).hex()
