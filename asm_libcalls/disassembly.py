"""What stands in memory behind a name: the bytes of a routine, disassembled by capstone.

Read from the executable pages, not from what the assembler gave: this is what runs. Branches,
calls and slots are named by the image's own symbols.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from asm_libcalls.x86_64.pages import LoadedImage

__all__ = ["Instruction", "disassemble"]


class Instruction(NamedTuple):
    """One instruction in memory.

    Attributes
    ----------
    address : int
    offset : int
        Bytes from the start of the routine.
    label : str
        The image's symbol at this place, if the routine has one here.
    code : bytes
    text : str
        Mnemonic and operands, in Intel's syntax.
    comment : str
        What its address operand points to, by name.
    """

    address: int
    offset: int
    label: str
    code: bytes
    text: str
    comment: str


def disassemble(loaded: LoadedImage, name: str) -> list[Instruction]:
    """Disassemble one routine of a loaded image.

    Raises
    ------
    ModuleNotFoundError
        capstone is not installed.
    KeyError
        The image has no such routine.
    """
    start = loaded.routine(name)
    return list(_instructions(importlib.import_module("capstone"), loaded, name, start))


def _instructions(
    capstone: Any, loaded: LoadedImage, name: str, start: int
) -> Iterator[Instruction]:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    code = loaded.code(name)
    image = loaded.image
    labels = {offset: symbol for symbol, (offset, size) in image.routines.items() if not size}
    done = 0
    for found in decoder.disasm(code, start):
        done = found.address + found.size - start
        target = _target(capstone, found)
        yield Instruction(
            found.address,
            found.address - start,
            labels.get(found.address - loaded.address, ""),
            bytes(found.bytes),
            f"{found.mnemonic} {found.op_str}".strip(),
            "" if target is None else _name_of(loaded, target),
        )
    if done < len(code):  # not to be hidden: bytes that capstone does not know
        yield Instruction(start + done, done, "", code[done:], "(unknown)", "")


def _target(capstone: Any, instruction: Any) -> int | None:
    """Return the address that a direct branch or a rip-relative operand points to."""
    x86 = capstone.x86
    branches = instruction.group(capstone.CS_GRP_JUMP) or instruction.group(capstone.CS_GRP_CALL)
    for operand in instruction.operands:
        if operand.type == x86.X86_OP_IMM and branches:
            return int(operand.imm)
        if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
            return int(instruction.address + instruction.size + operand.mem.disp)
    return None


def _name_of(loaded: LoadedImage, target: int) -> str:
    """Name an address by the image's symbols: a slot with its value, or a place in a routine."""
    offset = target - loaded.address
    image = loaded.image
    for name, at in image.slots.items():
        if at == offset:
            return f"slot {name} = {ctypes.c_uint64.from_address(target).value:#x}"
    before = [(at, bool(size), name) for name, (at, size) in image.routines.items() if at <= offset]
    if not before or offset >= len(image.code):
        return "outside of the image"
    exact = [name for at, _, name in before if at == offset]
    if exact:
        return exact[0]
    at, _, name = max(place for place in before if place[1])
    return f"{name}+{offset - at:#x}"
