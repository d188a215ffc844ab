"""What follows an opcode: readers of immediates, by the letters of the table of instructions."""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.module import V128, VALUE_TYPES, FuncType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.operands import Frame, Operands

__all__ = ["READERS"]

# Block types that are one byte: nothing, or one result.
_BLOCK_TYPES = {0x40: FuncType(b"", b"")}
_BLOCK_TYPES.update((valtype, FuncType(b"", bytes([valtype]))) for valtype in VALUE_TYPES)


def _block_type(s: Operands) -> FuncType:
    reader, start = s.reader, s.reader.pos
    byte = reader.byte()
    if byte in _BLOCK_TYPES:
        return _BLOCK_TYPES[byte]
    if byte == V128:
        raise MalformedModule("the vector type v128 (SIMD) is not supported", start)
    reader.pos = start
    index = reader.signed(33)
    if index < 0:
        raise MalformedModule("malformed block type", start)
    if index >= len(s.module.types):
        raise InvalidModule(f"unknown type {index}", start)
    return s.module.types[index]


def _label(s: Operands) -> Frame:
    depth = s.reader.u32()
    if depth >= len(s.ctrls):
        raise InvalidModule(f"unknown label {depth}", s.offset)
    frame = s.ctrls[-1 - depth]
    frame.targeted = frame.targeted or s.live
    return frame


def _labels(s: Operands) -> tuple[Frame, ...]:
    return tuple(_label(s) for _ in range(s.reader.length() + 1))  # the last one is the default


def _value_type(s: Operands) -> int:
    start = s.reader.pos
    if s.reader.u32() != 1:
        raise InvalidModule("invalid result arity", start)
    return s.reader.value_type()


def _memory(s: Operands) -> None:
    """Read the byte that stands for the one memory."""
    reader = s.reader
    if reader.byte() != 0:
        raise MalformedModule("zero byte expected", reader.pos - 1)
    if not s.module.memories:
        raise InvalidModule("unknown memory 0", reader.pos - 1)


def _data(s: Operands) -> int:
    if s.module.data_count is None:
        raise MalformedModule("data count section required", s.reader.pos)
    return s.reader.index(s.module.data, "data segment")


def _access(s: Operands) -> int:
    """Read the alignment and offset of a load or store; return the offset."""
    align = s.reader.u32()
    if align >= 32:
        raise MalformedModule("malformed memop flags", s.offset)
    if align > op.ALIGNMENTS[s.opcode]:
        raise InvalidModule("alignment must not be larger than natural", s.offset)
    offset = s.reader.u32()
    if not s.module.memories:
        raise InvalidModule("unknown memory 0", s.offset)
    return offset


_BY_LETTER: dict[str, Callable[[Operands], Any]] = {
    "b": _block_type,
    "l": _label,
    "L": _labels,
    "f": lambda s: s.reader.index(s.module.functions, "function"),
    "y": lambda s: s.reader.index(s.module.types, "type"),
    "x": lambda s: s.reader.index(s.local_types, "local"),
    "g": lambda s: s.reader.index(s.module.globals, "global"),
    "t": lambda s: s.reader.index(s.module.tables, "table"),
    "e": lambda s: s.reader.index(s.module.elements, "elem segment"),
    "m": _memory,
    "d": _data,
    "i": lambda s: s.reader.signed(32),
    "I": lambda s: s.reader.signed(64),
    "s": lambda s: int.from_bytes(s.reader.take(4), "little"),
    "S": lambda s: int.from_bytes(s.reader.take(8), "little"),
    "r": lambda s: s.reader.reference_type(),
    "v": _value_type,
    **dict.fromkeys("0123", _access),
}

READERS = [tuple(_BY_LETTER[letter] for letter in letters) for letters in op.IMMEDIATES]
"""By opcode: what reads its immediates."""
