"""Structured control (spec 2.0, section 3.3.8): blocks, branches and calls.

As in :mod:`~asm_libcalls.toy_jit.instructions`, a rule for each instruction.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import leb128
from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.module import FUNCREF, I32, V128, VALUE_TYPES, FuncType, type_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.operands import Frame, Operands, Rule

__all__ = ["CONTROL_RULES"]

ONE_I32 = bytes([I32])

# Block types that are one byte: nothing, or one result.
BLOCK_TYPES = {0x40: FuncType(b"", b"")}
BLOCK_TYPES.update((valtype, FuncType(b"", bytes([valtype]))) for valtype in VALUE_TYPES)


def _block_type(stacks: Operands, pos: int) -> tuple[FuncType, int]:
    byte = stacks.code[pos]
    functype = BLOCK_TYPES.get(byte)
    if functype is not None:
        return functype, pos + 1
    if byte == V128:
        raise MalformedModule("the vector type v128 (SIMD) is not supported", pos)
    index, after = leb128.signed(stacks.code, pos, stacks.end, bits=33)
    if index < 0:
        raise MalformedModule("malformed block type", pos)
    if index >= len(stacks.module.types):
        raise InvalidModule(f"unknown type {index}", pos)
    return stacks.module.types[index], after


def _nop(stacks: Operands, pos: int, offset: int) -> int:
    return pos


def _unreachable(stacks: Operands, pos: int, offset: int) -> int:
    stacks.emit((op.UNREACHABLE, None, len(stacks.vals), offset))
    stacks.set_unreachable()
    return pos


def _block(stacks: Operands, pos: int, offset: int) -> int:
    """Validate a `block` or `loop`."""
    opcode, height = stacks.code[offset], len(stacks.vals)
    functype, pos = _block_type(stacks, pos)
    stacks.pop(functype.params, offset)
    frame = stacks.enter(opcode, functype)
    if opcode == op.LOOP:
        frame.references = stacks.references(offset)
    stacks.emit((opcode, frame, height, offset))
    return pos


def _if(stacks: Operands, pos: int, offset: int) -> int:
    height = len(stacks.vals)
    functype, pos = _block_type(stacks, pos)
    stacks.pop(functype.params + ONE_I32, offset)
    frame = stacks.enter(op.IF, functype)
    stacks.emit((op.IF, frame, height, offset))
    return pos


def _else(stacks: Operands, pos: int, offset: int) -> int:
    frame = stacks.ctrls[-1]
    if frame.opcode != op.IF or frame.has_else:
        raise MalformedModule("END opcode expected", offset)
    height = len(stacks.vals) if stacks.live else -1
    stacks.leave(offset)
    frame.has_else = True
    frame.targeted = frame.targeted or stacks.live  # by the jump over what follows
    frame.unreachable = False
    stacks.vals += frame.params
    stacks.set_live(frame.live)
    stacks.emit((op.ELSE, frame, height, offset))
    return pos


def _end(stacks: Operands, pos: int, offset: int) -> int:
    height = len(stacks.vals) if stacks.live else -1
    frame = stacks.leave(offset)
    passes = frame.opcode == op.IF and not frame.has_else  # an absent `else` does nothing
    if passes and frame.params != frame.results:
        types = f"{type_names(frame.params)} -> {type_names(frame.results)}"
        raise InvalidModule(f"type mismatch: if without else has type {types}", offset)
    if frame.live:
        stacks.instructions.append((op.END, frame, height, offset))
        branched_here = frame.targeted and frame.opcode != op.LOOP
        stacks.set_live(stacks.live or passes or branched_here)
    stacks.ctrls.pop()
    stacks.vals += frame.results
    return pos


def _br(stacks: Operands, pos: int, offset: int) -> int:
    frame, pos = stacks.label(pos, offset)
    height = len(stacks.vals)
    stacks.check(frame.label, offset)
    stacks.emit((op.BR, frame, height, offset))
    stacks.set_unreachable()
    return pos


def _br_if(stacks: Operands, pos: int, offset: int) -> int:
    frame, pos = stacks.label(pos, offset)
    height = len(stacks.vals)
    stacks.pop(ONE_I32, offset)
    stacks.emit((op.BR_IF, frame, height, offset))
    if frame.label:
        stacks.pop(frame.label, offset)
        stacks.vals += frame.label  # known now, even in unreachable code
    return pos


def _br_table(stacks: Operands, pos: int, offset: int) -> int:
    count, after = stacks.u32(pos)
    if count >= stacks.end - after:
        raise MalformedModule("length out of bounds", pos)
    pos = after
    height = len(stacks.vals)
    stacks.pop(ONE_I32, offset)
    frames: list[Frame] = []
    checked: bytes | None = None
    for _ in range(count + 1):  # the last one is the default
        frame, pos = stacks.label(pos, offset)
        frames.append(frame)
        if frame.label is not checked:
            if checked is not None and len(frame.label) != len(checked):
                raise InvalidModule("type mismatch: labels of br_table differ in arity", offset)
            stacks.check(frame.label, offset)
            checked = frame.label
    stacks.emit((op.BR_TABLE, tuple(frames), height, offset))
    stacks.set_unreachable()
    return pos


def _return(stacks: Operands, pos: int, offset: int) -> int:
    frame = stacks.ctrls[0]
    height = len(stacks.vals)
    stacks.check(frame.results, offset)
    stacks.emit((op.RETURN, frame, height, offset))
    stacks.set_unreachable()
    return pos


def _call(stacks: Operands, pos: int, offset: int) -> int:
    functions = stacks.module.functions
    index, pos = stacks.index(pos, functions, "function")
    functype = functions[index].type
    stacks.emit((op.CALL, (index, functype, stacks.references(offset)), len(stacks.vals), offset))
    stacks.pop(functype.params, offset)
    stacks.vals += functype.results
    return pos


def _call_indirect(stacks: Operands, pos: int, offset: int) -> int:
    types = stacks.module.types
    type_index, pos = stacks.index(pos, types, "type")
    table_index, pos = stacks.index(pos, stacks.module.tables, "table")
    if stacks.module.tables[table_index].element != FUNCREF:
        raise InvalidModule("type mismatch: call_indirect requires a table of functions", offset)
    functype = types[type_index]
    immediate = (type_index, table_index, functype, stacks.references(offset))
    stacks.emit((op.CALL_INDIRECT, immediate, len(stacks.vals), offset))
    stacks.pop(functype.params + ONE_I32, offset)
    stacks.vals += functype.results
    return pos


CONTROL_RULES: dict[int, Rule] = {
    op.UNREACHABLE: _unreachable,
    op.NOP: _nop,
    op.BLOCK: _block,
    op.LOOP: _block,
    op.IF: _if,
    op.ELSE: _else,
    op.END: _end,
    op.BR: _br,
    op.BR_IF: _br_if,
    op.BR_TABLE: _br_table,
    op.RETURN: _return,
    op.CALL: _call,
    op.CALL_INDIRECT: _call_indirect,
}
