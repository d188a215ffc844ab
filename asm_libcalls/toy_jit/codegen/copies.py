"""Copies: stencils whose holes are filled in, and whose registers are chosen, as bytes.

A copy depends on nothing but its key. A module needs the same few thousand again and again, so they
are kept.
"""

from __future__ import annotations

import struct

from asm_libcalls.toy_jit.codegen.registers import KINDS
from asm_libcalls.toy_jit.codegen.templates import FORMS, TEMPLATES, make_form

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Place = tuple[Any, ...]
    Jumps = tuple[tuple[int, str], ...]

HOLE = struct.Struct("<i")
"""The format of values in holes, and of distances."""

fill_in = HOLE.pack_into  # kept, since CPython looks up a method of an imported name slowly
"""Write a value or distance into code: ``fill_in(code, offset, value)``."""

_MOST_KEPT = 1 << 14
_MOST_OF_ONE = 1 << 12

_REGISTER_MOVES = {"i": "move.i.i", "f": "move.f.f"}


class Copies:
    """The copies that were made: ``copies.kept.get(key) or copies.add(key)``.

    (CPython looks up items of a subclass of dict more slowly.)
    """

    def __init__(self, make: Callable[[Any], Any], most: int = _MOST_KEPT) -> None:
        self.kept: dict[Any, Any] = {}
        self._make = make
        self._most = most

    def add(self, key: Any) -> Any:
        """Make and keep a copy, and return it."""
        kept = self.kept
        if len(kept) >= self._most:
            kept.clear()
        copy = kept[key] = self._make(key)
        return copy


def _constant(value: int) -> Place:
    return ("const", value) if value >= 0 else ("wide", value, 0)


def _copy(key: tuple[str, tuple[int, ...]]) -> tuple[bytes, Jumps]:
    name, values = key
    bytes_, holes, jumps = TEMPLATES[name]
    code = bytearray(bytes_)
    for at, which in holes:
        fill_in(code, at, values[which])
    return bytes(code), jumps


def _form(key: tuple[str, str, str, str, str, int, int]) -> bytes:
    name, to, left, right, index, offset, value = key
    size = 4 if not -128 <= offset <= 127 else 1 if offset else 0
    form_key = (name, to, left, right, index, size, -128 <= value <= 127)
    form = FORMS.get(form_key) or make_form(form_key)
    bytes_, offset_at, format_of_offset, value_at, format_of_value = form
    code = bytearray(bytes_)
    if offset_at:
        format_of_offset.pack_into(code, offset_at, offset)
    if value_at:
        format_of_value.pack_into(code, value_at, value)
    return bytes(code)


def _instruction(name: str, to: str = "", right: str = "", offset: int = 0, value: int = 0) -> Any:
    return _form((name, to, "", right, "", offset, value))


def _move(key: tuple[Place, Place]) -> bytes | bool:
    target, source = key
    if target == source:
        return b""
    to, at = target[0], source[0]
    kind, source_kind = KINDS[to], KINDS[at]
    if kind == "f" and source_kind == "const" and source != ("const", 0):
        return False
    code: bytes
    if source_kind == "const":
        code = _move_constant(target, source)
    elif kind in "if":
        if source_kind in "if":
            code = _instruction(_REGISTER_MOVES[kind], to, at)
        else:
            code = _instruction(f"move.{kind}.{at}", to, offset=source[1])
    elif source_kind in "if":
        code = _instruction(f"move.{to}.{source_kind}", right=at, offset=target[1])
    else:
        code = _instruction(f"move.i.{at}", "rdx", offset=source[1])
        code += _instruction(f"move.{to}.i", right="rdx", offset=target[1])
    return code


def _move_constant(target: Place, source: Place) -> Any:
    to, low = target[0], source[1]
    kind = KINDS[to]
    if kind == "i":
        if source[0] == "wide" and source[2]:
            return _instruction("move.i.wide", to, value=low & 0xFFFFFFFF | source[2] << 32)
        if source[0] == "wide" or low >= 0:
            return _instruction("move.i.short", to, value=low)  # the shortest
        return _instruction("move.i.const", to, value=low)
    if kind == "f":
        return _instruction("move.f.zero", to)
    if source[0] == "const":
        return _instruction(f"move.{to}.const", offset=target[1], value=low)
    stored = _instruction(f"move.{to}.i", right="rdx", offset=target[1])
    return _move_constant(("rdx",), source) + stored


CONSTANTS = Copies(_constant)
"""By the value of an i32: its place, zero-extended as in a slot or a register."""

COPIES = Copies(_copy)
"""By name and values of the holes, in the order of their names: a stencil, and its jumps."""

INSTRUCTION_COPIES = Copies(_form)
"""By the arguments of :meth:`~.function_code.FunctionCode.form`: a stencil of one instruction."""

MOVES = Copies(_move)
"""By target and source, which are places: the code of a move. False for a constant that a register
of floats must load from behind the code."""


def _check(key: tuple[str, int]) -> tuple[bytes, int, str]:
    index, end = key
    if end == 1:
        compare, jump = _instruction("memory.compare", right=index), "memory.unless_below"
    else:
        compare, jump = _instruction("memory.end", right=index, offset=end), "memory.limit"
    bytes_, _, ((at, role),) = TEMPLATES[jump]
    return compare + bytes_, len(compare) + at, role


CHECKS = Copies(_check)
"""By the register of an index and a number: the check that memory has so many bytes from there, the
offset of its jump's distance, and the role of the jump."""

_ROLES = ("to", "left", "right", "index", "offset", "value")


def copies_of(name: str, *roles: str) -> Copies:
    """Return the copies of one stencil, as INSTRUCTION_COPIES has them.

    Their keys are the arguments of these roles, or that argument if there is one role.
    """
    at = [1 + _ROLES.index(role) for role in roles]

    def make(key: Any) -> bytes:
        whole: list[Any] = [name, "", "", "", "", 0, 0]
        for i, argument in zip(at, key if len(at) > 1 else (key,), strict=True):
            whole[i] = argument
        return _form(tuple(whole))

    return Copies(make, _MOST_OF_ONE)
