"""Makes CPython builtin function objects of code that takes and returns Python objects.

A function object owns its module object (its ``__self__``), which owns the C address, the Python
function of the slow path, the name and the doc. CPython's reference counts and garbage collector
free all of them with the function. Without the GIL the function's ``__module__`` owns them: see
:class:`_OwningName`.

The code reads CPython's objects in memory, by a layout that ``object_layouts.py`` has or finds. If
it finds none, :class:`FunctionObjects` raises :class:`Unsupported`. ``function_maker.py`` composes
the code. ``ready_functions.py`` composes that of the numeric libcalls in advance, so that their
first call imports neither.
"""

from __future__ import annotations

from _struct import Struct

from asm_libcalls.emitter import libc
from asm_libcalls.signatures import c_types, value_types
from asm_libcalls.signatures.c_types import c_int, c_void_p, py_object
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import READABLE_TYPES_SIZE, object_layouts
from asm_libcalls.x86_64.python_functions.object_layouts import (
    OBJECT, FunctionState, MethodDefinition, ModuleDefinition, Unsupported, member_definition,
)  # fmt: skip
from asm_libcalls.x86_64.trampolines import CALLABLES, READABLE_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.x86_64.python_functions.readable_types import ReadableTypes

__all__ = ["FunctionObjects", "Unsupported"]

METH_NOARGS, METH_O, METH_FASTCALL = 0x04, 0x08, 0x80


class _OwningName(str):
    """A ``__module__`` that owns the objects that the state of its function refers to.

    CPython 3.13 without the GIL never frees modules, once a second thread has been started. So the
    state, which belongs to a module, must not own them. The function owns this.
    """

    __slots__ = ("owned",)

    owned: tuple[object, ...]

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class FunctionObjects:
    """Makes function objects, for code that uses the routines of a loaded image.

    Raise Unsupported if this Python is unknown, or its objects have an unknown layout.
    """

    def __init__(
        self,
        loaded: LoadedImage,
        raise_status: Callable[[int], None],
        note_exception: Callable[[BaseException], None],
    ) -> None:
        # Before any object exists whose destructor is our code.
        self.layout = object_layouts.tested() or object_layouts.found()
        self.loaded = loaded
        self._members: dict[tuple[type, str], int] = {}
        self._bytes_address = libc.python_api("PyBytes_AsString", c_void_p, py_object)
        self._module_state = libc.python_api("PyModule_GetState", c_void_p, py_object)
        self._set_member = libc.python_api("PyMember_SetOne", c_int, py_object, c_void_p, py_object)
        self._create_function = libc.python_api(
            "PyCFunction_NewEx", py_object, c_void_p, py_object, py_object
        )
        # Addresses of objects that the code calls, by the names of its slots. Function objects need
        # them until the process ends, longer than this module may exist.
        self.callables: dict[str, int] = {}
        functions = raise_status, note_exception, _raise_collected
        for name, function in zip(CALLABLES, functions, strict=True):
            libc.never_free(function)
            self.callables[name] = id(function)
            loaded.set_slot(name, id(function))
        self._share_readable_types()
        self._definition = self._define_module()

    def _define_module(self) -> ModuleDefinition:
        # Without the GIL the state owns nothing: see _OwningName.
        names = ("traverse", "clear", "free") if HAS_GIL else ()
        return ModuleDefinition(
            b"asm_libcalls.native.native_function",
            c_types.sizeof(FunctionState),
            **{name: self.loaded.routine(f"function_state_{name}") for name in names},
        )

    def make(
        self,
        code: int,
        address: int,
        count: int,
        slow: Callable[..., Any],
        name: str,
        text: str,
        module: str | None,
        permanent: bool = False,
    ) -> Any:
        """Make a function object of code that takes `count` arguments.

        `address` is the C function; of a SlotShape, the anyfunc. `slow` is called with the original
        arguments if the fast path does not apply. `text` is the doc, with a text signature, which
        CPython splits off; `module` its ``__module__``. A `permanent` one is never freed, in a
        build without the GIL.
        """
        encoded = name.encode() + b"\0"
        content = encoded + text.encode() + b"\0"
        flags = {0: METH_NOARGS, 1: METH_O}.get(count, METH_FASTCALL)
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
        # As CPython makes the functions of modules: no thread counts references to such a function.
        # References to other objects are counted atomically, except by the thread that made them.
        of_module = (MethodDefinition * 2)(MethodDefinition.from_address(definition))
        libc.never_free(of_module)
        add = libc.python_api("PyModule_AddFunctions", c_int, py_object, c_void_p)
        add(owner, c_types.addressof(of_module))
        return getattr(owner, name)

    def remember_keeper(self, owner: Any, instance: object) -> None:
        """Let the slot function with this ``__self__`` take functions of an instance.

        The instance outlives the function.
        """
        keepers = FunctionState.from_address(self._module_state(owner)).keepers
        if id(instance) not in keepers:
            keepers[:] = [id(instance), *keepers[:-1]]

    def set_code(self, owner: Any, code: int) -> None:
        """Give other code to the function with this ``__self__``."""
        at = self._module_state(owner) + FunctionState.definition.offset
        # One store: CPython reads it at each call.
        MethodDefinition.from_address(at).code = code

    def member_offset(self, cls: type, member: str) -> int:
        """Return the offset of a ``__slots__`` member in objects of a class; else Unsupported."""
        key = (cls, member)
        if key not in self._members:
            self._members[key] = object_layouts.find_member(cls, member)
            libc.never_free(cls)  # code has its address
        return self._members[key]

    @property
    def readable_types(self) -> ReadableTypes:
        """The types that the image's routines read."""
        from asm_libcalls.x86_64.python_functions.readable_types import at

        return at(self.loaded.slot(READABLE_TYPES), self._describe)

    def _share_readable_types(self) -> None:
        # Empty at first. Two threads may both come here: then they set the slot to one table.
        table = _tables.get(self.loaded.address) or _tables.setdefault(
            self.loaded.address, libc.malloc(bytes(READABLE_TYPES_SIZE))
        )
        self.loaded.set_slot(READABLE_TYPES, table)
        value_types.learners[:] = [self._learn]

    def _learn(self, type_: type) -> None:
        try:
            self.readable_types.learn(type_)
        except ImportError:
            return  # a finalizer at interpreter exit, where nothing can be imported

    def _describe(self, type_: type, types: ReadableTypes) -> int:
        from asm_libcalls.x86_64.python_functions.described_types import describe

        return describe(type_, self.member_offset, types)


_tables: dict[int, int] = {}
"""Addresses of the tables of readable types, by the addresses of their images."""

_STATE = Struct(f"{FunctionState.keepers.offset // 8}Q")


def full_text(name: str, parameters: Sequence[str], doc: str) -> str:
    """Return a function's doc after its text signature, as CPython takes both."""
    # CPython takes the part up to "--" for the text signature, if it begins with the name.
    names = ", ".join(("$module", *parameters, "/"))
    return f"{name.rpartition('.')[2]}({names})\n--\n\n{doc}"


def _raise_collected(*arguments: object) -> object:
    raise ReferenceError("the function is called while the garbage collector takes it apart")
