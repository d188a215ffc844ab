"""A validated function: a flat list of its instructions, for the compiler.

`Body.instructions` has tuples ``(opcode, immediate, offset)`` in the order of the code:

opcode
    As in :mod:`.opcodes`: 0xFC 0x0A is 0x10A, 0xFD 0x0C is 0x20C. `select t` becomes SELECT.
immediate
    See below.
offset
    The opcode's, in bytes from the first instruction's, `Body.start`.

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
An ELSE that control reaches is such a branch too, to the end. A frame's `targeted`, `has_else`,
`reaches_else` and `reaches_end` are final when the list is complete.

The result is a list, instead of a call of the compiler for each instruction, for three reasons: the
compiler can look ahead; it knows the size of its frame and the targets of branches before it emits
the first byte; and it never gets an instruction of an invalid function.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend.module import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.frontend.local_uses import LocalUses

    # (opcode, immediate, offset); see the module's docstring
    Instruction = tuple[int, Any, int]


class Body(Record):
    """A validated function."""

    instructions: list[Instruction]  # as the module's docstring describes
    start: int  # the offset of the first instruction in the module
    local_types: bytes  # the value types of the parameters and then of the other locals
    max_height: int  # the largest number of operands on the stack
    vectors: bool  # whether a local or operand may be a v128
    uses: LocalUses  # of its locals
