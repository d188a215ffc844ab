"""Shapes of functions: the properties that determine a function's code, and its stencils.

No Python object is read or made here: ``function_objects.py`` makes functions from the code.
"""

from __future__ import annotations

import sys

from asm_libcalls.activation import NativeCall, argument_offset
from asm_libcalls.calling_convention import STACK, Place, assign
from asm_libcalls.emitter.stencils import Part, Stencil, Stencils
from asm_libcalls.signatures import MEMORY_POINTERS, VALUE_TYPES, Signature, ValueType, c_types
from asm_libcalls.signatures.value_types import CONST_POINTER
from asm_libcalls.x86_64.python_functions import EVERYTHING
from asm_libcalls.x86_64.trampolines import ENTER_HOLDING_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.image import Image
    from asm_libcalls.x86_64.python_functions.object_layouts import ObjectLayout

CLASS = "class "
"""Prefix of the name of a slot that holds the address of a class."""

STACK_ARGUMENTS = c_types.sizeof(NativeCall)
"""Offset of the stack arguments in the frame of an entered call."""


_RET = b"\xc3"


def copied_body(image: Image, routine: str) -> Stencil | None:
    """Return a routine as a stencil to copy in place of its call; None if it cannot be copied."""
    if routine not in image.straight:
        return None
    return Stencil(image.original(routine).removesuffix(_RET))


def routine_of_slot(slot: str, layout: ObjectLayout, image: Image) -> str:
    """Return the routine whose address a slot has: of its name, or for the layout; "" for none."""
    names = (slot, f"{slot}_{layout.integers}")
    return next((name for name in names if name in image.routines), "")


class Shape:
    """The properties that determine a function's code; functions of one shape share the code."""

    __slots__ = (
        "_identity", "enter", "guard", "inline", "parameters", "references", "result", "vmctx_of",
    )  # fmt: skip

    def __init__(
        self,
        parameters: tuple[str, ...],
        result: str,
        enter: str = "",
        guard: str = "",
        inline: str = "",
        vmctx_of: tuple[type, str] | None = None,
        references: tuple[tuple[type, str], ...] = (),
    ) -> None:
        # The kinds of the arguments and of the result. Neither the signedness of a wide integer nor
        # the target of a reference matters.
        self.parameters = parameters
        self.result = result
        # The routine that makes the call (`asm_libcalls_enter` or its variant that holds the GIL),
        # or "" for a bare call of a leaf routine.
        self.enter = enter
        # a stencil of `function_stencils.py` that keeps a bare call from trapping, "" or EVERYTHING
        self.guard = guard
        # The code in place of a bare call: a stencil, or a routine of the image to be copied, which
        # is straight-line code up to its one `ret` and needs no frame and no aligned stack. The
        # address is not used then.
        self.inline = inline
        # the class whose exact instances are accepted for the first parameter, and its member that
        # holds the vmctx; all other objects go to the slow path
        self.vmctx_of = vmctx_of
        # the classes whose exact instances are accepted, beside None, for the other pointers, of
        # externrefs and of funcrefs, with their members that hold the address
        self.references = references
        self._identity = (parameters, result, enter, guard, inline, vmctx_of, references)

    @classmethod
    def of(cls, signature: Signature, *properties: Any, **more: Any) -> Shape:
        """Return the shape of a signature, with the other properties as given to the class."""
        result = signature.result
        read = "none" if result is None else result.name
        if result is not None and (result.kind == "pointer" or read == "usize"):
            read = "u64"
        return cls(tuple(map(_kind, signature.parameters)), read, *properties, **more)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shape) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def kinds(self) -> set[str]:
        """Return the kinds of its arguments and its result."""
        return {*self.parameters, self.result}

    def leaving_all(self) -> Shape:
        """Return the shape that passes every call of this one to the slow path."""
        return Shape(self.parameters, self.result, guard=EVERYTHING)

    def title(self) -> str:
        """Return the name of the code for debuggers and profilers."""
        signature = f"({', '.join(self.parameters)}) -> {self.result}"
        return f"builtin {self.inline or signature}"


_RUNTIME = ("vmctx", "anyfunc", "reference")
"""The kinds of pointers to parts of an instance."""


def _kind(value_type: ValueType) -> str:
    if value_type.is_runtime:
        return value_type.name if value_type.name in ("vmctx", "anyfunc") else "reference"
    if value_type.kind == "pointer":
        return value_type.name
    if value_type.bits < 32:
        return value_type.name
    return f"{value_type.kind[0]}{value_type.bits}"


def _of_reference(references: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    from asm_libcalls.vmcontext import VMElementSegment

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
        return "unbox_real"
    return {"i32": "unbox_32", "i64": "unbox_64"}.get(
        kind, "unbox_pointer" if kind in MEMORY_POINTERS else f"unbox_{kind}"
    )


def _number_stencil(kind: str) -> str:
    return f"float{kind[1:]}" if kind[0] == "f" else "integer"


def _storing(place: Place) -> tuple[str, int]:
    """Return the stencil's verb and the offset in the frame, for an argument of an entered call."""
    if place.bank == STACK:
        return "push", STACK_ARGUMENTS + 8 * place.number
    return "spill", argument_offset(place)


def call_slow_parts(part: Callable[..., Part], count: int) -> list[Part]:
    """Return the stencils that call the slow path, with as many arguments."""
    if count == 1:
        return [part("call_slow_one")]
    return [part("slow_vector"), part("call_slow", "call_slow")]


def parts_of(
    pieces: Stencils | dict[str, Stencil],
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
    parameters, result, enter, guard = shape.parameters, shape.result, shape.enter, shape.guard
    inline = shape.inline
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
        # between rsp and the saved rbx: a multiple of 16, the ABI's alignment
        "frame": -(-(STACK_ARGUMENTS + 8 * assignment.stack) // 16) * 16,
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
        if references and kind in _RUNTIME:
            parts.append(part(f"reference_{place.number}", **_of_reference(references)))
            continue
        slots, stencil = {"unbox": _unboxing(kind)}, _number_stencil(kind)
        if not enter:
            parts.append(part(f"{stencil}_{place.number}", slots=slots))
        else:
            verb, offset = _storing(place)
            parts.append(part(f"{verb}_{stencil}", slots=slots, offset=offset))
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
        parts += [part(name, name) for name in ("exception", "raise", "fail")]
    if count:
        slow = [part("slow_entered")] if enter else [part("slow_bare")] if framed else []
        if not (guard or inline or references):
            slow += _holding_parts(pieces, shape, numbers, part(f"box_{result}"))
        slow += call_slow_parts(part, count)
        slow[0].role = slow[0].role or "slow"
        if locks:
            slow = [part("slow_inside", "slow_inside"), part("store_busy", "store_busy"), *slow]
        parts += slow
    return parts


_MOST_HELD = 16
"""The most buffers and externrefs that machine code holds: more would need a large frame."""


def _holding_parts(
    pieces: Stencils | dict[str, Stencil], shape: Shape, numbers: dict[str, int], box: Part
) -> list[Part]:
    """Return the stencils that try again and hold the objects that the others have refused.

    They begin where the slow path does, and continue there if they refuse an argument too.
    """
    parameters = shape.parameters
    memories = [i for i, kind in enumerate(parameters) if kind in MEMORY_POINTERS]
    references = [i for i, kind in enumerate(parameters) if kind == "reference"]
    if not 0 < len(memories) + len(references) <= _MOST_HELD:
        return []
    from asm_libcalls.signatures.held_buffers import HeldBuffer

    exporter = HeldBuffer.object.offset
    assignment = assign(VALUE_TYPES[kind] for kind in parameters)
    first = STACK_ARGUMENTS + 8 * assignment.stack
    size = c_types.sizeof(HeldBuffer)
    buffers = {i: first + size * number for number, i in enumerate(memories)}
    behind = first + size * len(memories)
    boxes = {i: behind + 8 * number for number, i in enumerate(references)}
    frame = -(-(behind + 8 * len(references)) // 16) * 16 + 8  # two registers are pushed
    jumps = {name: f"{name}_held" for name in ("slow", "raise", "fail", "exception")}

    def part(stencil: str, role: str = "", /, slots: Any = None, **more: int) -> Part:
        renamed = {**jumps, **(slots or {})}
        return Part(pieces[stencil], {**numbers, "frame": frame, **more}, renamed, role)

    def released() -> list[Part]:
        return [
            *(part("release", buffer=at, exporter=at + exporter) for at in buffers.values()),
            *(part("release_box", box=at) for at in boxes.values()),
        ]

    source = "vector" if len(parameters) > 1 else "one"
    parts = [part("enter_holding")]
    parts += [part("hold_nothing", exporter=at + exporter) for at in buffers.values()]
    parts += [part("hold_nothing", exporter=at) for at in boxes.values()]
    for i, (kind, place) in enumerate(zip(parameters, assignment.places, strict=True)):
        verb, offset = _storing(place)
        at = {"argument": 8 * i, "offset": offset}
        parts.append(part(f"object_{source}_held", **at))
        slots = {"unbox": _unboxing(kind)}
        if i in buffers:
            access = "readable" if kind == CONST_POINTER else "writable"
            at.update(buffer=buffers[i], exporter=buffers[i] + exporter)
            parts.append(part(f"hold_{access}_{source}", slots=slots, **at))
        elif i in boxes:
            parts.append(part(f"hold_externref_{source}", slots=slots, box=boxes[i], **at))
        else:
            parts.append(part(f"{verb}_{_number_stencil(kind)}", slots=slots, **at))
    return [
        *parts,
        part("call_entered", slots={"enter": shape.enter or ENTER_HOLDING_GIL}),
        *released(),
        part("leave_holding"),
        box,
        part("exception", "exception_held"),
        part("raise", "raise_held"),
        part("keep_error", "fail_held"),
        *released(),
        part("fail_holding"),
        part("clear_error", "slow_held"),
        *released(),
        part("slow_holding"),
    ]
