"""Makes CPython builtin function objects whose code is composed from a shape.

A function object owns its module object (its ``__self__``), which owns the C address, the Python
function of the slow path, the name and the doc. CPython's reference counts and garbage collector
free all of them with the function. Only the code stays: one routine for each shape, some 200 bytes.

The code reads CPython's objects in memory, by the layout that ``object_layouts.py`` finds. If it
finds none, it raises :class:`Unsupported`, and ``asm_libcalls.native.native_function`` does not use
this module.
"""

from __future__ import annotations

import ctypes
import struct
from functools import partial

from asm_libcalls.emitter import code_names, libc
from asm_libcalls.signatures import Signature, held_buffers
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import function_stencils, object_layouts
from asm_libcalls.emitter import pages
from asm_libcalls.x86_64.python_functions.function_shapes import CLASS, Shape, parts_of
from asm_libcalls.emitter.image import link
from asm_libcalls.x86_64.python_functions.object_layouts import (
    FunctionState,
    MethodDefinition,
    ModuleDefinition,
    Unsupported,
)
from asm_libcalls.x86_64.stencils.parts import Part, Stencil, compose, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["FunctionMaker", "Unsupported"]

METH_NOARGS, METH_O, METH_FASTCALL = 0x04, 0x08, 0x80
_RET = b"\xc3"


class FunctionMaker:
    """Makes function objects, with the routines of a loaded image.

    Raises
    ------
    Unsupported
        This Python is unknown, or its objects have an unknown layout.
    OSError
        The system refuses executable memory.
    """

    def __init__(self, loaded: LoadedImage, raise_status: Callable[[int], None]) -> None:
        self.layout = object_layouts.find()
        # Checked before any object exists whose destructor is our code.
        object_layouts.check(self.layout)
        self._loaded = loaded
        self._raise_status = raise_status
        self._stencils = read(loaded, function_stencils.STENCIL_PREFIX)
        self._code: dict[Shape, int] = {}
        self._members: dict[tuple[type, str], int] = {}
        self._increment = libc.python_api("Py_IncRef", None, ctypes.py_object)
        self._bytes_address = libc.python_api("PyBytes_AsString", ctypes.c_void_p, ctypes.py_object)
        self._module_state = libc.python_api("PyModule_GetState", ctypes.c_void_p, ctypes.py_object)
        self._create_function = libc.python_api(
            "PyCFunction_NewEx",
            ctypes.py_object,
            ctypes.c_void_p,
            ctypes.py_object,
            ctypes.py_object,
        )
        self._definition = self._define_module()
        for immortal in (raise_status, _raise_collected, self._definition):
            # Function objects need these until the process ends, longer than this module may exist.
            self._increment(immortal)
        self._check_objects()

    def _define_module(self) -> ModuleDefinition:
        routine = self._loaded.routine
        return ModuleDefinition(
            name=b"asm_libcalls.native.native_function",
            state_size=ctypes.sizeof(FunctionState),
            traverse=routine("function_state_traverse"),
            clear=routine("function_state_clear"),
            free=routine("function_state_free"),
        )

    def prepare(self, shapes: Iterable[Shape]) -> None:
        """Make the code of several shapes at once, on shared pages."""
        new = [shape for shape in dict.fromkeys(shapes) if shape not in self._code]
        if not new:
            return
        routines = self._load([(shape.title(), self._parts(shape)) for shape in new])
        self._code.update(zip(new, routines, strict=True))

    def load_stencil(self, name: str, title: str, **numbers: int) -> int:
        """Return the address of one stencil's code, with these numbers in its holes."""
        return self._load([(title, [Part(self._stencils[name], numbers)])])[0]

    def _load(self, routines: list[tuple[str, list[Part]]]) -> list[int]:
        """Compose routines, given with their titles, on shared pages; return their addresses."""
        names = [str(i) for i in range(len(routines))]
        image = link(compose(name, parts) for name, (_, parts) in zip(names, routines, strict=True))
        loaded = pages.load(image, announced=False)
        code_names.announce(loaded.address, partial(_functions, loaded, routines))
        for slot in loaded.image.slots:
            loaded.set_slot(slot, self._slot(slot))
        return [loaded.routine(name) for name in names]

    def make(
        self,
        address: int,
        shape: Shape,
        slow: Callable[..., Any],
        name: str,
        text: str,
        module: str | None,
    ) -> Any:
        """Make a function object.

        Parameters
        ----------
        address : int
            The C function.
        shape : Shape
        slow : callable
            Called with the original arguments if the fast path does not apply.
        name : str
        text : str
            The doc, with a text signature, which CPython splits off.
        module : str or None
            Its ``__module__``.
        """
        self.prepare([shape])
        encoded = name.encode() + b"\0"
        content = encoded + text.encode() + b"\0"
        flags = {0: METH_NOARGS, 1: METH_O}.get(len(shape.parameters), METH_FASTCALL)
        owner = self._definition.new_module()
        if module is not None:
            owner.__name__ = module
        state = self._module_state(owner)
        at = self._bytes_address(content)
        # From here on the module owns both.
        self._increment(slow)
        self._increment(content)
        values = (address, id(slow), id(content), at, self._code[shape], flags, at + len(encoded))
        ctypes.memmove(state, _STATE.pack(*values), _STATE.size)
        return self._create_function(state + FunctionState.definition.offset, owner, module)

    def leave_all(self, shape: Shape, owner: Any) -> None:
        """Let a function of this shape, the one with this ``__self__``, take its slow path.

        The code of ``shape.leaving_all()`` has been prepared.
        """
        at = self._module_state(owner) + FunctionState.definition.offset
        # One store: CPython reads it at each call.
        MethodDefinition.from_address(at).code = self._code[shape.leaving_all()]

    def _slot(self, name: str) -> int:
        if name == "raise_status":
            return id(self._raise_status)
        if name == "raise_collected":
            return id(_raise_collected)
        if name == function_stencils.KNOWN_TYPES:
            return ctypes.addressof(held_buffers.known_types)
        if name.startswith(CLASS):
            return int(name.removeprefix(CLASS))
        for routine in (name, f"{name}_{self.layout.integers}"):
            if routine in self._loaded.image.routines:
                return self._loaded.routine(routine)
        return libc.function_address(name)

    def _parts(self, shape: Shape) -> list[Part]:
        inline, vmctx_of, references = shape.inline, shape.vmctx_of, shape.references
        if shape.takes_references() and not HAS_GIL:
            # Without the GIL another thread may drop the reference while its member is read.
            return parts_of(self._stencils, shape.leaving_all(), self.layout)
        body = None
        if inline in self._loaded.image.straight:
            body = Stencil(self._loaded.original(inline).removesuffix(_RET))
        vmctx = None
        if vmctx_of is not None:
            vmctx = (id(vmctx_of[0]), self.member_offset(*vmctx_of))
        members = tuple((id(cls), self.member_offset(cls, member)) for cls, member in references)
        return parts_of(self._stencils, shape, self.layout, body, vmctx, members, HAS_GIL)

    def member_offset(self, cls: type, member: str) -> int:
        """Return the offset of a member of ``__slots__`` in objects of exactly this class.

        Raises
        ------
        Unsupported
            The offset cannot be determined.
        """
        key = (cls, member)
        if key not in self._members:
            # By observation: an uninitialized object, with each of two otherwise unreferenced
            # integers in the member.
            places = []
            for number in (2**70, 2**71):
                value = number + len(member)
                thing: Any = object.__new__(cls)
                setattr(thing, member, value)
                words = (ctypes.c_size_t * (cls.__basicsize__ // 8)).from_address(id(thing))
                places.append([8 * i for i, word in enumerate(words) if word == id(value)])
                setattr(thing, member, 0)
            if len(places[0]) != 1 or places[0] != places[1]:
                raise Unsupported(f"{cls.__name__}.{member} is not at one place: {places}")
            self._increment(cls)  # code has its address
            self._members[key] = places[0][0]
        return self._members[key]

    def _check_objects(self) -> None:
        """Make functions, and call them with values that reveal a wrong layout."""
        shapes = {t: Shape(Signature(f"({t}) -> {t}")) for t in _PROBES}
        self.prepare(shapes.values())
        address = self._loaded.routine("return_first_argument")
        for value_type, (taken, left) in _PROBES.items():

            def slow(argument: object) -> object:
                return (argument,)

            probe = self.make(address, shapes[value_type], slow, "probe", "", None)
            for value in taken:
                expected = 0 if value is None else value
                if probe(value) != expected:
                    raise Unsupported(f"the {value_type} {value!r} is read as {probe(value)!r}")
            for value in left:
                if probe(value) != (value,):
                    raise Unsupported(f"{value!r} is read as a {value_type}: {probe(value)!r}")


_STATE = struct.Struct(f"{ctypes.sizeof(FunctionState) // 8}Q")

# Values that a function of (T) -> T returns, and values that go to its slow path.
_PROBES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "i64": (
        (0, 1, -1, 2**30 - 1, -(2**30), 2**45 + 3, -(2**59) - 7, 2**62 + 2**31 + 5, -(2**63)),
        (-(2**63) - 1, 2**64, -(2**64), 2**90, True, 1.0, None),
    ),
    "u64": ((2**63, 2**64 - 1), (2**64,)),
    "i32": ((0, 5, -5, 2**31 - 1, -(2**31)), (2**32, -(2**31) - 1, 2**64 - 1, False)),
    "u32": ((2**31, 2**32 - 1), (2**32,)),
    "i8": ((0, 127, -128), (128, -129, 2**32, True)),
    "u16": ((0, 2**16 - 1), (-1, 2**16, 2**40, None)),
    "bool": ((True, False), (1, 0, None)),
    "pointer": ((None, 0, 2**64 - 1), (-1, -(2**40), 2**64)),
    "f64": ((0.5, -1.25e300, 0, -1, 2**30, 1 - 2**53), (2**53, -(2**53), 2**70, True, "1")),
    "f32": ((0.5, -1.25, 2), (2**53, None)),
}


def _functions(loaded: LoadedImage, routines: list[tuple[str, list[Part]]]) -> list[Function]:
    from asm_libcalls.emitter.eh_frame import instructions
    from asm_libcalls.x86_64.stencils.stack_effects import frames

    return [
        (
            loaded.routine(str(i)),
            loaded.image.routines[str(i)][1],
            code_names.title(title),
            instructions(frames(parts)),
        )
        for i, (title, parts) in enumerate(routines)
    ]


def _raise_collected(*arguments: object) -> object:
    raise ReferenceError("the function is called while the garbage collector takes it apart")
