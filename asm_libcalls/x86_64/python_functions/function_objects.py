"""Makes CPython builtin function objects whose code is composed from a shape.

A function object owns its module object (its ``__self__``), which owns the C address, the Python
function of the slow path, the name and the doc. CPython's reference counts and garbage collector
free all of them with the function. Only the code stays: one routine for each shape, some 200 bytes.
Without the GIL the function's ``__module__`` owns them: see :class:`_OwningName`.

The code reads CPython's objects in memory, by the layout that ``object_layouts.py`` finds. If it
finds none, it raises :class:`Unsupported`, and ``asm_libcalls.native.native_function`` does not use
this module.
"""

from __future__ import annotations

from asm_libcalls.signatures import c_types
from _struct import Struct

from asm_libcalls.emitter import code_names, libc
from asm_libcalls.signatures import Signature
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import (
    KNOWN_TYPES,
    STENCIL_PREFIX,
    object_layouts,
    readable_types,
)
from asm_libcalls.emitter import pages
from asm_libcalls.x86_64.python_functions.function_shapes import CLASS, Shape, parts_of
from asm_libcalls.emitter.image import link
from asm_libcalls.x86_64.python_functions.object_layouts import (
    OBJECT,
    FunctionState,
    MethodDefinition,
    ModuleDefinition,
    Unsupported,
    member_definition,
)
from asm_libcalls.emitter.stencils import Part, Stencil, Stencils, compose
from asm_libcalls.x86_64.trampolines import STEP_LOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from functools import partial
    from typing import Any

    from asm_libcalls.emitter.code_names import Function
    from asm_libcalls.emitter.image import Image
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.x86_64.python_functions.slot_shapes import SlotShape
else:
    from _functools import partial  # importing functools takes longer

__all__ = ["FunctionMaker", "Unsupported"]

METH_NOARGS, METH_O, METH_FASTCALL = 0x04, 0x08, 0x80
_RET = b"\xc3"


class _OwningName(str):
    """A ``__module__`` that owns the objects that the state of its function refers to.

    CPython 3.13 without the GIL never frees modules, once a second thread has been started. So the
    state, which belongs to a module, must not own them. The function owns this.
    """

    __slots__ = ("owned",)

    owned: tuple[object, ...]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class FunctionMaker:
    """Makes function objects, with the routines of a loaded image.

    Raise Unsupported if this Python is unknown, or its objects have an unknown layout, and OSError
    if the system refuses executable memory.
    """

    def __init__(
        self,
        loaded: LoadedImage,
        raise_status: Callable[[int], None],
        note_exception: Callable[[BaseException], None],
    ) -> None:
        self.layout = object_layouts.find()
        # Checked before any object exists whose destructor is our code.
        object_layouts.check(self.layout)
        self._loaded = loaded
        self._raise_status = raise_status
        self._note_exception = note_exception
        self._stencils = Stencils(loaded, STENCIL_PREFIX)
        # The address of each shape's code, and the owner of its pages. The pages are kept for ever
        # from the first function on that is made of them.
        self._code: dict[Shape | SlotShape, tuple[int, LoadedImage]] = {}
        self._members: dict[tuple[type, str], int] = {}
        self._checked: set[str] = set()
        self._bytes_address = libc.python_api(
            "PyBytes_AsString", c_types.c_void_p, c_types.py_object
        )
        self._module_state = libc.python_api(
            "PyModule_GetState", c_types.c_void_p, c_types.py_object
        )
        self._set_member = libc.python_api(
            "PyMember_SetOne", c_types.c_int, c_types.py_object, c_types.c_void_p, c_types.py_object
        )
        self._create_function = libc.python_api(
            "PyCFunction_NewEx",
            c_types.py_object,
            c_types.c_void_p,
            c_types.py_object,
            c_types.py_object,
        )
        self.readable_types = readable_types.of_image(loaded, self._describe)
        self._add_functions = libc.python_api(
            "PyModule_AddFunctions", c_types.c_int, c_types.py_object, c_types.c_void_p
        )
        self._definition = self._define_module()
        for immortal in (raise_status, note_exception, _raise_collected):
            # Function objects need these until the process ends, longer than this module may exist.
            libc.never_free(immortal)

    def _define_module(self) -> ModuleDefinition:
        # Without the GIL the state owns nothing: see _OwningName.
        names = ("traverse", "clear", "free") if HAS_GIL else ()
        return ModuleDefinition(
            b"asm_libcalls.native.native_function",
            c_types.sizeof(FunctionState),
            **{name: self._loaded.routine(f"function_state_{name}") for name in names},
        )

    def refusal(self) -> str:
        """Return why it makes no functions of the most usual types; "" if it does."""
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

    def _code_of(self, shape: Shape | SlotShape) -> int:
        """Return the address of code that a function gets, which is kept from now on."""
        address, loaded = self._code[shape]
        loaded.keep()
        return address

    def make(
        self,
        address: int,
        shape: Shape | SlotShape,
        slow: Callable[..., Any],
        name: str,
        text: str,
        module: str | None,
        permanent: bool = False,
    ) -> Any:
        """Make a function object.

        `address` is the C function; of a SlotShape, the anyfunc. `slow` is called with the original
        arguments if the fast path does not apply. `text` is the doc, with a text signature, which
        CPython splits off; `module` its ``__module__``. A `permanent` one is never freed, in a
        build without the GIL.
        """
        self.prepare([shape])
        return self._make(self._code_of(shape), address, shape, slow, name, text, module, permanent)

    def _make(
        self,
        code: int,
        address: int,
        shape: Shape | SlotShape,
        slow: Callable[..., Any],
        name: str,
        text: str,
        module: str | None,
        permanent: bool = False,
    ) -> Any:
        encoded = name.encode() + b"\0"
        content = encoded + text.encode() + b"\0"
        flags = {0: METH_NOARGS, 1: METH_O}.get(len(shape.parameters), METH_FASTCALL)
        owner = self._definition.new_module()
        if module is not None:
            owner.__name__ = module
        state = self._module_state(owner)
        at = self._bytes_address(content)
        if HAS_GIL or permanent:
            # A signal handler may raise after each call: an object is counted and stored in one.
            for where, thing in ((FunctionState.slow, slow), (FunctionState.text, content)):
                offset = state + where.offset - id(owner)
                self._set_member(owner, member_definition(0, OBJECT, offset), thing)
        else:
            module = _OwningName(module or "")
            module.owned = slow, content
        values = (address, id(slow), id(content), at, code, flags, at + len(encoded))
        libc.memmove(state, _STATE.pack(*values), _STATE.size)
        definition = state + FunctionState.definition.offset
        if permanent and not HAS_GIL:
            return self._create_permanent(definition, owner, name)
        return self._create_function(definition, owner, module)

    def _create_permanent(self, definition: int, owner: Any, name: str) -> Any:
        # As functions of CPython's modules are made: threads do not count references to it. Other
        # objects of another thread are counted atomically.
        of_module = (MethodDefinition * 2)(MethodDefinition.from_address(definition))
        libc.never_free(of_module)
        self._add_functions(owner, c_types.addressof(of_module))
        return getattr(owner, name)

    def remember_keeper(self, owner: Any, instance: object) -> None:
        """Let the slot function with this ``__self__`` take functions of an instance.

        The instance outlives the function.
        """
        keepers = FunctionState.from_address(self._module_state(owner)).keepers
        if id(instance) not in keepers:
            keepers[:] = [id(instance), *keepers[:-1]]

    def leave_all(self, shape: Shape, owner: Any) -> None:
        """Let a function of this shape, the one with this ``__self__``, take its slow path.

        The code of ``shape.leaving_all()`` has been prepared.
        """
        at = self._module_state(owner) + FunctionState.definition.offset
        # One store: CPython reads it at each call.
        MethodDefinition.from_address(at).code = self._code_of(shape.leaving_all())

    def _slot(self, name: str) -> int:
        if name == "raise_status":
            return id(self._raise_status)
        if name == "note_exception":
            return id(self._note_exception)
        if name == "raise_collected":
            return id(_raise_collected)
        if name == readable_types.RELEASE:
            return c_types.addressof(self.readable_types.release)
        if name == KNOWN_TYPES:
            from asm_libcalls.signatures import held_buffers

            libc.never_free(held_buffers.known_types)
            return c_types.addressof(held_buffers.known_types)
        if name == STEP_LOCK:
            return self._loaded.slot(STEP_LOCK)
        if name.startswith(CLASS):
            return int(name.removeprefix(CLASS))
        for routine in (name, f"{name}_{self.layout.integers}"):
            if routine in self._loaded.image.routines:
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
        body = None
        if inline in self._loaded.image.straight:
            body = Stencil(self._loaded.original(inline).removesuffix(_RET))
        vmctx = None
        if vmctx_of is not None:
            vmctx = (id(vmctx_of[0]), self.member_offset(*vmctx_of))
        members = tuple((id(cls), self.member_offset(cls, member)) for cls, member in references)
        return parts_of(self._stencils, shape, self.layout, body, vmctx, members, HAS_GIL)

    def member_offset(self, cls: type, member: str) -> int:
        """Return the offset of a ``__slots__`` member in objects of a class; else Unsupported."""
        key = (cls, member)
        if key not in self._members:
            self._members[key] = object_layouts.find_member(cls, member)
            libc.never_free(cls)  # code has its address
        return self._members[key]

    def _describe(self, type_: type, types: readable_types.ReadableTypes) -> int:
        from asm_libcalls.x86_64.python_functions.described_types import describe

        return describe(type_, self.member_offset, types)

    def _check_values(self, value_type: str, shape: Shape, code: int, loaded: LoadedImage) -> None:
        address = self._loaded.routine("return_first_argument")
        taken, left = _PROBES[value_type]

        def slow(argument: object, owner: object = loaded) -> object:  # the function's pages stay
            return (argument,)

        probe = self._make(code, address, shape, slow, "probe", "", None)
        for value in taken:
            expected = 0 if value is None else value
            if probe(value) != expected:
                raise Unsupported(f"the {value_type} {value!r} is read as {probe(value)!r}")
        for value in left:
            if probe(value) != (value,):
                raise Unsupported(f"{value!r} is read as a {value_type}: {probe(value)!r}")


_STATE = Struct(f"{FunctionState.keepers.offset // 8}Q")

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


def _raise_collected(*arguments: object) -> object:
    raise ReferenceError("the function is called while the garbage collector takes it apart")
