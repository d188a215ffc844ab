"""Encoding of the binary format: numbers, vectors, opcodes (WebAssembly 2.0, section 5)."""

from __future__ import annotations

from asm_libcalls.emitter.eh_frame import uleb128
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, F32, F64, FUNCREF, I32, I64, V128
from asm_libcalls.toy_jit.frontend.opcodes import V128_CONST, VECTORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBERS = (I32, I64, F32, F64)
REFERENCES = (FUNCREF, EXTERNREF)
END = b"\x0b"
u = uleb128

# By value type, the opcode of its constants.
CONST = {I32: 0x41, I64: 0x42, F32: 0x43, F64: 0x44, V128: V128_CONST}


def s(value: int) -> bytes:
    """Return a signed LEB128."""
    encoded = bytearray()
    while not -0x40 <= value < 0x40:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value & 0x7F])


def vector(items: Iterable[bytes]) -> bytes:
    """Return a vector of encoded items."""
    items = list(items)
    return u(len(items)) + b"".join(items)


def sized(content: bytes) -> bytes:
    """Return bytes with their length before them."""
    return u(len(content)) + content


def encoded(opcode: int) -> bytes:
    """Return an opcode's bytes."""
    if opcode >= VECTORS:
        return b"\xfd" + u(opcode - VECTORS)
    return b"\xfc" + u(opcode - 0x100) if opcode >= 0x100 else bytes([opcode])
