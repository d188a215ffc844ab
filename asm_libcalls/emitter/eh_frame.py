"""Call frame information in DWARF's encoding: the caller's registers at each instruction.

Debuggers, profilers and C++ exceptions use it to walk the stack. This module only encodes and
decodes. ``call_frames.py`` derives the frames.

Source: DWARF 5, 6.4 (call frame information); Linux Standard Base 5.0, 10.6 (exception frames);
System V ABI for AMD64, figure 3.36 (numbers of the registers).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

_RSP, _RETURN_ADDRESS = 7, 16

# DW_CFA_*
_UNDEFINED = 0x07
_DEF_CFA, _DEF_CFA_OFFSET = 0x0C, 0x0E
_ADVANCE, _OFFSET, _RESTORE = 0x40, 0x80, 0xC0
_ADVANCE_BY = ((0x100, 0x02, 1), (0x10000, 0x03, 2), (1 << 32, 0x04, 4))
_NOP = b"\0"

_RELATIVE_INT32 = 0x1B  # DW_EH_PE_pcrel | DW_EH_PE_sdata4
_TABLE_INT32, _UINT32 = 0x3B, 0x03  # DW_EH_PE_datarel | DW_EH_PE_sdata4; DW_EH_PE_udata4
_WORD = 8  # of the stack; offsets of saved registers are counted in it


class Frame:
    """A frame at one instruction. The *CFA* is what rsp will be in the caller."""

    __slots__ = ("lost", "offset", "register", "saved")

    def __init__(
        self,
        register: int | None,
        offset: int,
        saved: tuple[tuple[int, int], ...] = (),
        lost: tuple[int, ...] = (),
    ) -> None:
        # the CFA is this register (a DWARF number) plus `offset`; None if the CFA is unknown
        self.register = register
        self.offset = offset
        # the caller's registers that are on the stack, each with its distance below the CFA in
        # bytes
        self.saved = saved
        self.lost = lost  # the caller's registers that were overwritten without being saved

    def _key(self) -> tuple[object, ...]:
        return self.register, self.offset, self.saved, self.lost

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Frame{self._key()}"


ENTERED = Frame(_RSP, _WORD)
"""The frame at the first instruction of a called function."""


def encode(functions: Iterable[tuple[int, int, bytes]], index_at: int) -> tuple[bytes, bytes]:
    """Return the content of ``.eh_frame_hdr``, and of ``.eh_frame``, which follows it.

    `functions` are the address, size in bytes and :func:`instructions` of each, in the order of the
    addresses. `index_at` is the address of ``.eh_frame_hdr``, a multiple of 8. All addresses count
    from one base.
    """
    functions = list(functions)
    index_size = -(-(12 + 8 * len(functions)) // _WORD) * _WORD
    at = index_at + index_size
    content = bytearray(_common(b"zR", bytes([1, _RELATIVE_INT32])))
    index = struct.pack(
        "<4BiI", 1, _RELATIVE_INT32, _UINT32, _TABLE_INT32, at - (index_at + 4), len(functions)
    )
    for address, size, changes in functions:
        start = len(content)
        index += struct.pack("<ii", address - index_at, at + start - index_at)
        # Both distances, to the CIE and to the function, count from their own fields.
        head = struct.pack("<IiI", start + 4, address - (at + start + 8), size)
        content += _record(head + b"\0" + changes)
    content += bytes(4)  # the end
    return index.ljust(index_size, b"\0"), bytes(content)


def encode_anywhere(functions: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the content of an ``.eh_frame`` with absolute addresses, valid at any address.

    `functions` are as in :func:`encode`, in any order.
    """
    content = bytearray(_common(b"", b""))
    for address, size, changes in functions:
        content += _record(struct.pack("<IQQ", len(content) + 4, address, size) + changes)
    content += bytes(4)
    return bytes(content)


def read(content: bytes, at: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield address, size and instructions of each function in an ``.eh_frame`` at an address."""
    head = struct.Struct("<IIiIB")
    start = 4 + struct.unpack_from("<I", content)[0]  # after the CIE
    while len(content) - start > head.size:
        size, _, distance, function_size, _ = head.unpack_from(content, start)
        end = start + 4 + size
        yield at + start + 8 + distance, function_size, content[start + head.size : end]
        start = end


def _record(body: bytes) -> bytes:
    size = -(-(4 + len(body)) // _WORD) * _WORD - 4
    return struct.pack("<I", size) + body.ljust(size, _NOP)


def _common(augmentation: bytes, its_data: bytes) -> bytes:
    return _record(
        struct.pack("<IB", 0, 1)
        + augmentation
        + bytes([0, 1, -_WORD & 0x7F, _RETURN_ADDRESS])
        + its_data
        + bytes([_DEF_CFA, _RSP, _WORD, _OFFSET | _RETURN_ADDRESS, 1])
    )


def instructions(
    frames: Iterable[tuple[int, Frame]], current: Frame = ENTERED, at: int = 0
) -> bytes:
    """Return the call frame instructions for a sequence of frames, each from an offset on.

    Up to offset `at`, the frame is `current`.
    """
    result = bytearray()
    for offset, frame in frames:
        changes = _change(current, frame)
        if changes:
            result += advance(offset - at) + changes
            at, current = offset, frame
    return bytes(result)


def advance(distance: int) -> bytes:
    """Return the instruction that advances the location by `distance` bytes."""
    if distance < _ADVANCE:
        return bytes([_ADVANCE | distance] if distance else [])
    for limit, code, size in _ADVANCE_BY:
        if distance < limit:
            return bytes([code]) + distance.to_bytes(size, "little")
    raise ValueError(f"a function of {distance} bytes")


def _change(old: Frame, new: Frame) -> bytes:
    result = bytearray()
    if new.register is None:
        if old.register is not None:
            result += bytes([_UNDEFINED, _RETURN_ADDRESS])
    else:
        if old.register is None:
            result += bytes([_OFFSET | _RETURN_ADDRESS, 1])
        if old.register != new.register:
            result += bytes([_DEF_CFA, new.register]) + uleb128(new.offset)
        elif old.offset != new.offset:
            result += bytes([_DEF_CFA_OFFSET]) + uleb128(new.offset)
    before, after = dict(old.saved), dict(new.saved)
    for register in sorted({*before, *after, *old.lost, *new.lost}):
        if register in after:
            if before.get(register) != after[register]:
                result += bytes([_OFFSET | register]) + uleb128(after[register] // _WORD)
        elif register in new.lost:
            if register not in old.lost:
                result += bytes([_UNDEFINED, register])
        else:
            result += bytes([_RESTORE | register])
    return bytes(result)


def uleb128(number: int) -> bytes:
    """Return an unsigned LEB128 number."""
    result = bytearray()
    while number > 0x7F:
        result.append(number & 0x7F | 0x80)
        number >>= 7
    result.append(number)
    return bytes(result)
