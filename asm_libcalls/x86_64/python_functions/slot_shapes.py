"""Shapes of slot functions: builtins that call compiled WebAssembly with slots.

A slot has 8 bytes; an i32 or f32 is in its low half, a v128 in two slots, the lower half first.
``slot_stencils.py`` describes the code. No Python object is read or made here.
"""

from __future__ import annotations

from asm_libcalls.signatures import c_types
import sys

from asm_libcalls.activation import NativeCall
from asm_libcalls.x86_64.python_functions.function_shapes import CLASS, call_slow_parts
from asm_libcalls.emitter.stencils import Part, Stencil, Stencils

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.x86_64.python_functions.object_layouts import ObjectLayout

MEMBERS = ("externref_member", "funcref_member", "instance_member", "cell_contents")
"""The holes for the offsets of members of objects."""


class References:
    """Addresses and offsets of Python's objects that code with references uses."""

    def __init__(self, addresses: dict[str, int], members: dict[str, int]) -> None:
        self.addresses = addresses  # by the name of the slot
        self.members = members  # offsets of members of objects, by the names of MEMBERS

    def slots(self) -> dict[str, str]:
        """Return the names of the slots that hold the addresses."""
        return {name: f"{CLASS}{address}" for name, address in self.addresses.items()}


class SlotShape:
    """The properties that determine the code of a slot function."""

    __slots__ = ("enter", "entry", "parameters", "references", "results")

    def __init__(
        self,
        parameters: tuple[str, ...],
        results: tuple[str, ...],
        enter: str,
        entry: int,
        references: References,
    ) -> None:
        # `parameters`, `results`: WebAssembly's names of the types
        self.parameters = parameters
        self.results = results
        self.enter = enter  # the routine that makes the call, with the GIL released or held
        # The address of `entry(vmctx, code, slots, count)`. A single result is in `slots[count]`,
        # or in `slots[count + 1]` if it is a float; others are from the first slot on.
        self.entry = entry
        self.references = references

    def _identity(self) -> tuple[object, ...]:
        return (self.parameters, self.results, self.enter, self.entry)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SlotShape) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def kinds(self) -> set[str]:
        """Return the kinds of numbers that its code reads and makes."""
        types = {*self.parameters, *self.results}
        return {"i64"} | types.intersection(("i32", "f32", "f64"))

    def title(self) -> str:
        """Return the name of the code for debuggers and profilers."""
        return f"builtin ({', '.join(self.parameters)}) -> ({', '.join(self.results)}) by slots"


_UNBOXING = {
    "i32": ("slot_i32", "unbox_32"),
    "i64": ("push_integer", "unbox_64"),
    "f32": ("push_float32", "unbox_real"),
    "f64": ("push_float64", "unbox_real"),
    "v128": ("slot_v128", "unbox_128"),
    "funcref": ("slot_funcref", "unbox_64"),
    "externref": ("slot_externref", "unbox_64"),
}
"""The stencil of each type of argument, and the routine that reads an int."""


def _count(types: tuple[str, ...]) -> int:
    return len(types) + types.count("v128")


def _offsets(types: tuple[str, ...], first: int) -> list[int]:
    return [first + 8 * _count(types[:i]) for i in range(len(types))]


def slot_parts(
    pieces: Stencils | dict[str, Stencil],
    shape: SlotShape,
    layout: ObjectLayout,
    has_gil: bool = True,
) -> list[Part]:
    """Return the stencils of a slot function, in order.

    Without the GIL, it is inside the store of its instance until its results are objects.
    """
    parameters, results, references = shape.parameters, shape.results, shape.references
    count, slot_count = len(parameters), max(_count(parameters), _count(results))
    slots = -(-c_types.sizeof(NativeCall) // 16) * 16
    first_object = slots + 8 * (slot_count + 2)
    objects = [first_object + 8 * i for i in range(max(1, len(results)))]
    first_box = objects[-1] + 8
    at = _offsets(parameters, slots)
    boxed = [i for i, name in enumerate(parameters) if name == "externref"]
    boxes = {i: first_box + 8 * number for number, i in enumerate(boxed)}
    store = first_box + 8 * len(boxed)
    frame = -(-(store + 8 * (not has_gil)) // 16) * 16 + 8  # two registers are pushed
    numbers = {
        **layout.holes(),
        **references.members,
        "count": count,
        "frame": frame,
        "slots": slots,
        "slot_count": slot_count,
        "store": store,
    }
    common = {
        **references.slots(),
        "enter": shape.enter,
        "slots_entry": f"{CLASS}{shape.entry}",
        "from_bytes": "PyLong_FromUnsignedNativeBytes"
        if sys.version_info >= (3, 13)
        else "_PyLong_FromByteArray",
    }

    def part(stencil: str, role: str = "", /, slots: Any = None, **more: int) -> Part:
        return Part(pieces[stencil], {**numbers, **more}, {**common, **(slots or {})}, role)

    source = "vector" if count > 1 else "one"
    parts = [part("check_count")] if count > 1 else []
    parts += [part("take"), part("enter_holding")]
    empty = [*objects, *boxes.values(), *([] if has_gil else [store])]
    parts += [part("hold_nothing", exporter=each) for each in empty]
    # Boxes are made last: the others may refuse their arguments.
    for i in [*(i for i in range(count) if i not in boxes), *boxed]:
        stencil, unbox = _UNBOXING[parameters[i]]
        where = {"offset": at[i], "offset_high": at[i] + 8, "box": boxes.get(i, 0)}
        parts.append(part(f"object_{source}_held", argument=8 * i))
        parts.append(part(stencil, slots={"unbox": unbox}, **where))
    parts += [] if has_gil else [part("enter_store_of_function")]
    parts.append(part("call_slots"))
    parts += _result_parts(part, shape, slots, slot_count, objects)

    def released() -> list[Part]:
        left = [] if has_gil else [part("leave_store_of_function")]
        return [*left, *(part("drop_box", box=each) for each in boxes.values())]

    parts += [*released(), part("leave_slots", object=objects[0])]
    parts += [
        part("exception", "exception"),
        part("raise", "raise"),
        part("keep_error", "fail"),
        *(part("drop_object", object=each) for each in objects),
        *released(),
        part("fail_holding"),
    ]
    if count or not has_gil:
        slow = [*released(), part("slow_holding")]
        slow[0].role = "slow"
        parts += slow
        parts += call_slow_parts(part, count)
    return parts


def _result_parts(
    part: Any, shape: SlotShape, slots: int, slot_count: int, objects: list[int]
) -> list[Part]:
    """Return the stencils that make the results, and store the one object in the first word."""
    results = shape.results
    if not results:
        return [part("result_none", object=objects[0])]
    at = _offsets(results, slots)
    if len(results) == 1 and results[0] != "v128":
        at = [slots + 8 * (slot_count + (results[0] in ("f32", "f64")))]
    parts = []
    for name, offset, place in zip(results, at, objects, strict=True):
        parts += [part(f"result_{name}", offset=offset), part("keep_result", object=place)]
    if len(results) > 1:
        parts.append(part("make_tuple", count=len(results)))
        parts += [part("put_result", number=i, object=at) for i, at in enumerate(objects)]
        parts.append(part("keep_tuple", object=objects[0]))
    return parts
