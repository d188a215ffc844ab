"""Disassembles a routine by capstone.

The bytes are read from the executable pages, so the listing is the code that runs. Branches, calls
and slots are named by the image's own symbols.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
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
    start = loaded.routine(name)
    return list(_instructions(importlib.import_module("capstone"), loaded, name, start))


def _instructions(
    capstone: Any, loaded: LoadedImage, name: str, start: int
) -> Iterator[Instruction]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    code = loaded.code(name)
    image = loaded.image
    labels = {offset: symbol for symbol, offset in image.labels.items()}
    done = 0
    for found in decoder.disasm(code, start):
        done = found.address + found.size - start
        text, comment = _text(capstone, loaded, found)
        yield Instruction(
            found.address,
            found.address - start,
            labels.get(found.address - loaded.address, ""),
            bytes(found.bytes),
            text,
            comment,
        )
    if done < len(code):  # show bytes that capstone cannot decode
        yield Instruction(start + done, done, "", code[done:], "(unknown)", "")


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
