"""Assembler's text to PeachPy: the language that the stencils of this package are written in.

As in Intel's manuals, with a ``;`` or a line's end behind each instruction, and these words:

=============== ===================================================================================
``slot``        any other word is a hole: a 32-bit number, to be filled in
``wide``        the two holes of a 64-bit number: ``source`` and ``source_high``
``.done``       a label of the stencil; ``.done:`` says where it is
``>target``     a place outside the stencil: behind ``call``, ``jmp``, ``lea`` and ``jCONDITION``
``load_memory`` in place of an instruction: PeachPy of :mod:`asm_libcalls.toy_jit.stencils.entry`,
                as ``change_instance``
=============== ===================================================================================
"""

from __future__ import annotations

import re
from functools import reduce
from operator import add

import peachpy.x86_64 as x
from peachpy.x86_64 import registers

from asm_libcalls.toy_jit.stencils import entry
from asm_libcalls.x86_64.instructions import CALL_ROUTINE, JUMP_IF, LOAD_ADDRESS, TAIL_JUMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["body"]

_PIECES = {"load_memory": entry.load_memory, "change_instance": entry.change_instance}
_OUTSIDE = {"call": CALL_ROUTINE, "jmp": TAIL_JUMP, "lea": LOAD_ADDRESS}
_NUMBER = re.compile(r"-?\d+$")


def body(text: str) -> Body:
    """Return what emits the instructions of a stencil."""

    def emit(hole: Hole) -> None:
        labels: dict[str, Any] = {}
        for line in re.split(r"[;\n]", text):
            mnemonic, _, rest = line.strip().partition(" ")
            operands = [_operand(word.strip(), hole, labels) for word in rest.split(",") if rest]
            if mnemonic.endswith(":"):
                x.LABEL(_label(mnemonic[:-1], labels))
            elif mnemonic in _PIECES:
                _PIECES[mnemonic]()
            elif ">" in rest and mnemonic in _OUTSIDE:
                _OUTSIDE[mnemonic](*operands)
            elif ">" in rest:
                JUMP_IF(mnemonic[1:], *operands)
            elif mnemonic:
                getattr(x, mnemonic.upper())(*operands)

    return emit


def _label(name: str, labels: dict[str, Any]) -> Any:
    return labels.setdefault(name, x.Label(name[1:]))


def _operand(word: str, hole: Hole, labels: dict[str, Any]) -> Any:
    if word.startswith(">"):
        return word[1:]
    if word.startswith("."):
        return _label(word, labels)
    size, bracket, address = word.rstrip("]").partition("[")
    if not bracket:
        return _term(word, hole)
    terms = re.sub(r" - (\d)", r" + -\1", address).split(" + ")
    total = reduce(add, (_term(term, hole) for term in terms))
    return getattr(x, size)[total] if size else [total]


def _term(word: str, hole: Hole) -> Any:
    name, _, scale = word.partition(" * ")
    if scale:
        return getattr(registers, name) * int(scale)
    if _NUMBER.match(word):
        return int(word)
    if word == "wide":
        return hole("source") | hole("source_high") << 32
    return getattr(registers, word, None) or hole(word)
