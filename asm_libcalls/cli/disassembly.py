"""Disassembles a routine by capstone.

The bytes are read from the executable pages, so the listing is the code that runs. Branches, calls
and slots are named by the image's own symbols.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage


class Instruction(NamedTuple):
    """One instruction in memory."""

    address: int
    offset: int  # bytes from the start of the routine
    label: str  # the image's symbol at this instruction, or ""
    code: bytes
    text: str  # mnemonic and operands, in Intel's syntax; the target of a branch by name
    comment: str  # name of an operand in memory


def disassemble(loaded: LoadedImage, name: str) -> list[Instruction]:
    """Disassemble one routine of a loaded image; ModuleNotFoundError without capstone."""
    start, code = loaded.routine(name), loaded.code(name)
    capstone: Any = importlib.import_module("capstone")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    labels = {offset: symbol for symbol, offset in loaded.image.labels.items()}
    instructions = []
    done = 0
    for found in decoder.disasm(code, start):
        label = labels.get(found.address - loaded.address, "")
        described = _text(capstone, loaded, found)
        instructions.append(Instruction(found.address, done, label, bytes(found.bytes), *described))
        done += found.size
    if done < len(code):  # show bytes that capstone cannot decode
        instructions.append(Instruction(start + done, done, "", code[done:], "(unknown)", ""))
    return instructions


def _text(capstone: Any, loaded: LoadedImage, found: Any) -> tuple[str, str]:
    x86 = capstone.x86
    text, comment = f"{found.mnemonic} {found.op_str}".strip(), ""
    branches = found.group(capstone.CS_GRP_JUMP) or found.group(capstone.CS_GRP_CALL)
    for operand in found.operands:
        if operand.type == x86.X86_OP_IMM and branches:
            text = f"{found.mnemonic} {_name_of(loaded, operand.imm)}"
        elif operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
            comment = _name_of(loaded, found.address + found.size + operand.mem.disp)
    return text, comment


def _name_of(loaded: LoadedImage, target: int) -> str:
    """Name an address by the image's symbols: a slot with its value, or a place in a routine."""
    offset = target - loaded.address
    image = loaded.image
    for name, at in image.slots.items():
        if at == offset:
            return f"slot {name} = {ctypes.c_uint64.from_address(target).value:#x}"
    for name, at in image.labels.items():
        if at == offset:
            return name
    before = [(at, name) for name, (at, size) in image.routines.items() if at <= offset]
    if not before or offset >= len(image.code):
        return f"{target:#x}"  # outside the image
    at, name = max(before)
    return name if at == offset else f"{name}+{offset - at:#x}"
