"""Instructions whose type depends on their immediates, on the stack, or on the module.

A *rule* for each, or for a few of the same shape, in the table RULES: called with the stacks, the
position of the immediates and the offset of the opcode, it reads, checks (spec 2.0, section 3.3)
and passes the instruction on, and returns the position of the next one. The instructions of fixed
type, and the few that are most of all code, are in the loop of
:mod:`~asm_libcalls.toy_jit.validator`.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import leb128
from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.control import CONTROL_RULES
from asm_libcalls.toy_jit.errors import InvalidModule, MalformedModule
from asm_libcalls.toy_jit.module import (
    F32,
    F64,
    FUNCREF,
    I32,
    I64,
    REFERENCE_TYPES,
    VALUE_TYPES,
    type_names,
)
from asm_libcalls.toy_jit.operands import UNKNOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.operands import Operands, Rule

__all__ = ["RULES"]

ONE_I32 = bytes([I32])


# -- parametric, variables


def _drop(stacks: Operands, pos: int, offset: int) -> int:
    height = len(stacks.vals)
    stacks.emit((op.DROP, stacks.pop_any(offset), height, offset))
    return pos


def _select(stacks: Operands, pos: int, offset: int) -> int:
    height = len(stacks.vals)
    stacks.pop(ONE_I32, offset)
    second = stacks.pop_any(offset)
    first = stacks.pop_any(offset)
    valtype = first if first != UNKNOWN else second
    if valtype in REFERENCE_TYPES or second not in (UNKNOWN, valtype):
        have = type_names(bytes([first, second]))
        what = f"type mismatch: select requires two of one numeric type but stack has {have}"
        raise InvalidModule(what, offset)
    stacks.emit((op.SELECT, valtype, height, offset))
    stacks.vals.append(valtype)
    return pos


def _select_t(stacks: Operands, pos: int, offset: int) -> int:
    count, after = stacks.u32(pos)
    if count != 1:
        raise InvalidModule("invalid result arity", pos)
    valtype = stacks.code[after]
    if valtype not in VALUE_TYPES:
        raise MalformedModule("malformed value type", after)
    height = len(stacks.vals)
    stacks.pop(bytes([valtype, valtype, I32]), offset)
    stacks.emit((op.SELECT, valtype, height, offset))
    stacks.vals.append(valtype)
    return after + 1


def _global_get(stacks: Operands, pos: int, offset: int) -> int:
    space = stacks.module.globals
    index, pos = stacks.index(pos, space, "global")
    stacks.emit((op.GLOBAL_GET, (index, stacks.references(offset)), len(stacks.vals), offset))
    stacks.vals.append(space[index].type.value)
    return pos


def _global_set(stacks: Operands, pos: int, offset: int) -> int:
    space = stacks.module.globals
    index, pos = stacks.index(pos, space, "global")
    globaltype = space[index].type
    if not globaltype.mutable:
        raise InvalidModule("global is immutable", offset)
    stacks.emit((op.GLOBAL_SET, (index, stacks.references(offset)), len(stacks.vals), offset))
    stacks.pop(bytes([globaltype.value]), offset)
    return pos


# -- constants, references


def _i64_const(stacks: Operands, pos: int, offset: int) -> int:
    value, pos = leb128.signed(stacks.code, pos, stacks.end, bits=64)
    stacks.emit((op.I64_CONST, value, len(stacks.vals), offset))
    stacks.vals.append(I64)
    return pos


def _float_const(stacks: Operands, pos: int, offset: int) -> int:
    opcode = stacks.code[offset]
    valtype, size = (F32, 4) if opcode == op.F32_CONST else (F64, 8)
    bits = int.from_bytes(stacks.code[pos : pos + size], "little")
    stacks.emit((opcode, bits, len(stacks.vals), offset))
    stacks.vals.append(valtype)
    return pos + size


def _ref_null(stacks: Operands, pos: int, offset: int) -> int:
    reftype = stacks.code[pos]
    if reftype not in REFERENCE_TYPES:
        raise MalformedModule("malformed reference type", pos)
    stacks.emit((op.REF_NULL, reftype, len(stacks.vals), offset))
    stacks.vals.append(reftype)
    return pos + 1


def _ref_is_null(stacks: Operands, pos: int, offset: int) -> int:
    height = len(stacks.vals)
    reftype = stacks.pop_any(offset)
    if reftype not in (UNKNOWN, *REFERENCE_TYPES):
        stacks.vals.append(reftype)
        raise stacks.mismatch("a reference", offset)
    stacks.emit((op.REF_IS_NULL, reftype, height, offset))
    stacks.vals.append(I32)
    return pos


def _ref_func(stacks: Operands, pos: int, offset: int) -> int:
    module = stacks.module
    index, pos = stacks.index(pos, module.functions, "function")
    if index not in module.references:
        raise InvalidModule(f"undeclared function reference {index}", offset)
    stacks.emit((op.REF_FUNC, index, len(stacks.vals), offset))
    stacks.vals.append(FUNCREF)
    return pos


# -- memories, tables and segments


# Their opcodes, the indices that follow in the binary ("m" memory, "d" data segment, "t" table, "e"
# element segment), parameters and results ("i" is i32, "t" the type of the table's elements).
_BULK = (
    (op.MEMORY_SIZE, "m", "", "i"),
    (op.MEMORY_GROW, "m", "i", "i"),
    (op.MEMORY_INIT, "dm", "iii", ""),
    (op.DATA_DROP, "d", "", ""),
    (op.MEMORY_COPY, "mm", "iii", ""),
    (op.MEMORY_FILL, "m", "iii", ""),
    (op.TABLE_GET, "t", "i", "t"),
    (op.TABLE_SET, "t", "it", ""),
    (op.TABLE_INIT, "et", "iii", ""),
    (op.ELEM_DROP, "e", "", ""),
    (op.TABLE_COPY, "tt", "iii", ""),
    (op.TABLE_GROW, "t", "ti", "i"),
    (op.TABLE_SIZE, "t", "", "i"),
    (op.TABLE_FILL, "t", "iti", ""),
)


def _memory(stacks: Operands, pos: int) -> int:
    """Read the byte that stands for the one memory."""
    if stacks.code[pos] != 0:
        raise MalformedModule("zero byte expected", pos)
    if not stacks.module.memories:
        raise InvalidModule("unknown memory 0", pos)
    return pos + 1


def _bulk_rule(opcode: int, spaces: str, params: str, results: str) -> Rule:
    """Make the rule of an instruction of _BULK."""

    def types(letters: str, element: int) -> bytes:
        return bytes(element if letter == "t" else I32 for letter in letters)

    # Ready made for both types that elements can have, and for instructions that have none.
    typed = {
        element: (types(params, element), types(results, element))
        for element in (UNKNOWN, *REFERENCE_TYPES)
    }

    def rule(stacks: Operands, pos: int, offset: int) -> int:
        module = stacks.module
        indices: list[int] = []
        elements = []  # the element types of what the indices stand for
        for space in spaces:
            if space == "m":
                pos = _memory(stacks, pos)
                continue
            if space == "d":
                if module.data_count is None:
                    raise MalformedModule("data count section required", pos)
                index, pos = stacks.index(pos, module.data, "data segment")
            elif space == "t":
                index, pos = stacks.index(pos, module.tables, "table")
                elements.append(module.tables[index].element)
            else:
                index, pos = stacks.index(pos, module.elements, "elem segment")
                elements.append(module.elements[index].type)
            indices.append(index)
        if len(elements) == 2 and elements[0] != elements[1]:
            have = type_names(bytes(elements))
            raise InvalidModule(f"type mismatch: {op.NAMES[opcode]} with elements {have}", offset)
        immediate = (*indices, stacks.references(offset))
        stacks.emit((opcode, immediate, len(stacks.vals), offset))
        needed, left = typed[elements[0] if elements else UNKNOWN]
        stacks.pop(needed, offset)
        stacks.vals += left
        return pos

    return rule


# -- the rules by opcode


def _prefixed(stacks: Operands, pos: int, offset: int) -> int:
    """Validate an instruction behind the prefix 0xFC."""
    number, pos = stacks.u32(pos)
    opcode = 0x100 + number
    if opcode >= op.COUNT:
        raise MalformedModule(f"illegal opcode fc {number:02x}", offset)
    signature = op.SIGNATURES[opcode]
    if signature is None:
        return RULES[opcode](stacks, pos, offset)
    params, _, results = signature
    stacks.emit((opcode, None, len(stacks.vals), offset))
    stacks.pop(params, offset)
    stacks.vals += results
    return pos


def _illegal(stacks: Operands, pos: int, offset: int) -> int:
    opcode = stacks.code[offset]
    why = " (SIMD is not supported)" if opcode == 0xFD else ""
    raise MalformedModule(f"illegal opcode {opcode:02x}{why}", offset)


RULES: list[Rule] = [_illegal] * op.COUNT
for _opcode, _rule in (
    *CONTROL_RULES.items(),
    (op.DROP, _drop),
    (op.SELECT, _select),
    (op.SELECT_T, _select_t),
    (op.GLOBAL_GET, _global_get),
    (op.GLOBAL_SET, _global_set),
    (op.I64_CONST, _i64_const),
    (op.F32_CONST, _float_const),
    (op.F64_CONST, _float_const),
    (op.REF_NULL, _ref_null),
    (op.REF_IS_NULL, _ref_is_null),
    (op.REF_FUNC, _ref_func),
    (op.PREFIX, _prefixed),
    *((row[0], _bulk_rule(*row)) for row in _BULK),
):
    RULES[_opcode] = _rule
