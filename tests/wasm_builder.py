"""Modules in the binary format, made by hand, with valid and invalid sections."""

from __future__ import annotations

from collections.abc import Iterable

from asm_libcalls.toy_jit.frontend.module import EXTERNREF, F32, F64, FUNCREF, I32, I64
from wasm_encoding import END, s, sized, u, vector

__all__ = [
    "END", "EXTERNREF", "F32", "F64", "FUNCREF", "HEADER", "I32", "I64", "body", "custom",
    "exported", "function", "functype", "i32", "i64", "imported", "module", "name", "s", "section",
    "sized", "u", "vector",
]  # fmt: skip

HEADER = b"\0asm\1\0\0\0"


def name(text: str) -> bytes:
    return sized(text.encode())


def section(id_: int, content: bytes) -> bytes:
    return bytes([id_]) + sized(content)


def custom(label: str, content: bytes = b"") -> bytes:
    return section(0, name(label) + content)


def functype(params: Iterable[int] = (), results: Iterable[int] = ()) -> bytes:
    return b"\x60" + sized(bytes(params)) + sized(bytes(results))


def i32(value: int) -> bytes:
    return b"\x41" + s(value)


def i64(value: int) -> bytes:
    return b"\x42" + s(value)


def body(code: bytes, groups: Iterable[tuple[int, int]] = ()) -> bytes:
    """A function with the locals of `groups` (how many, of which type); `code` without its end."""
    return sized(vector(u(count) + bytes([type_]) for count, type_ in groups) + code + END)


def imported(kind: int, description: bytes, label: str = "i") -> bytes:
    return name("m") + name(label) + bytes([kind]) + description


def exported(label: str, kind: int, index: int) -> bytes:
    return name(label) + bytes([kind]) + u(index)


def module(
    *,
    types: Iterable[bytes] = (),
    imports: Iterable[bytes] = (),
    functions: Iterable[int] = (),
    tables: Iterable[bytes] = (),
    memories: Iterable[bytes] = (),
    globals_: Iterable[bytes] = (),
    exports: Iterable[bytes] = (),
    start: int | None = None,
    elements: Iterable[bytes] = (),
    data_count: int | None = None,
    code: Iterable[bytes] = (),
    data: Iterable[bytes] = (),
) -> bytes:
    """A module of these sections; those that are empty are left out."""
    sections = [
        (1, list(types)),
        (2, list(imports)),
        (3, [u(index) for index in functions]),
        (4, list(tables)),
        (5, list(memories)),
        (6, list(globals_)),
        (7, list(exports)),
        (8, None if start is None else u(start)),
        (9, list(elements)),
        (12, None if data_count is None else u(data_count)),
        (10, list(code)),
        (11, list(data)),
    ]
    return HEADER + b"".join(
        section(id_, content if isinstance(content, bytes) else vector(content))
        for id_, content in sections
        if content
    )


def function(
    code: bytes,
    params: Iterable[int] = (),
    results: Iterable[int] = (),
    groups: Iterable[tuple[int, int]] = (),
) -> bytes:
    """A module of one function."""
    return module(types=[functype(params, results)], functions=[0], code=[body(code, groups)])


# Every kind of instruction, from [] to [], in the module below.
INSTRUCTIONS = (
    b"\x02\x40"  # block
    b"\x41\x00\x0d\x00"  # i32.const 0, br_if 0
    b"\x03\x40"  # loop
    b"\x41\x01\x04\x7f\x41\x02\x05\x41\x03\x0b"  # if (result i32) ... else ... end
    b"\x0e\x01\x00\x01"  # br_table 0 1
    b"\x0b\x0b"  # end, end
    b"\x41\x7f\x28\x02\x08\x1a"  # i32.load offset=8, drop
    b"\x41\x00\x42\xff\x00\x37\x03\x80\x01"  # i64.store offset=128
    b"\x3f\x00\x40\x00\x1a"  # memory.size, memory.grow
    b"\x41\x00\x41\x01\x41\x02\xfc\x08\x01\x00\xfc\x09\x01"  # memory.init, data.drop
    b"\x41\x00\x41\x00\x41\x00\xfc\x0a\x00\x00"  # memory.copy
    b"\x41\x00\x41\x00\x41\x00\xfc\x0b\x00"  # memory.fill
    b"\x41\x00\x41\x00\x41\x00\xfc\x0c\x05\x01\xfc\x0d\x05"  # table.init, elem.drop
    b"\x41\x00\x41\x00\x41\x00\xfc\x0e\x00\x00"  # table.copy
    b"\xd0\x6f\x41\x01\xfc\x0f\x01\x1a\xfc\x10\x01\x1a"  # table.grow, table.size
    b"\x41\x00\xd0\x6f\x41\x00\xfc\x11\x01"  # table.fill
    b"\x41\x00\x41\x00\x25\x01\x26\x01"  # table.get, table.set
    b"\x23\x02\x42\x01\x7c\x24\x02"  # global.get, i64.add, global.set
    b"\x20\x00\x22\x00\x21\x00"  # local.get, local.tee, local.set
    b"\x43\x00\x00\x80\x3f\xbb\x44\x00\x00\x00\x00\x00\x00\x00\x40\xa0\xfc\x06\x1a"  # floats
    b"\x41\x01\x41\x02\x41\x03\x1b\x1a"  # select
    b"\xd0\x70\xd2\x01\x41\x03\x1c\x01\x70\xd1\x1a"  # select (result funcref), ref.is_null
    b"\x41\x06\x10\x00\x41\x06\x41\x05\x11\x01\x00"  # call, call_indirect
    b"\x01\x0f\x00"  # nop, return, unreachable
)

# One of everything that a module can have, so that truncating or damaging it reaches every reader.
EVERYTHING = module(
    types=[
        functype(),
        functype([I32]),
        functype([I32, I64], [I64, I32]),
        functype([], [EXTERNREF]),
        functype([F32, F64, FUNCREF]),
    ],
    imports=[
        imported(0, u(1), "print"),
        imported(1, b"\x70\x01\x01\x02", "table"),
        imported(3, b"\x7f\x00", "base"),
        imported(3, b"\x6f\x00", "object"),
    ],
    functions=[0, 2, 3],
    tables=[b"\x6f\x00\x03"],
    memories=[b"\x01\x01\x80\x80\x04"],
    globals_=[
        b"\x7e\x01" + i64(-(1 << 63)) + END,
        b"\x7d\x00\x43\x00\x00\xa0\x7f" + END,
        b"\x7c\x00\x44" + bytes(7) + b"\x80" + END,
        b"\x70\x01\xd2\x01" + END,
    ],
    exports=[
        exported("", 0, 1),
        exported("mem", 2, 0),
        exported("tab", 1, 1),
        exported("glo", 3, 2),
        exported("ünï", 0, 2),
    ],
    start=1,
    elements=[
        b"\x00" + i32(0) + END + b"\x01\x01",
        b"\x01\x00\x02\x01\x02",
        b"\x02\x00\x23\x00" + END + b"\x00\x01\x02",
        b"\x03\x00\x01\x03",
        b"\x04" + i32(1) + END + b"\x01\xd2\x00" + END,
        b"\x05\x6f\x01\xd0\x6f" + END,
        b"\x06\x01" + i32(2) + END + b"\x6f\x01\x23\x01" + END,
        b"\x07\x70\x01\xd0\x70" + END,
    ],
    data_count=3,
    code=[
        body(INSTRUCTIONS, [(1, I32), (2, F64), (1, EXTERNREF)]),
        body(b"\x20\x01\x20\x00"),
        body(b"\x41\x00\x25\x01"),
    ],
    data=[
        b"\x00" + i32(3) + END + name("zero"),
        b"\x01" + name("one"),
        b"\x02\x00" + i32(9) + END + name("two"),
    ],
)
