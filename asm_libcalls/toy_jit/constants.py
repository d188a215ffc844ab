"""Constant expressions (spec 2.0, section 3.3.10): what initialises globals and segments.

In Wasm 2.0 every valid one is a single instruction and `end`, since none of the instructions that
are allowed has an operand.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule
from asm_libcalls.toy_jit.instructions import READERS
from asm_libcalls.toy_jit.module import F32, F64, FUNCREF, I32, I64, type_names
from asm_libcalls.toy_jit.operands import Operands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import ConstExpr, Module
    from asm_libcalls.toy_jit.reader import Reader

__all__ = ["read"]

# Of the last two, the type depends on the immediate.
_TYPES = {
    op.I32_CONST: I32, op.I64_CONST: I64, op.F32_CONST: F32, op.F64_CONST: F64,
    op.REF_FUNC: FUNCREF, op.REF_NULL: 0, op.GLOBAL_GET: 0,
}  # fmt: skip


def read(reader: Reader, module: Module, expected: int) -> ConstExpr:
    """Read and validate a constant expression.

    Parameters
    ----------
    reader : Reader
        Where it comes from.
    module : Module
        What it may refer to: imported globals, and functions, which it declares
        (`Module.references`).
    expected : int
        The value type that it must have.

    Returns
    -------
    tuple of int
        The opcode and the immediate of the instruction.

    Raises
    ------
    InvalidModule
        If it is anything else.
    """
    start = reader.pos
    exprs: list[ConstExpr] = []
    found = b""
    while len(found) < 2:  # then it is wrong already
        at = reader.pos
        opcode = reader.byte()
        if opcode == op.END:
            break
        if opcode not in _TYPES:
            if op.NAMES[opcode] is None and opcode != op.PREFIX:
                raise op.illegal(opcode, at)
            raise InvalidModule("constant expression required", at)
        immediate = READERS[opcode][0](Operands(module, reader, b""))
        valtype = _TYPES[opcode]
        if opcode == op.REF_NULL:
            valtype = immediate
        elif opcode == op.REF_FUNC:
            module.references.add(immediate)
        elif opcode == op.GLOBAL_GET:
            # Not one that this module defines, even before this place (3.4.10).
            if immediate >= module.imported_globals:
                raise InvalidModule(f"unknown global {immediate}", at)
            if module.globals[immediate].type.mutable:
                raise InvalidModule("constant expression required", at)
            valtype = module.globals[immediate].type.value
        exprs.append((opcode, immediate))
        found += bytes([valtype])
    if found != bytes([expected]):
        need = type_names(bytes([expected]))
        what = f"type mismatch: constant expression requires {need} but has {type_names(found)}"
        raise InvalidModule(what, start)
    return exprs[0]
