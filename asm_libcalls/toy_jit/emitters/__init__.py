"""What the compiler emits for each instruction: one small function for each kind of them.

``HANDLERS[opcode](compiler, opcode, immediate, height)``; the immediates are those of
:mod:`asm_libcalls.toy_jit.validator`. The rules of the operand states are those of
:mod:`asm_libcalls.toy_jit.places`.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.emitters import control, memory, numbers, tables, variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["make_handlers"]

_NOT_EMITTED = ("nop", "select_t")  # the validator leaves the one out, and renames the other


def make_handlers(inline: bool) -> list[Handler]:
    """Return the emitters by opcode.

    Parameters
    ----------
    inline : bool
        Whether 64-bit shifts are emitted as the CPU's own instruction instead of a libcall.
    """
    handlers: list[Handler] = [_unknown] * op.COUNT
    others: dict[str, Handler] = {}
    for room in (control, memory, numbers, tables, variables):
        others |= room.HANDLERS
    for opcode, name in enumerate(op.NAMES):
        if name is not None and name not in _NOT_EMITTED:
            handlers[opcode] = others.get(name) or numbers.handler_for(name, inline)
    return handlers


def _unknown(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    raise AssertionError(f"opcode {opcode:#x} was validated, but nobody emits it")
