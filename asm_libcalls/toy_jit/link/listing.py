"""Listings: the disassembly of a function, below each WebAssembly instruction its machine code.

The module must be compiled with ``compile_options(listing=True)``, which notes where the code of
each instruction begins.
"""

from __future__ import annotations

import importlib
import sys
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.signatures.arguments import printable
from asm_libcalls.signatures.literals import format_pattern
from asm_libcalls.toy_jit.codegen.layout import offsets_of
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.budget import DEFAULTS, Budget
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES, type_names
from asm_libcalls.toy_jit.frontend.validator import validate_function

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.toy_jit.frontend import module as decoded_module
    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode


class Line(NamedTuple):
    """A line of a listing."""

    address: int  # the machine instruction's; 0 for a WebAssembly instruction
    # from the beginning of the function's code; for a WebAssembly instruction, of the module
    offset: int
    code: bytes  # the machine instruction; empty for a WebAssembly instruction, or a heading
    text: str
    comment: str = ""  # the name of the operand's target


class Module(Protocol):
    """A compiled module: :class:`asm_libcalls.toy_jit.Module`."""

    decoded: decoded_module.Module

    @property
    def code(self) -> CompiledCode:
        """Its machine code."""


def listing(module: Module, index: int) -> Iterator[Line]:
    """Disassemble a function's code in memory.

    Raise ModuleNotFoundError without capstone, and ValueError if the module was compiled without
    ``compile_options(listing=True)``, or the function is imported.
    """
    code, decoded = module.code, module.decoded
    tables = code.tables
    if tables.marks is None:
        raise ValueError(
            "listing(): the Module must be compiled with compile_options(listing=True)"
        )
    if not decoded.imported_functions <= index < len(decoded.functions):
        raise ValueError(f"listing(): function {index} is not defined in the module")
    capstone = importlib.import_module("capstone")
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    defined = index - decoded.imported_functions
    start, _ = tables.functions[defined]
    body = validate_function(decoded, index, Budget(0, dict.fromkeys(DEFAULTS, sys.maxsize)))
    marks = tables.marks[bisect_left(tables.marks, start) :]
    instructions = deque(zip(marks, body.instructions, strict=False))
    targets = {start: stub for stub, start in tables.stubs.items()}
    for i, (begin, _) in enumerate(tables.functions, decoded.imported_functions):
        targets[begin] = _function(module, i)
    symbols = {at: symbol for symbol, holes in tables.relocations.items() for at in holes}
    out_of_line = tables.ends[defined]
    for found in decoder.disasm(code.code_of(defined), code.address + start):
        at = found.address - code.address
        while instructions and instructions[0][0] <= at:
            _, (opcode, immediate, offset) = instructions.popleft()
            yield Line(0, body.start + offset, b"", _instruction(module, opcode, immediate))
        if at == out_of_line:
            yield Line(0, -1, b"", "out of line: traps and interrupts")
        text, comment = f"{found.mnemonic} {found.op_str}".strip(), ""
        for operand in found.operands:
            if operand.type == capstone.x86.X86_OP_IMM and found.group(capstone.CS_GRP_JUMP):
                text = f"{found.mnemonic} +{operand.imm - code.address - start:#x}"
            elif operand.type == capstone.x86.X86_OP_IMM and found.group(capstone.CS_GRP_CALL):
                text = f"{found.mnemonic} {targets[operand.imm - code.address]}"
            elif operand.type == capstone.x86.X86_OP_IMM:
                after = at + found.size  # an immediate comes last
                comment = symbols.get(after - 8) or symbols.get(after - 4, "")
            elif operand.type == capstone.x86.X86_OP_MEM and operand.mem.base == (
                capstone.x86.X86_REG_R15
            ):
                comment = _builtin(module, operand.mem.disp)
        yield Line(found.address, at - start, bytes(found.bytes), text, comment)


def _function(module: Module, index: int) -> str:
    return printable(module.decoded.function_name(index) or f"function {index}")


def _builtin(module: Module, displacement: int) -> str:
    offsets = offsets_of(module.decoded)
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
