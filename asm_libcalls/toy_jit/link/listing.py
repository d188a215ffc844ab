"""Listings: the disassembly of a function, below each WebAssembly instruction its machine code.

The module must be compiled with ``compile_options(listing=True)``, which notes where the code of
each instruction begins.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.literals import format_pattern
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES, type_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.toy_jit.frontend import module as decoded_module
    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode

__all__ = ["Line", "listing"]


class Line(NamedTuple):
    """A line of a listing.

    Attributes
    ----------
    address : int
        The machine instruction's; 0 for a WebAssembly instruction.
    offset : int
        From the beginning of the function's code; for a WebAssembly instruction, of the module.
    code : bytes
        The machine instruction; empty for a WebAssembly instruction, or a heading.
    text : str
    comment : str
        The name of the operand's target.
    """

    address: int
    offset: int
    code: bytes
    text: str
    comment: str = ""


class Module(Protocol):
    """A compiled module: :class:`asm_libcalls.toy_jit.Module`."""

    decoded: decoded_module.Module

    @property
    def code(self) -> CompiledCode:
        """Its machine code."""


def listing(module: Module, index: int) -> Iterator[Line]:
    """Disassemble a function's code in memory.

    Parameters
    ----------
    module : Module
        Compiled with ``compile_options(listing=True)``.
    index : int
        The function's index; not that of an import.

    Raises
    ------
    ModuleNotFoundError
        capstone is not installed.
    ValueError
        The module was compiled without ``listing=True``, or the function is imported.
    """
    code, decoded = module.code, module.decoded
    layout = code.layout
    if layout.marks is None:
        raise ValueError(
            "listing(): the Module must be compiled with compile_options(listing=True)"
        )
    if not decoded.imported_functions <= index < len(decoded.functions):
        raise ValueError(f"listing(): function {index} is not defined in the module")
    capstone = importlib.import_module("capstone")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    defined = index - decoded.imported_functions
    start, end = layout.functions[defined]
    marks = [mark for mark in layout.marks if start <= mark[0] < end]
    targets = dict(layout.calls)
    addresses = {address: symbol for symbol, address in layout.addresses.items()}
    out_of_line = layout.ends[defined]
    for found in decoder.disasm(code.code_of(defined), code.address + start):
        at = found.address - code.address
        while marks and marks[0][0] <= at:
            _, offset, opcode, immediate = marks.pop(0)
            yield Line(0, offset, b"", _instruction(module, opcode, immediate))
        if at == out_of_line:
            yield Line(0, -1, b"", "out of line: traps and interrupts")
        text, comment = f"{found.mnemonic} {found.op_str}".strip(), ""
        target = targets.get(at + found.size - 4)  # a call ends with its distance
        for operand in found.operands:
            if operand.type == capstone.x86.X86_OP_IMM and found.group(capstone.CS_GRP_JUMP):
                text = f"{found.mnemonic} +{operand.imm - code.address - start:#x}"
            elif operand.type == capstone.x86.X86_OP_IMM:
                comment = addresses.get(operand.imm & 0xFFFFFFFFFFFFFFFF, comment)
            elif operand.type == capstone.x86.X86_OP_MEM and operand.mem.base == (
                capstone.x86.X86_REG_R15
            ):
                comment = _builtin(module, operand.mem.disp)
        if target:
            text = f"{found.mnemonic} {_target(module, target)}"
        yield Line(found.address, at - start, bytes(found.bytes), text, comment)


def _target(module: Module, role: str) -> str:
    kind, _, index = role.partition(".")
    return _function(module, int(index)) if kind == "function" else role


def _function(module: Module, index: int) -> str:
    return module.decoded.function_name(index) or f"function {index}"


def _builtin(module: Module, displacement: int) -> str:
    offsets = module.code.layout.offsets
    slot, rest = divmod(displacement - offsets.vmctx_builtin_function(0), 8)
    return BUILTIN_ARRAY[slot] if not rest and 0 <= slot < len(BUILTIN_ARRAY) else ""


def _instruction(module: Module, opcode: int, immediate: Any) -> str:
    name, letters = op.NAMES[opcode] or "", op.IMMEDIATES[opcode]
    if letters in ("s", "S"):
        return f"{name} {format_pattern(VALUE_TYPES[name[:3]], immediate)}"
    if letters == "V":
        return f"{name} {immediate:#034x}"
    if letters == "K":
        return f"{name} {' '.join(map(str, immediate))}"
    if letters == "f":
        index = immediate if opcode == op.REF_FUNC else immediate[0]
        return f"{name} {_function(module, index)}"
    if letters == "b":
        return f"{name} {type_names(immediate.params)} -> {type_names(immediate.results)}"
    if opcode in (op.DROP, op.SELECT, op.REF_NULL, op.REF_IS_NULL):
        return f"{name} ({VALUE_TYPE_NAMES[immediate]})"
    if letters.isdigit():
        return f"{name} offset={immediate}"
    parts = immediate if isinstance(immediate, tuple) else (immediate,)
    return " ".join((name, *(str(part) for part in parts if isinstance(part, int))))
