"""Decode and validate function bodies, in one pass, into lists of instructions for the compiler.

:func:`validate_function` is the only reader of instructions. It follows the algorithm of the spec
(2.0, appendix A.3) and returns a :class:`Body`, whose `instructions` is a flat list of tuples
``(opcode, immediate, height, offset)`` in the order of the code:

opcode
    As in :mod:`.opcodes`: 0xFC 0x0A is 0x10A, 0xFD 0x0C is 0x20C. `select t` becomes SELECT.
immediate
    See below.
height
    The number of operands on the stack before the instruction. At an `else` or `end`, -1 means
    that control does not fall through to it.
offset
    The opcode's, in bytes from the beginning of the module.

The list has **no dead instructions**: none from an unconditional branch to the `else` or `end` of a
block that control can reach, and none behind a block that control never leaves.
`nop` is left out too. Every BLOCK, LOOP and IF in the list has its END; the last tuple is the END
of the function.

============================================== ====================================================
opcode                                         immediate
============================================== ====================================================
those with a fixed type; UNREACHABLE           None
loads and stores                               offset
those of one lane of a vector                  (offset, lane)
extract_lane, replace_lane                     lane
i8x16.shuffle                                  the lanes, as bytes
I32_CONST, I64_CONST                           value, signed
F32_CONST, F64_CONST, V128_CONST               bit pattern
LOCAL_GET, LOCAL_SET, LOCAL_TEE                index, into `Body.local_types`
BLOCK, LOOP, IF, ELSE, END                     their :class:`~.operands.Frame`
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

*references* are the operand slots that hold an externref before the instruction, its own operands
included: an ascending tuple of ints. Each safepoint has them: an instruction that may call a host
function or a libcall that can collect garbage. A loop, which is a safepoint because it may be
interrupted, has them in its Frame. (`Body.local_types` tells which locals are references. A funcref
is not reference counted, so it is not among them.)

A branch to a frame moves ``len(frame.label)`` operands from the top of the stack (below the operand
of `br_if` and `br_table`) down to `frame.height`. At an `end`, the results are already there.
An ELSE whose height is not -1 is such a branch too, to the end. A frame's `targeted` and `has_else`
are final when the list is complete.

The result is a list, instead of a call of the compiler for each instruction, for three reasons: the
compiler can look ahead; it knows the size of its frame and the targets of branches before it emits
the first byte; and it never gets an instruction of an invalid function.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import LimitExceeded, MalformedModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.budget import Budget
from asm_libcalls.toy_jit.frontend.instructions import READERS, RULES
from asm_libcalls.toy_jit.frontend.module import V128, FuncType
from asm_libcalls.toy_jit.frontend.operands import FUNCTION, Operands
from asm_libcalls.toy_jit.frontend.reader import Reader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import Module

    # (opcode, immediate, height, offset); see the module's docstring
    Instruction = tuple[int, Any, int, int]

__all__ = ["Body", "validate_function"]

MAX_SLOTS = 50_000  # locals (parameters included), and operands, of a function


class Body:
    """A validated function.

    Attributes
    ----------
    instructions : list of tuple
        As the module's docstring describes.
    local_types : bytes
        The value types of the parameters and then of the other locals.
    max_height : int
        The largest number of operands on the stack.
    vectors : bool
        Whether a local or operand may be a v128.
    """

    __slots__ = ("instructions", "local_types", "max_height", "vectors")

    def __init__(
        self, instructions: list[Instruction], local_types: bytes, max_height: int, vectors: bool
    ) -> None:
        self.instructions = instructions
        self.local_types = local_types
        self.max_height = max_height
        self.vectors = vectors


def validate_function(module: Module, index: int, budget: Budget | None = None) -> Body:
    """Decode and validate a function of `module`.

    Parameters
    ----------
    module : Module
        From :func:`~asm_libcalls.toy_jit.frontend.decoder.decode_module`.
    index : int
        The function's index; not that of an import.
    budget : Budget, optional
        The limits on compiling the module.

    Returns
    -------
    Body

    Raises
    ------
    InvalidModule
        The function is malformed, invalid, or beyond a limit.
    """
    function = module.functions[index]
    reader = Reader(module.binary, function.start, function.end)
    budget = budget or Budget(len(module.binary))
    local_types = function.type.params + _locals(reader, len(function.type.params), budget)
    stacks = Operands(module, reader, local_types, budget)
    stacks.enter(FUNCTION, FuncType(b"", function.type.results))
    body = _validate(stacks)
    if reader.pos != function.end:
        raise MalformedModule("section size mismatch", reader.pos)
    return body


def _locals(reader: Reader, count: int, budget: Budget) -> bytes:
    """Read the declarations of locals; `count` parameters precede them."""
    start = reader.pos
    groups = [(reader.u32(), reader.value_type()) for _ in range(reader.length())]
    declared = sum(repeat for repeat, _ in groups)
    if declared >= 1 << 32:
        raise MalformedModule("too many locals", start)
    if count + declared > MAX_SLOTS:
        raise LimitExceeded(f"more than {MAX_SLOTS} locals", start)
    budget.use("max_locals", count + declared, start)
    return b"".join(bytes([valtype]) * repeat for repeat, valtype in groups)


def _validate(stacks: Operands) -> Body:
    """Validate instructions up to the END of the function."""
    reader, vals, ctrls = stacks.reader, stacks.vals, stacks.ctrls
    instructions: list[Instruction] = []
    max_height = 0
    # Without an instruction on vectors, a v128 may still come from a global or a function.
    vectors = V128 in stacks.local_types or stacks.module.has_vectors
    while ctrls:
        stacks.offset = offset = reader.pos
        if offset == reader.end:
            raise MalformedModule(
                "END opcode expected, not the unexpected end of the function", offset
            )
        opcode = reader.byte()
        if opcode == op.PREFIX:
            opcode = op.prefixed(opcode, reader.u32(), offset)
        elif opcode == op.VECTOR_PREFIX:
            opcode = op.prefixed(opcode, reader.u32(), offset)
            vectors = True
        elif op.NAMES[opcode] is None:
            raise op.illegal(opcode, offset)
        stacks.opcode = opcode
        live, height = stacks.live, len(vals)
        if height > max_height:
            max_height = height
            if height > MAX_SLOTS:
                raise LimitExceeded(f"more than {MAX_SLOTS} operands", offset)

        immediates = [read(stacks) for read in READERS[opcode]]
        immediate: Any = immediates[0] if immediates else None
        rule = RULES[opcode]
        if rule is not None:
            immediate = rule(stacks, *immediates)
        else:
            params, results = op.TYPES[opcode]
            stacks.pop(params)
            vals += results

        if opcode in (op.ELSE, op.END):  # in the list if their block is live
            live, height = immediate.live, height if live else -1
        elif opcode == op.SELECT_T:
            opcode = op.SELECT
        if live and opcode != op.NOP:
            instructions.append((opcode, immediate, height, offset))
    return Body(instructions, stacks.local_types, max_height, vectors)
