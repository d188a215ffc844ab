"""Constant expressions (spec 2.0, section 3.3.10): what initialises globals and segments.

In Wasm 2.0 every valid one is a single instruction and `end`, since none of the instructions that
are allowed has an operand.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.module import F32, F64, FUNCREF, I32, I64, type_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import ConstExpr, Module
    from asm_libcalls.toy_jit.reader import Reader

__all__ = ["read"]


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
    expr: ConstExpr | None = None
    found = b""
    while True:
        at = reader.pos
        opcode = reader.byte()
        if opcode == op.END:
            break
        expr, valtype = _instruction(reader, module, opcode, at)
        found += bytes([valtype])
        if len(found) > 1:
            break  # wrong already: no need to see how long it goes on
    if expr is None or found != bytes([expected]):
        need = type_names(bytes([expected]))
        what = f"type mismatch: constant expression requires {need} but has {type_names(found)}"
        raise InvalidModule(what, start)
    return expr


def _instruction(reader: Reader, module: Module, opcode: int, at: int) -> tuple[ConstExpr, int]:
    """Read the rest of an instruction: it, and the type of its value."""
    if opcode == op.I32_CONST:
        return (opcode, reader.signed(32)), I32
    if opcode == op.I64_CONST:
        return (opcode, reader.signed(64)), I64
    if opcode == op.F32_CONST:
        return (opcode, int.from_bytes(reader.take(4), "little")), F32
    if opcode == op.F64_CONST:
        return (opcode, int.from_bytes(reader.take(8), "little")), F64
    if opcode == op.REF_NULL:
        reftype = reader.reference_type()
        return (opcode, reftype), reftype
    if opcode == op.REF_FUNC:
        index = reader.index(module.functions, "function")
        module.references.add(index)
        return (opcode, index), FUNCREF
    if opcode == op.GLOBAL_GET:
        # Not one that this module defines, even before this place (3.4.10: "limited to imports").
        index = reader.index(range(module.imported_globals), "global")
        globaltype = module.globals[index].type
        if globaltype.mutable:
            raise InvalidModule("constant expression required", at)
        return (opcode, index), globaltype.value
    if op.NAMES[opcode] is not None or opcode == op.PREFIX:
        raise InvalidModule("constant expression required", at)
    raise MalformedModule(f"illegal opcode {opcode:02x}", at)
