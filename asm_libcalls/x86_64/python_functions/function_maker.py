"""Composes the machine code of builtin functions, one routine for each shape, and keeps it.

``function_objects.py`` makes the objects. A routine has some 200 bytes, and is never freed once a
function is made of it. If no code reads the objects of this Python, :class:`Unsupported` is raised,
and ``asm_libcalls.native.native_function`` does not use this module.
"""

from __future__ import annotations

from asm_libcalls.emitter import code_names, libc, pages
from asm_libcalls.emitter.image import Image, link
from asm_libcalls.emitter.pages import LoadedImage
from asm_libcalls.emitter.stencils import Part, Stencils, compose
from asm_libcalls.signatures import Signature, c_types
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import KNOWN_TYPES, STENCIL_PREFIX, readable_types
from asm_libcalls.x86_64.python_functions.function_shapes import (
    CLASS, Shape, copied_body, parts_of, routine_of_slot,
)  # fmt: skip
from asm_libcalls.x86_64.python_functions.object_layouts import Unsupported
from asm_libcalls.x86_64.trampolines import STEP_LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from functools import partial
    from typing import Any

    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.x86_64.python_functions.function_objects import FunctionObjects
    from asm_libcalls.x86_64.python_functions.slot_shapes import SlotShape
else:
    from _functools import partial  # importing functools takes longer

__all__ = ["FunctionMaker", "Unsupported"]


class FunctionMaker:
    """Composes code for function objects, from the stencils of their image."""

    def __init__(self, objects: FunctionObjects) -> None:
        self.objects = objects
        self.layout = objects.layout
        self.member_offset = objects.member_offset
        self._loaded = objects.loaded
        self._stencils = Stencils(objects.loaded.image, STENCIL_PREFIX)
        # The address of each shape's code, and the owner of its pages. The pages are never freed
        # once a function is made of them.
        self._code: dict[Shape | SlotShape, tuple[int, LoadedImage]] = {}
        self._checked: set[str] = set()

    def refusal(self) -> str:
        """Return why it cannot make functions of the usual types; "" if it can."""
        try:
            self.prepare([Shape.of(Signature(f"({name}) -> {name}")) for name in ("f64", "i64")])
        except (OSError, Unsupported) as reason:
            return str(reason)
        return ""

    def prepare(self, shapes: Iterable[Shape | SlotShape]) -> None:
        """Make the code of several shapes at once, on shared pages.

        Functions that return their argument are called with values that reveal a wrong layout.
        Raise Unsupported if an argument of a kind in them, or a result, is converted wrongly.
        """
        new = dict.fromkeys(shape for shape in shapes if shape not in self._code)
        if not new:
            return
        kinds = {kind for shape in new for kind in shape.kinds()}
        numbers = {value_type for kind in kinds for value_type in _NUMBERS.get(kind, _PROBES)}
        probes = {
            value_type: Shape.of(Signature(f"({value_type}) -> {value_type}"))
            for value_type in _PROBES
            if value_type in numbers - self._checked
        }
        new.update(dict.fromkeys(each for each in probes.values() if each not in self._code))
        names = {str(i): shape for i, shape in enumerate(new)}
        loaded = self._load(
            [(name, shape.title(), self._parts(shape)) for name, shape in names.items()]
        )
        code = {shape: (loaded.routine(name), loaded) for name, shape in names.items()}
        for value_type, shape in probes.items():
            self._check_values(value_type, shape, *(code.get(shape) or self._code[shape]))
        self._checked.update(probes)
        self._code.update(code)

    def load_stencils(
        self, titles: dict[str, str], slots: dict[str, str] | None = None, **numbers: int
    ) -> LoadedImage:
        """Put stencils, given with their titles, on pages of their own.

        Their holes get these slots and numbers. A slot with the name of one of them has its
        address.
        """
        holes = {**self.layout.holes(), **numbers}
        return self._load(
            [(name, title, [Part(self._stencils[name], holes, slots)])
             for name, title in titles.items()]
        )  # fmt: skip

    def _load(self, routines: list[tuple[str, str, list[Part]]]) -> LoadedImage:
        """Compose routines, given with their names and titles, on pages of their own."""
        image = link(compose(name, parts) for name, _, parts in routines)
        loaded = pages.load(image, announced=False, owned=True)
        code_names.announce(loaded.address, partial(_functions, image, loaded.address, routines))
        for slot in image.slots:
            is_own = slot in image.routines
            loaded.set_slot(slot, loaded.routine(slot) if is_own else self._slot(slot))
        return loaded

    def code_of(self, shape: Shape | SlotShape) -> int:
        """Return the address of a shape's code, for a function; it is kept from now on.

        Raise as :meth:`prepare` does.
        """
        self.prepare([shape])
        address, loaded = self._code[shape]
        loaded.keep()
        return address

    def _slot(self, name: str) -> int:
        if name in self.objects.callables:
            return self.objects.callables[name]
        if name == readable_types.RELEASE:
            return c_types.addressof(self.objects.readable_types.release)
        if name == KNOWN_TYPES:
            from asm_libcalls.signatures import held_buffers

            libc.never_free(held_buffers.known_types)
            return c_types.addressof(held_buffers.known_types)
        if name == STEP_LOCK:
            return self._loaded.slot(STEP_LOCK)
        if name.startswith(CLASS):
            return int(name.removeprefix(CLASS))
        routine = routine_of_slot(name, self.layout, self._loaded.image)
        if routine:
            return self._loaded.routine(routine)
        try:
            return libc.function_address(name)
        except AttributeError as error:
            raise Unsupported(str(error)) from error

    def _parts(self, shape: Shape | SlotShape) -> list[Part]:
        if not isinstance(shape, Shape):
            from asm_libcalls.x86_64.python_functions.slot_shapes import slot_parts

            return slot_parts(self._stencils, shape, self.layout, HAS_GIL)
        inline, vmctx_of, references = shape.inline, shape.vmctx_of, shape.references
        body = copied_body(self._loaded.image, inline)
        vmctx = None
        if vmctx_of is not None:
            vmctx = (id(vmctx_of[0]), self.member_offset(*vmctx_of))
        members = tuple((id(cls), self.member_offset(cls, member)) for cls, member in references)
        return parts_of(self._stencils, shape, self.layout, body, vmctx, members, HAS_GIL)

    def _check_values(self, value_type: str, shape: Shape, code: int, loaded: LoadedImage) -> None:
        address = self._loaded.routine("return_first_argument")
        taken, left = _PROBES[value_type]

        def slow(argument: object, owner: object = loaded) -> object:  # the function's pages stay
            return (argument,)

        probe = self.objects.make(code, address, len(shape.parameters), slow, "probe", "", None)
        for value in taken:
            expected = 0 if value is None else value
            if probe(value) != expected:
                raise Unsupported(f"the {value_type} {value!r} is read as {probe(value)!r}")
        for value in left:
            if probe(value) != (value,):
                raise Unsupported(f"{value!r} is read as a {value_type}: {probe(value)!r}")


_NUMBERS = {
    "none": (),
    "i32": ("i32", "u32"),
    "u32": ("i32", "u32"),
    "i64": ("i64", "u64"),
    "u64": ("i64", "u64"),
    "f32": ("f32",),
    "f64": ("f64",),
}
"""The probes of kinds of arguments and results; of any other kind, all."""

# Values that a function of (T) -> T returns, and values that go to its slow path.
_PROBES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "i64": (
        (0, 1, -1, True, 2**30 - 1, -(2**30), 2**45 + 3, -(2**59) - 7, 2**62 + 2**31 + 5, -(2**63)),
        (-(2**63) - 1, 2**64, -(2**64), 2**90, 1.0, None, "1"),
    ),
    "u64": ((2**63, 2**64 - 1), (2**64,)),
    "i32": ((0, 5, -5, 2**31 - 1, -(2**31)), (2**32, -(2**31) - 1, 2**64 - 1, 0.0)),
    "u32": ((2**31, 2**32 - 1), (2**32,)),
    "i8": ((0, 127, -128, True), (128, -129, 2**32)),
    "u16": ((0, 2**16 - 1), (-1, 2**16, 2**40, None)),
    "bool": ((True, False, 1, 0), (2, -1, None)),
    "pointer": ((None, 0, 2**64 - 1), (-1, -(2**40), 2**64)),
    "f64": ((0.5, -1.25e300, 0, -1, True, 2**30, 1 - 2**53, 2**59), (2**60, -(2**60), "1")),
    "f32": ((0.5, -1.25, 2), (2**60, None)),
}


def _functions(
    image: Image, address: int, routines: list[tuple[str, str, list[Part]]]
) -> list[Function]:
    from asm_libcalls.emitter.eh_frame import instructions
    from asm_libcalls.x86_64.stencils.stack_effects import frames

    return [
        (
            address + image.routines[name][0],
            image.routines[name][1],
            code_names.title(title),
            instructions(frames(parts)),
        )
        for name, title, parts in routines
    ]
