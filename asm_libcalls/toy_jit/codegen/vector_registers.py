"""Change the registers of a machine instruction, in the bits that encode them.

Source: Intel SDM volume 2, 2.1.5 (ModRM, SIB), 2.2.1 (REX) and 2.3.5 (VEX).
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.copies import Copies, fill_in
from asm_libcalls.toy_jit.codegen.encodings import register_number
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES

_ENDS_OF_OPCODES = {0x38: 1, 0x3A: 1}  # a second byte of the opcode, behind 0F


def _variant(key: tuple[str, tuple[int, ...], str, str, str, str]) -> bytes:
    name, values, *registers = key
    bytes_, holes, _ = TEMPLATES[name]
    code = with_registers(bytes_, *registers)
    for at, which in holes:
        fill_in(code, at, values[which])
    return bytes(code)


VARIANTS = Copies(_variant)
"""By name, values of the holes, and the arguments of :func:`with_registers`: a stencil."""

CHANGED = Copies(lambda key: bytes(with_registers(key[0], **{key[1]: key[2]})))
"""By code, an argument of :func:`with_registers` and a register: the code with that register."""


def with_registers(
    code: bytes | bytearray, to: str = "", left: str = "", right: str = "", index: str = ""
) -> bytearray:
    """Return an instruction with other registers; an empty name keeps the register.

    `to` is in the field `reg` of its ModRM byte, `left` in VEX.vvvv, `right` in `rm` of ModRM, and
    `index` in the SIB byte, which may be NO_INDEX.
    """
    changed = bytearray(code)
    for register, change in ((to, _change_reg), (left, _change_vvvv), (right, _change_rm)):
        if register:
            change(changed, int(register[1:]))
    if index:
        _change_index(changed, register_number(index))
    return changed


def _prefix_and_modrm(code: bytearray) -> tuple[int, int]:
    """Return the offsets of the byte with the upper bits of registers, and of ModRM."""
    if code[0] == 0xC4:
        return 1, 4
    if code[0] == 0xC5:
        return 1, 3
    at = 1 if code[0] in (0x66, 0xF2, 0xF3) else 0
    assert code[at] & 0xF0 == 0x40, "a REX prefix"
    assert code[at + 1] == 0x0F
    return at, at + 3 + _ENDS_OF_OPCODES.get(code[at + 2], 0)


def _set(code: bytearray, at: int, mask: int, value: int) -> None:
    code[at] = code[at] & ~mask | value


def _change_reg(code: bytearray, number: int) -> None:
    prefix, modrm = _prefix_and_modrm(code)
    if code[0] in (0xC4, 0xC5):
        _set(code, prefix, 0x80, (number < 8) << 7)
    else:
        _set(code, prefix, 4, number >> 3 << 2)
    _set(code, modrm, 0x38, (number & 7) << 3)


def _change_rm(code: bytearray, number: int) -> None:
    prefix, modrm = _prefix_and_modrm(code)
    assert code[0] != 0xC5, "the short prefix has no bit for rm"
    if code[0] == 0xC4:
        _set(code, prefix, 0x20, (number < 8) << 5)
    else:
        _set(code, prefix, 1, number >> 3)
    _set(code, modrm, 7, number & 7)


def _change_index(code: bytearray, number: int) -> None:
    prefix, modrm = _prefix_and_modrm(code)
    assert code[modrm] & 7 == 4, "a SIB byte"
    if code[0] == 0xC4:
        _set(code, prefix, 0x40, (number < 8) << 6)
    else:
        _set(code, prefix, 2, number >> 3 << 1)
    _set(code, modrm + 1, 0x38, (number & 7) << 3)


def _change_vvvv(code: bytearray, number: int) -> None:
    assert code[0] in (0xC4, 0xC5), "a VEX prefix"
    _set(code, 2 if code[0] == 0xC4 else 1, 0x78, (~number & 15) << 3)
