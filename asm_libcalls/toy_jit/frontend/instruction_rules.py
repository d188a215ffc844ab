"""Decoding and validation of single instructions: readers of immediates, and rules.

An instruction has a *rule* if its type depends on immediates, on the stack, or on the module. The
rule gets the stacks and the immediates. It validates the instruction (spec 2.0, section 3.3),
changes the stacks as the instruction does, and returns the immediate for the validated list.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend import proposals
from asm_libcalls.toy_jit.frontend.module import (
    FUNCREF,
    I32,
    REFERENCE_TYPES,
    VALUE_TYPES,
    FuncType,
    type_names,
)
from asm_libcalls.toy_jit.frontend.operands import UNKNOWN, Frame, Operands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

ONE_I32 = bytes([I32])

# -- immediates, by the letters of the table in opcodes.py

BLOCK_TYPES = {0x40: FuncType(b"", b"")}
BLOCK_TYPES.update((valtype, FuncType(b"", bytes([valtype]))) for valtype in VALUE_TYPES)
"""Block types of one byte: no result, or one."""


def _block_type(s: Operands) -> FuncType:
    reader, start = s.reader, s.reader.pos
    byte = reader.byte()
    if byte in BLOCK_TYPES:
        return BLOCK_TYPES[byte]
    proposals.check(proposals.VALUE_TYPES, byte, start)
    reader.pos = start
    index = reader.signed(33)
    if index < 0:
        raise MalformedModule("malformed block type", start)
    if index >= len(s.module.types):
        raise InvalidModule(f"unknown type {index}", start)
    return s.module.types[index]


def _label(s: Operands) -> Frame:
    depth = s.reader.u32()
    if depth >= len(s.ctrls):
        raise InvalidModule(f"unknown label {depth}", s.offset)
    frame = s.ctrls[-1 - depth]
    if s.live:
        frame.targeted = True
    return frame


def _labels(s: Operands) -> tuple[Frame, ...]:
    reader = s.reader
    count = reader.length() + 1  # the last one is the default
    depths = reader.data[reader.pos : min(reader.pos + count, reader.end)]
    if len(depths) < count or max(depths) >= min(0x80, len(s.ctrls)):
        return tuple(_label(s) for _ in range(count))
    reader.pos += count  # each has one byte
    if s.live:
        for depth in {*depths}:
            s.ctrls[-1 - depth].targeted = True
    return tuple([s.ctrls[-1 - depth] for depth in depths])


def _value_type(s: Operands) -> int:
    start = s.reader.pos
    if s.reader.u32() != 1:
        raise InvalidModule("invalid result arity", start)
    return s.reader.value_type()


def _memory(s: Operands) -> None:
    """Read the index of the memory: a byte, which must be 0."""
    reader = s.reader
    if reader.byte() != 0:
        raise MalformedModule("zero byte expected", reader.pos - 1)
    if not s.module.memories:
        raise InvalidModule("unknown memory 0", reader.pos - 1)


def _data(s: Operands) -> int:
    if s.module.data_count is None:
        raise MalformedModule("data count section required", s.reader.pos)
    return s.reader.index(s.module.data, "data segment")


def _access(s: Operands) -> int:
    """Read the alignment and offset of a load or store; return the offset."""
    align = s.reader.u32()
    if 64 <= align < 128:  # bit 6: the index of a memory follows
        raise proposals.refusal(proposals.MEMORY_OF_ACCESS, s.offset)
    if align >= 32:
        raise MalformedModule("malformed memop flags", s.offset)
    if align > op.ALIGNMENTS[s.opcode]:
        raise InvalidModule("alignment must not be larger than natural", s.offset)
    offset = s.reader.u32()
    if not s.module.memories:
        raise InvalidModule("unknown memory 0", s.offset)
    return offset


def _lane(s: Operands, count: int = 0) -> int:
    """Read a lane index below `count`, or below the instruction's number of lanes if that is 0."""
    lane = s.reader.byte()
    if lane >= (count or op.LANES[s.opcode]):
        raise InvalidModule(f"invalid lane index {lane}", s.offset)
    return lane


_BY_LETTER: dict[str, Callable[[Operands], Any]] = {
    "b": _block_type,
    "l": _label,
    "L": _labels,
    "f": lambda s: s.reader.index(s.module.functions, "function"),
    "y": lambda s: s.reader.index(s.module.types, "type"),
    "x": lambda s: s.reader.index(s.local_types, "local"),
    "g": lambda s: s.reader.index(s.module.globals, "global"),
    "t": lambda s: s.reader.index(s.module.tables, "table"),
    "e": lambda s: s.reader.index(s.module.elements, "elem segment"),
    "m": _memory,
    "d": _data,
    "i": lambda s: s.reader.signed(32),
    "I": lambda s: s.reader.signed(64),
    "s": lambda s: int.from_bytes(s.reader.take(4), "little"),
    "S": lambda s: int.from_bytes(s.reader.take(8), "little"),
    "V": lambda s: int.from_bytes(s.reader.take(16), "little"),
    "k": _lane,
    "K": lambda s: bytes(_lane(s, 32) for _ in range(16)),
    "r": lambda s: s.reader.reference_type(),
    "v": _value_type,
    **dict.fromkeys("01234", _access),
}

READERS = [tuple(_BY_LETTER[letter] for letter in letters) for letters in op.IMMEDIATES]
"""By opcode: the readers of its immediates."""

# -- structured control


def _block(s: Operands, functype: FuncType) -> Frame:
    opcode, params = s.opcode, functype.params
    s.pop(params + ONE_I32 if opcode == op.IF else params)
    frame = s.enter(opcode, functype)
    if opcode == op.LOOP:
        frame.references = s.references()
    return frame


def _else(s: Operands) -> Frame:
    frame = s.ctrls[-1]
    if frame.opcode != op.IF or frame.has_else:
        raise MalformedModule("END opcode expected", s.offset)
    s.leave()
    frame.has_else = True
    frame.targeted = frame.targeted or s.live  # by the jump over the `else`
    frame.unreachable = False
    s.vals += frame.params
    s.live = frame.live
    return frame


def _end(s: Operands) -> Frame:
    frame = s.leave()
    passes = frame.opcode == op.IF and not frame.has_else  # an absent `else` does nothing
    if passes and frame.params != frame.results:
        types = f"{type_names(frame.params)} -> {type_names(frame.results)}"
        raise InvalidModule(f"type mismatch: if without else has type {types}", s.offset)
    branched_here = frame.targeted and frame.opcode != op.LOOP
    s.live = frame.live and (s.live or passes or branched_here)
    s.ctrls.pop()
    s.vals += frame.results
    return frame


def _br(s: Operands, frame: Frame) -> Frame:
    s.check(frame.label)
    s.set_unreachable()
    return frame


def _br_if(s: Operands, frame: Frame) -> Frame:
    s.pop(ONE_I32)
    if frame.label:
        s.pop(frame.label)
        s.vals += frame.label  # known now, even in unreachable code
    return frame


def _br_table(s: Operands, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    s.pop(ONE_I32)
    for label in dict.fromkeys(frame.label for frame in frames):
        if len(label) != len(frames[0].label):
            raise InvalidModule("type mismatch: labels of br_table differ in arity", s.offset)
        s.check(label)
    s.set_unreachable()
    return frames


def _call(s: Operands, index: int) -> tuple[Any, ...]:
    functype = s.module.functions[index].type
    references = s.references()
    s.pop(functype.params)
    s.vals += functype.results
    return index, functype, references


def _call_indirect(s: Operands, type_index: int, table: int) -> tuple[Any, ...]:
    if s.module.tables[table].element != FUNCREF:
        raise InvalidModule("type mismatch: call_indirect requires a table of functions", s.offset)
    functype = s.module.types[type_index]
    references = s.references()
    s.pop(functype.params + ONE_I32)
    s.vals += functype.results
    return type_index, table, functype, references


# -- operands and variables


def _lane_access(s: Operands, offset: int, lane: int) -> tuple[int, int]:
    params, results = op.TYPES[s.opcode]
    s.pop(params)
    s.vals += results
    return offset, lane


def _select(s: Operands) -> int:
    s.pop(ONE_I32)
    second, first = s.pop_any(), s.pop_any()
    valtype = first if first != UNKNOWN else second
    if valtype in REFERENCE_TYPES or second not in (UNKNOWN, valtype):
        have = type_names(bytes([first, second]))
        what = f"type mismatch: select requires two of one numeric type but stack has {have}"
        raise InvalidModule(what, s.offset)
    s.vals.append(valtype)
    return valtype


def _select_t(s: Operands, valtype: int) -> int:
    s.pop(bytes([valtype, valtype, I32]))
    s.vals.append(valtype)
    return valtype


def _local(s: Operands, index: int) -> int:
    valtype = s.local_types[index : index + 1]
    if s.opcode != op.LOCAL_GET:
        s.pop(valtype)
    if s.opcode != op.LOCAL_SET:
        s.vals += valtype
    return index


def _global_get(s: Operands, index: int) -> tuple[Any, ...]:
    references = s.references()
    s.vals.append(s.module.globals[index].type.value)
    return index, references


def _global_set(s: Operands, index: int) -> tuple[Any, ...]:
    globaltype = s.module.globals[index].type
    if not globaltype.mutable:
        raise InvalidModule("global is immutable", s.offset)
    references = s.references()
    s.pop(bytes([globaltype.value]))
    return index, references


# -- references and tables


def _ref_null(s: Operands, reftype: int) -> int:
    s.vals.append(reftype)
    return reftype


def _ref_is_null(s: Operands) -> int:
    reftype = s.pop_any()
    if reftype not in (UNKNOWN, *REFERENCE_TYPES):
        s.vals.append(reftype)
        raise s.mismatch("a reference")
    s.vals.append(I32)
    return reftype


def _ref_func(s: Operands, index: int) -> int:
    if index not in s.module.references:
        raise InvalidModule(f"undeclared function reference {index}", s.offset)
    s.vals.append(FUNCREF)
    return index


def _bulk(s: Operands, *indices: int | None) -> tuple[Any, ...]:
    """Validate an instruction on memories, tables and segments, with its type in op.TYPES."""
    module, letters = s.module, op.IMMEDIATES[s.opcode]
    elements = [
        module.tables[index].element if letter == "t" else module.elements[index].type
        for letter, index in zip(letters, indices, strict=True)
        if letter in "te" and index is not None
    ]
    if len(set(elements)) > 1:
        have = type_names(bytes(elements))
        what = f"type mismatch: {op.NAMES[s.opcode]} with elements {have}"
        raise InvalidModule(what, s.offset)
    references = s.references()
    params, results = op.TYPES[s.opcode]
    element = bytes(elements[:1])
    s.pop(params.replace(bytes([op.ELEMENT]), element))
    s.vals += results.replace(bytes([op.ELEMENT]), element)
    return (*(index for index in indices if index is not None), references)


_BY_OPCODE: dict[int, Callable[..., Any]] = {
    op.UNREACHABLE: Operands.set_unreachable, op.BLOCK: _block, op.LOOP: _block, op.IF: _block,
    op.ELSE: _else, op.END: _end, op.BR: _br, op.BR_IF: _br_if, op.BR_TABLE: _br_table,
    op.RETURN: lambda s: _br(s, s.ctrls[0]), op.CALL: _call, op.CALL_INDIRECT: _call_indirect,
    op.DROP: Operands.pop_any, op.SELECT: _select, op.SELECT_T: _select_t,
    op.LOCAL_GET: _local, op.LOCAL_SET: _local, op.LOCAL_TEE: _local,
    op.GLOBAL_GET: _global_get, op.GLOBAL_SET: _global_set,
    op.REF_NULL: _ref_null, op.REF_IS_NULL: _ref_is_null, op.REF_FUNC: _ref_func,
}  # fmt: skip

_RULES = [
    _BY_OPCODE.get(opcode)
    or (_bulk if set(letters) & set("mdte") else _lane_access if len(letters) > 1 else None)
    for opcode, letters in enumerate(op.IMMEDIATES)
]
"""By opcode: its rule, or None if op.TYPES has its whole type."""


def validate_instruction(s: Operands, offset: int) -> tuple[int, Any]:
    """Validate the instruction at `offset` by its rule; return its opcode and immediate."""
    reader = s.reader
    s.offset = offset
    if offset == reader.end:
        raise MalformedModule("END opcode expected, not the unexpected end of the function", offset)
    opcode = reader.data[offset]
    reader.pos = offset + 1
    if opcode in (op.PREFIX, op.VECTOR_PREFIX):
        opcode = op.prefixed(opcode, reader.u32(), offset)
    elif op.NAMES[opcode] is None:
        raise op.illegal(opcode, offset)
    s.opcode = opcode

    readers = READERS[opcode]
    rule: Callable[..., Any] | None = _RULES[opcode]
    immediate: Any = readers[0](s) if readers else None
    if rule is None:
        params, results = op.TYPES[opcode]
        s.pop(params)
        s.vals += results
    elif len(readers) == 1:
        immediate = rule(s, immediate)
    else:
        others = [read(s) for read in readers[1:]]
        immediate = rule(s, immediate, *others) if readers else rule(s)
    return (op.SELECT if opcode == op.SELECT_T else opcode), immediate
