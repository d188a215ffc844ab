"""Shapes of functions: the properties that determine a function's code, and its stencils.

No Python object is read or made here: ``function_objects.py`` makes functions from the code.
"""

from __future__ import annotations

import ctypes
import sys
from collections import namedtuple

from asm_libcalls.calling_convention import STACK, assign
from asm_libcalls.activation import argument_offset
from asm_libcalls.signatures import MEMORY_POINTERS, VALUE_TYPES, Signature
from asm_libcalls.signatures.held_buffers import HeldBuffer
from asm_libcalls.signatures.value_types import CONST_POINTER
from asm_libcalls.vmcontext import VMElementSegment
from asm_libcalls.x86_64.python_functions import EVERYTHING, function_stencils
from asm_libcalls.x86_64.stencils.parts import Part, Stencil
from asm_libcalls.x86_64.trampolines import ENTER_HOLDING_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.signatures import ValueType
    from asm_libcalls.x86_64.python_functions.object_layouts import ObjectLayout

__all__ = ["CLASS", "Shape", "parts_of"]

CLASS = "class "
"""Prefix of the name of a slot that holds the address of a class."""


_Fields = namedtuple("_Fields", "parameters result enter guard inline vmctx_of references")


class Shape(_Fields):
    """The properties that determine a function's code; functions of one shape share the code.

    Parameters
    ----------
    signature : Signature
    enter : str
        The routine that makes the call (``asm_libcalls_enter`` or its variant that holds the GIL),
        or "" for a bare call of a leaf routine.
    guard : str
        A stencil of ``function_stencils.py`` that keeps a bare call from trapping, or "", or
        :data:`EVERYTHING`.
    inline : str
        The code in place of a bare call: a stencil, or a routine of the image to be copied, which
        is straight-line code up to its one ``ret`` and needs no frame and no aligned stack. The
        address is not used then.
    vmctx_of : (class, str), optional
        The class whose exact instances are accepted for the first parameter, and its member that
        holds the vmctx; all other objects go to the slow path.
    references : tuple of (class, str), optional
        The classes whose exact instances are accepted, beside None, for the other pointers, of
        externrefs and of funcrefs, with their members that hold the address.
    """

    __slots__ = ()

    def __new__(
        cls,
        signature: Signature,
        enter: str = "",
        guard: str = "",
        inline: str = "",
        vmctx_of: tuple[type, str] | None = None,
        references: tuple[tuple[type, str], ...] = (),
    ) -> Shape:
        """Normalise: a wide integer's signedness does not matter, nor where a reference points."""
        parameters = tuple(map(_kind, signature.parameters))
        result = signature.result
        read = "none" if result is None else result.name
        if result is not None and (result.kind == "pointer" or read == "usize"):
            read = "u64"
        return super().__new__(cls, parameters, read, enter, guard, inline, vmctx_of, references)

    def takes_references(self) -> bool:
        """Return whether a parameter beside the vmctx is a reference."""
        return bool(self.references) and "vmctx" in self.parameters[1:]

    def leaving_all(self) -> Shape:
        """Return the shape that passes every call of this one to the slow path."""
        return self._replace(enter="", guard=EVERYTHING, inline="", vmctx_of=None, references=())

    def title(self) -> str:
        """Return the name of the code for debuggers and profilers."""
        signature = f"({', '.join(self.parameters)}) -> {self.result}"
        return f"builtin {self.inline or signature}"


def _kind(value_type: ValueType) -> str:
    if value_type.is_runtime:
        return "vmctx"
    if value_type.kind == "pointer":
        return value_type.name
    if value_type.bits < 32:
        return value_type.name
    return f"{value_type.kind[0]}{value_type.bits}"


def _of_reference(references: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    (externref, its_member), (funcref, other_member) = references
    return {
        "slots": {
            "externref_class": f"{CLASS}{externref}",
            "funcref_class": f"{CLASS}{funcref}",
            "unbox": "unbox_64",
        },
        "externref_member": its_member,
        "funcref_member": other_member,
        "externref_kind": VMElementSegment.EXTERNREF,
        "funcref_kind": VMElementSegment.FUNCREF,
    }


def _unboxing(kind: str) -> str:
    """Return the slot of the routine that reads an int for a parameter of a kind."""
    if kind[0] == "f":
        return "unbox_53"
    return {"i32": "unbox_32", "i64": "unbox_64", "vmctx": "unbox_pointer"}.get(
        kind, "unbox_pointer" if kind in MEMORY_POINTERS else f"unbox_{kind}"
    )


def parts_of(
    pieces: dict[str, Stencil],
    shape: Shape,
    layout: ObjectLayout,
    body: Stencil | None = None,
    vmctx: tuple[int, int] | None = None,
    references: tuple[tuple[int, int], ...] = (),
    has_gil: bool = True,
) -> list[Part]:
    """Return the stencils of a shape, in order; ``function_stencils.py`` describes them.

    `body` is the routine that is copied in place of a bare call, if any. `vmctx` is the address of
    the class of the first argument, and the offset of its member; `references` are those of
    externrefs and of funcrefs. Without the GIL, code on a vmctx enters the store of its instance.
    """
    parameters, result, enter, guard, inline, *_ = shape
    if inline in pieces:
        body = pieces[inline]
    count = len(parameters)
    if guard == EVERYTHING:
        names = {0: ("slow_vector", "call_slow"), 1: ("take", "call_slow_one")}
        numbers = {**layout.holes(), "count": 0}
        return [Part(pieces[name], numbers) for name in names.get(count, ("call_slow",))]
    assignment = assign(VALUE_TYPES[kind] for kind in parameters)
    numbers = {
        **layout.holes(),
        "count": count,
        "frame": function_stencils.entered_frame_size(assignment.stack),
        "stack_count": assignment.stack,
    }

    def part(stencil: str, role: str = "", /, slots: Any = None, **more: int) -> Part:
        return Part(pieces[stencil], {**numbers, **more}, slots, role)

    # Without integer arguments nothing overwrites self in rdi, and copied code calls nothing.
    framed = body is None or any(kind[0] != "f" for kind in parameters)
    locks = bool(vmctx and not has_gil)
    parts = [part("check_count")] if count > 1 else []
    if enter:
        parts.append(part("enter_entered"))
    elif framed:
        parts.append(part("enter_bare"))
    if count:
        parts.append(part("take"))
    for i, (kind, place) in enumerate(zip(parameters, assignment.places, strict=True)):
        parts.append(part("object_vector", argument=8 * i) if count > 1 else part("object_one"))
        if i == 0 and vmctx:
            slots = {"vmctx_class": f"{CLASS}{vmctx[0]}", "unbox": "unbox_64"}
            parts.append(part("vmctx", slots=slots, vmctx_member=vmctx[1]))
            continue
        if references and kind == "vmctx":
            parts.append(part(f"reference_{place.number}", **_of_reference(references)))
            continue
        slots = {"unbox": _unboxing(kind)}
        stencil = f"float{kind[1:]}" if kind[0] == "f" else "integer"
        if not enter:
            parts.append(part(f"{stencil}_{place.number}", slots=slots))
        elif place.bank == STACK:
            offset = function_stencils.STACK_ARGUMENTS + 8 * place.number
            parts.append(part(f"push_{stencil}", slots=slots, offset=offset))
        else:
            parts.append(part(f"spill_{stencil}", slots=slots, offset=argument_offset(place)))
    if guard:
        parts.append(part(guard))
    if enter:
        parts += [part("call_entered", slots={"enter": enter}), part("leave_entered")]
    else:
        call = Part(body) if body else part("call_bare")
        if locks:
            call.slots = {"slow": "slow_inside"}
            parts += [part("enter_store"), call, part("leave_store")]
        else:
            parts.append(call)
        if framed:
            parts.append(part("leave_bare"))
    if result == "none":
        result = "none_immortal" if sys.version_info >= (3, 12) else "none_counted"
    parts.append(part(f"box_{result}"))
    if enter:
        parts += [part("raise", "raise"), part("fail", "fail")]
    if count:
        slow = [part("slow_entered")] if enter else [part("slow_bare")] if framed else []
        if not (guard or inline or references):
            slow += _holding_parts(pieces, shape, numbers, part(f"box_{result}"))
        slow += (
            [part("slow_vector"), part("call_slow", "call_slow")]
            if count > 1
            else [part("call_slow_one")]
        )
        slow[0].role = slow[0].role or "slow"
        if locks:
            slow = [part("slow_inside", "slow_inside"), part("store_busy", "store_busy"), *slow]
        parts += slow
    return parts


_MOST_HELD = 16
"""The most buffers that machine code holds: more would need a large frame."""


def _holding_parts(
    pieces: dict[str, Stencil], shape: Shape, numbers: dict[str, int], box: Part
) -> list[Part]:
    """Return the stencils that call again with buffers held, after the others refused a pointer.

    They begin where the slow path does, and continue there if they refuse an argument too.
    """
    parameters = shape.parameters
    memories = [i for i, kind in enumerate(parameters) if kind in MEMORY_POINTERS]
    if not 0 < len(memories) <= _MOST_HELD:
        return []
    assignment = assign(VALUE_TYPES[kind] for kind in parameters)
    first = function_stencils.STACK_ARGUMENTS + 8 * assignment.stack
    size = ctypes.sizeof(HeldBuffer)
    buffers = {i: first + size * number for number, i in enumerate(memories)}
    frame = -(-(first + size * len(memories)) // 16) * 16 + 8  # two registers are pushed
    jumps = {"slow": "slow_held", "raise": "raise_held", "fail": "fail_held"}

    def part(stencil: str, role: str = "", /, slots: Any = None, **more: int) -> Part:
        renamed = {**jumps, **(slots or {})}
        return Part(pieces[stencil], {**numbers, "frame": frame, **more}, renamed, role)

    def for_each(stencil: str) -> list[Part]:
        return [
            part(stencil, buffer=at, exporter=at + HeldBuffer.object.offset)
            for at in buffers.values()
        ]

    source = "vector" if len(parameters) > 1 else "one"
    parts = [part("enter_holding"), *for_each("hold_nothing")]
    for i, (kind, place) in enumerate(zip(parameters, assignment.places, strict=True)):
        if place.bank == STACK:
            offset = function_stencils.STACK_ARGUMENTS + 8 * place.number
        else:
            offset = argument_offset(place)
        at = {"argument": 8 * i, "offset": offset}
        parts.append(part(f"object_{source}_held", **at))
        slots = {"unbox": _unboxing(kind)}
        if i in buffers:
            access = "readable" if kind == CONST_POINTER else "writable"
            parts.append(part(f"hold_{access}_{source}", slots=slots, buffer=buffers[i], **at))
        else:
            stencil = f"float{kind[1:]}" if kind[0] == "f" else "integer"
            where = "push" if place.bank == STACK else "spill"
            parts.append(part(f"{where}_{stencil}", slots=slots, **at))
    return [
        *parts,
        part("call_entered", slots={"enter": shape.enter or ENTER_HOLDING_GIL}),
        *for_each("release"),
        part("leave_holding"),
        box,
        part("raise", "raise_held"),
        part("keep_error", "fail_held"),
        *for_each("release"),
        part("fail_holding"),
        part("clear_error", "slow_held"),
        *for_each("release"),
        part("slow_holding"),
    ]
