"""Function bodies: decoded and validated in one pass, into a list that a compiler can eat.

:func:`validate_function` is the only reader of instructions. It follows the algorithm of the spec
(2.0, appendix A.3) and leaves a :class:`Body`, whose `instructions` is a flat list of tuples
``(opcode, immediate, height, offset)`` in the order of the code:

opcode
    As in :mod:`~asm_libcalls.toy_jit.opcodes`: 0xFC 0x0A is 0x10A. `select t` comes as SELECT.
immediate
    See below.
height
    The operands on the stack before the instruction, in slots from the bottom of the function. At
    an `else` or `end`, -1 says that the code before it does not run into it.
offset
    Of the opcode, in bytes from the beginning of the module.

There are **no dead instructions** in the list: nothing behind an unconditional branch up to the
`else` or `end` of a block that control can come to, and nothing behind a block that nothing leaves.
`nop` is left out too. Every BLOCK, LOOP and IF in the list has its END; the last tuple is the END
of the function.

============================================== ====================================================
opcode                                         immediate
============================================== ====================================================
those with a fixed type; UNREACHABLE           None
loads and stores                               offset
I32_CONST, I64_CONST                           value, signed
F32_CONST, F64_CONST                           bit pattern
LOCAL_GET, LOCAL_SET, LOCAL_TEE                index, into `Body.local_types`
BLOCK, LOOP, IF, ELSE, END                     their :class:`~asm_libcalls.toy_jit.operands.Frame`
BR, BR_IF, RETURN                              their Frame; that of RETURN is the last END's too
BR_TABLE                                       tuple of Frames, the default last
DROP, SELECT, REF_IS_NULL, REF_NULL            type of the operand (both operands of SELECT)
REF_FUNC                                       function index
CALL                                           (function index, FuncType, references)
CALL_INDIRECT                                  (type index, table index, FuncType, references)
GLOBAL_GET, GLOBAL_SET                         (global index, references)
TABLE_GET, TABLE_SET, TABLE_GROW               (table index, references)
TABLE_SIZE, TABLE_FILL                         (table index, references)
TABLE_COPY                                     (target index, source index, references)
TABLE_INIT                                     (element segment index, table index, references)
ELEM_DROP, DATA_DROP, MEMORY_INIT              (segment index, references)
MEMORY_SIZE, MEMORY_GROW                       (references,)
MEMORY_COPY, MEMORY_FILL                       (references,)
============================================== ====================================================

*references* are the slots of the operand stack, the instruction's own operands included, that hold
an externref before the instruction: a tuple of ints, ascending. They are there at each instruction
that may leave the compiled code for a host function or a libcall that can collect garbage; those
of a loop, where it may be interrupted, are in its Frame. (Locals that are references are to be seen
in `Body.local_types`. A funcref is not counted, so it is none of these.)

A branch to a frame moves ``len(frame.label)`` operands from the top of the stack (below what
`br_if` and `br_table` look at) down to `frame.height`; at an `end`, the results are already there.
An ELSE whose height is not -1 is such a jump too, to the end. A frame's `targeted` and `has_else`
are final when the list is read.

Why a list, and not a call of the compiler for each instruction? Measured on SQLite's 613 KB with a
compiler that only notes the height, calls took 160 ms and the list, with a loop over it, 205 ms:
150 ns an instruction, of the 13 us that compiling one may take. For that, the compiler can look
ahead, knows the size of its frame and which blocks are branched to before it emits the first byte,
and never sees an instruction of a function that turns out to be invalid.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import leb128
from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.decoder import decode_module
from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.instructions import RULES
from asm_libcalls.toy_jit.module import I32, FuncType
from asm_libcalls.toy_jit.operands import FUNCTION, Operands
from asm_libcalls.toy_jit.reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import Module
    from asm_libcalls.toy_jit.operands import Instruction

__all__ = ["Body", "validate_function", "validate_module"]

MAX_SLOTS = 50_000  # locals (parameters included), and operands, of a function


class Body:
    """A validated function.

    Attributes
    ----------
    instructions : list of tuple
        As the module's docstring says.
    local_types : bytes
        The value types of the parameters and then of the other locals.
    max_height : int
        The largest number of operands on the stack.
    """

    __slots__ = ("instructions", "local_types", "max_height")

    def __init__(
        self, instructions: list[Instruction], local_types: bytes, max_height: int
    ) -> None:
        self.instructions = instructions
        self.local_types = local_types
        self.max_height = max_height


def validate_module(binary: bytes | bytearray | memoryview) -> Module:
    """Decode and validate a module, all of it.

    Raises
    ------
    InvalidModule
        If it is malformed, invalid, or beyond a limit.
    """
    module = decode_module(binary)
    for index in range(module.imported_functions, len(module.functions)):
        validate_function(module, index)
    return module


def validate_function(module: Module, index: int) -> Body:
    """Decode and validate a function of `module`.

    Parameters
    ----------
    module : Module
        From :func:`~asm_libcalls.toy_jit.decoder.decode_module`.
    index : int
        Its index; not that of an import.

    Returns
    -------
    Body

    Raises
    ------
    InvalidModule
        If it is malformed, invalid, or beyond a limit.
    """
    function = module.functions[index]
    reader = Reader(module.binary, function.start, function.end)
    local_types = function.type.params + _locals(reader, len(function.type.params))
    stacks = Operands(module, function.end, local_types)
    stacks.enter(FUNCTION, FuncType(b"", function.type.results))
    # The pass does not look for the function's end at each step, but reads on in whatever follows.
    # That cannot become a valid function, because its END would be in the wrong place.
    try:
        pos, max_height = _validate(stacks, reader.pos)
    except IndexError:
        raise MalformedModule("unexpected end of section or function", function.end) from None
    except InvalidModule as error:
        if error.offset < function.end:
            raise
        raise MalformedModule("END opcode expected", function.end) from None
    if pos != function.end:
        what = "section size mismatch" if pos < function.end else "END opcode expected"
        raise MalformedModule(what, min(pos, function.end))
    return Body(stacks.instructions, local_types, max_height)


def _locals(reader: Reader, count: int) -> bytes:
    """Read the declarations of locals, which stand behind `count` parameters."""
    start = reader.pos
    groups = [(reader.u32(), reader.value_type()) for _ in range(reader.length())]
    declared = sum(repeat for repeat, _ in groups)
    if declared >= 1 << 32:
        raise MalformedModule("too many locals", start)
    if count + declared > MAX_SLOTS:
        raise LimitExceeded(f"more than {MAX_SLOTS} locals", start)
    return b"".join(bytes([valtype]) * repeat for repeat, valtype in groups)


def _validate(stacks: Operands, pos: int) -> tuple[int, int]:
    """Validate instructions from `pos` up to the END of the function: where it ends, max. height.

    Instructions that are most of all code are here in line, all others in RULES. An instruction
    whose type is fixed is taken at once if its operands are on the stack and are the block's own;
    if not, `stacks.pop` knows whether that is an error.
    """
    code, end, vals, ctrls = stacks.code, stacks.end, stacks.vals, stacks.ctrls
    ends_with, push = vals.endswith, vals.append
    local_types = stacks.local_types
    signatures, alignments, rules = op.SIGNATURES, op.ALIGNMENTS, RULES
    has_memory = bool(stacks.module.memories)
    base, emit = 0, stacks.emit  # of the innermost frame
    max_height = 0
    while True:
        offset = pos
        opcode = code[pos]
        pos += 1
        height = len(vals)
        if height > max_height:
            max_height = height
            if height > MAX_SLOTS:
                raise LimitExceeded(f"more than {MAX_SLOTS} operands", offset)

        if 0x20 <= opcode <= 0x22:  # local.get, local.set, local.tee
            index = code[pos]
            pos += 1
            if index >= 0x80:
                index, pos = leb128.unsigned(code, pos - 1, end)
            if index >= len(local_types):
                raise InvalidModule(f"unknown local {index}", offset)
            valtype = local_types[index]
            if opcode == 0x20:
                push(valtype)
            else:
                if height > base and vals[-1] == valtype:
                    del vals[-1]
                else:
                    stacks.pop(local_types[index : index + 1], offset)
                if opcode == 0x22:
                    push(valtype)
            emit((opcode, index, height, offset))

        elif (signature := signatures[opcode]) is not None:
            params, count, results = signature
            immediate = None
            if opcode <= 0x3E:  # a load or store
                align = code[pos]
                pos += 1
                if align > alignments[opcode]:
                    align, pos = leb128.unsigned(code, pos - 1, end)
                    if align > alignments[opcode]:
                        raise _alignment(align, offset)
                immediate = code[pos]
                pos += 1
                if immediate >= 0x80:
                    immediate, pos = leb128.unsigned(code, pos - 1, end)
                if not has_memory:
                    raise InvalidModule("unknown memory 0", offset)
            if height - count >= base and ends_with(params):
                del vals[-count:]
            else:
                stacks.pop(params, offset)
            vals += results
            emit((opcode, immediate, height, offset))

        elif opcode == 0x41:  # i32.const
            value = code[pos]
            pos += 1
            if value >= 0x80:
                value, pos = leb128.signed(code, pos - 1, end)
            elif value >= 0x40:
                value -= 0x80
            push(I32)
            emit((opcode, value, height, offset))

        else:
            pos = rules[opcode](stacks, pos, offset)
            if not ctrls:
                return pos, max_height
            base = ctrls[-1].height
            emit = stacks.emit


def _alignment(align: int, offset: int) -> InvalidModule:
    if align >= 32:
        return MalformedModule("malformed memop flags", offset)
    return InvalidModule("alignment must not be larger than natural", offset)
