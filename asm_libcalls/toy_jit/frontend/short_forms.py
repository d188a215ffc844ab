"""The frequent instructions, by kind, which the validator handles without their rules.

Nine of ten instructions are one of these. All others, and these where they are invalid or their
immediates are long, go through their rules in
:mod:`~asm_libcalls.toy_jit.frontend.instruction_rules`.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.local_uses import CALLS, LOCALS

NO_BYTES = (0x100, 0x100, 0x100)
"""What follows the last byte of a function: no opcode, and no immediate of a short form."""

(
    OTHER, SHORT_LOCAL, SHORT_CONST, SHORT_ACCESS, SHORT_NUMERIC, SHORT_BRANCH, SHORT_END,
    SHORT_BLOCK, SHORT_CALL, SHORT_GLOBAL, SHORT_DROP, SHORT_SELECT, SHORT_LIBCALL, SHORT_LEAVE,
    SHORT_VECTOR,
) = range(15)  # fmt: skip
"""The kinds."""

_BY_OPCODE = {
    op.CALL: SHORT_CALL, op.END: SHORT_END, op.DROP: SHORT_DROP, op.SELECT: SHORT_SELECT,
    op.VECTOR_PREFIX: SHORT_VECTOR,
    **dict.fromkeys(LOCALS, SHORT_LOCAL),
    **dict.fromkeys((op.I32_CONST, op.I64_CONST), SHORT_CONST),
    **dict.fromkeys((op.UNREACHABLE, op.RETURN), SHORT_LEAVE),
    **dict.fromkeys((op.BR, op.BR_IF), SHORT_BRANCH),
    **dict.fromkeys((op.GLOBAL_GET, op.GLOBAL_SET), SHORT_GLOBAL),
    **dict.fromkeys((op.BLOCK, op.LOOP, op.IF), SHORT_BLOCK),
}  # fmt: skip


def _kind(opcode: int) -> int:
    if op.SIGNATURES[opcode] is not None:
        if opcode in CALLS:
            return SHORT_LIBCALL
        return SHORT_ACCESS if opcode in op.ALIGNMENTS else SHORT_NUMERIC
    return _BY_OPCODE.get(opcode, OTHER)


KINDS = [*map(_kind, range(0x100)), OTHER]
"""By first byte, or the first of NO_BYTES: the kind."""

KINDS_WITHOUT_MEMORY = [OTHER if kind == SHORT_ACCESS else kind for kind in KINDS]
"""KINDS for a module that has no memory."""

NO_KINDS = [OTHER] * len(KINDS)
"""For code where each instruction goes through its rule."""

VECTORS = frozenset(
    opcode
    for opcode, signature in enumerate(op.SIGNATURES)
    if opcode >= op.VECTORS and signature and opcode not in op.ALIGNMENTS and opcode not in CALLS
)
"""The opcodes of SHORT_VECTOR."""
