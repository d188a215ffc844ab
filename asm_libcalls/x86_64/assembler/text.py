"""Translates assembly text, in which stencils are written, to PeachPy instructions.

The syntax is Intel's, with a ``;`` or a line's end after each instruction, and these words:

=============== ===================================================================================
``source``      any other word is a hole: a 32-bit number, to be filled in
``wide``        the two holes of a 64-bit number: ``source`` and ``source_high``
``.done``       a label of the stencil; ``.done:`` defines it
``>target``     a place outside the stencil: after ``call``, ``jmp``, ``lea`` and ``jCONDITION``
``$name``       a slot of the image: after ``call``, ``jmp`` and ``mov REGISTER``
``lock``        the prefix, as an instruction before the one that it makes atomic
``load_thread`` loads the thread pointer (fs:0) to a register
``load_memory`` in place of an instruction: a piece that the caller gives as PeachPy code
=============== ===================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any

import peachpy.x86_64 as x
from peachpy.x86_64 import registers

from asm_libcalls.x86_64.assembler.instructions import (
    CALL_ROUTINE, CALL_SLOT, JUMP_IF, LOAD_ADDRESS, LOAD_SLOT, LOAD_THREAD_POINTER, LOCK, TAIL_JUMP,
    TAIL_JUMP_SLOT,
)  # fmt: skip

Hole = Callable[[str], int]

_OUTSIDE = {"call": CALL_ROUTINE, "jmp": TAIL_JUMP, "lea": LOAD_ADDRESS}
_SLOTS = {"call": CALL_SLOT, "jmp": TAIL_JUMP_SLOT, "mov": LOAD_SLOT}
_OTHERS = {"lock": LOCK, "load_thread": LOAD_THREAD_POINTER}
_NUMBER = re.compile(r"-?\d+$")


def body(
    text: str, pieces: Mapping[str, Callable[[], object]] | None = None
) -> Callable[[Hole], object]:
    """Return a function that emits the instructions of a stencil, for ``stencils.assemble``."""
    its_pieces = pieces or {}

    def emit(hole: Hole) -> None:
        labels: dict[str, Any] = {}
        for line in re.split(r"[;\n]", text):
            mnemonic, _, rest = line.strip().partition(" ")
            operands = [_operand(word.strip(), hole, labels) for word in rest.split(",") if rest]
            if mnemonic.endswith(":"):
                x.LABEL(_label(mnemonic[:-1], labels))
            elif mnemonic in its_pieces:
                its_pieces[mnemonic]()
            elif "$" in rest:
                _SLOTS[mnemonic](*operands)
            elif ">" in rest and mnemonic in _OUTSIDE:
                _OUTSIDE[mnemonic](*operands)
            elif ">" in rest:
                JUMP_IF(mnemonic[1:], *operands)
            elif mnemonic:
                (_OTHERS.get(mnemonic) or getattr(x, mnemonic.upper()))(*operands)

    return emit


def _label(name: str, labels: dict[str, Any]) -> Any:
    return labels.setdefault(name, x.Label(name[1:]))


def _operand(word: str, hole: Hole, labels: dict[str, Any]) -> Any:
    if word.startswith((">", "$")):
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
