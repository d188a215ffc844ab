"""Makes the functions of the package, one for each libcall.

The function of a numeric libcall runs its machine code. That of a libcall on an Instance does so
for objects of exactly this class, and for VMExternRefs, FuncRefs and None as references. The slow
path, and the functions of all other libcalls, use the checked call: instances, indices and
references from Python must be checked before native code uses them.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from asm_libcalls.libcall import Libcall
    from asm_libcalls.native.process import NativeInterface
    from asm_libcalls.native.specification import Specification
    from asm_libcalls.x86_64.backend import Backend

    class Binding(Protocol):
        """The part of :class:`asm_libcalls.binding.Binding` that this module uses."""

        module: str
        unboxes: bool
        x86_64: Backend | None
        libcalls: dict[str, Libcall]

        @property
        def interface(self) -> NativeInterface:
            """The calls between Python and native code."""


def make_functions(binding: Binding, like: str = "") -> dict[str, Any]:
    """Make the functions of the libcalls: builtins, if this Python and CPU support them.

    With `like`, the name of a libcall, make only its function if it is numeric, else those of all
    libcalls on an instance. So a program with numeric calls does not import the runtime.
    """
    libcalls = list(binding.libcalls.values())
    if like:
        asked = binding.libcalls[like]
        if asked.takes_instance:
            libcalls = [each for each in libcalls if each.takes_instance]
        else:
            ready = _ready_function(asked, binding)
            if ready is not None:
                return {like: ready}
            libcalls = [asked]
    from asm_libcalls.native.native_function import native_functions

    functions = native_functions([_specify(each, binding) for each in libcalls], binding.interface)
    return {libcall.name: function for libcall, function in zip(libcalls, functions, strict=True)}


def _ready_function(libcall: Libcall, binding: Binding) -> Any:
    """Make a function of the image's code for this Python's objects; None without such code."""
    if not binding.unboxes or libcall.backend != "x86_64":
        return None
    objects = binding.interface.function_objects()
    # In a finalizer at interpreter exit nothing can be imported.
    if isinstance(objects, str) or sys.is_finalizing():
        return None
    routine = objects.layout.routine(libcall.name)
    if routine not in objects.loaded.image.routines:
        return None
    from asm_libcalls.x86_64.python_functions.function_objects import full_text

    declaration = libcall.declaration
    return objects.make(
        objects.loaded.routine(routine),
        libcall.address,
        len(declaration.parameters),
        _Entered(libcall, binding) if declaration.exceptions else libcall.checked_call,
        libcall.name,
        full_text(libcall.name, declaration.parameters, libcall.doc),
        binding.module,
        permanent=True,
    )


def _specify(libcall: Libcall, binding: Binding) -> Specification:
    from asm_libcalls.native.specification import Specification
    from asm_libcalls.x86_64.python_functions import EVERYTHING

    declaration = libcall.declaration
    address, guard, inline, vmctx_of = 0, EVERYTHING, "", None
    references: tuple[tuple[type, str], ...] = ()
    backend = binding.x86_64
    slow: Callable[..., Any] = libcall.checked_call
    if binding.unboxes and libcall.backend == "x86_64":
        assert backend is not None
        if not libcall.takes_instance:
            # Without a guard, a trap would have no entry to unwind to.
            guard = (backend.guard_of(declaration) or EVERYTHING) if declaration.exceptions else ""
            address = libcall.address
            inline = "" if guard else libcall.name
            if guard and guard != EVERYTHING:
                slow = _Entered(libcall, binding)
        elif backend.has_checked(libcall.name):
            from asm_libcalls.runtime.externref import VMExternRef
            from asm_libcalls.runtime.funcref import FuncRef
            from asm_libcalls.runtime.instance import Instance
            from asm_libcalls.runtime.step_lock import share

            if libcall.may_leave:
                share(backend.loaded)
            guard, inline = "", backend.routine_of(libcall.name)
            vmctx_of = (Instance, "_vmctx")
            references = ((VMExternRef, "_address"), (FuncRef, "_address"))
            slow = _WithInstance(libcall)
    return Specification(
        address,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=binding.module,
        parameters=declaration.parameters,
        slow=slow,
        catch=False,
        guard=guard,
        inline=inline,
        vmctx_of=vmctx_of,
        references=references,
        permanent=True,
    )


class _Entered:
    """The slow path of a numeric libcall: a function that catches its trap, made when called."""

    def __init__(self, libcall: Libcall, binding: Binding) -> None:
        self._libcall = libcall
        self._binding = binding
        self._function: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        if self._function is None:
            from asm_libcalls.native.native_function import native_functions
            from asm_libcalls.native.specification import Specification

            libcall = self._libcall
            specification = Specification(
                libcall.address,
                libcall.signature,
                name=libcall.name,
                parameters=libcall.declaration.parameters,
            )
            self._function = native_functions([specification], self._binding.interface)[0]
        return self._function(*arguments)


class _WithInstance:
    """The slow path of a libcall on an instance: replaces an address by the Instance."""

    def __init__(self, libcall: Libcall) -> None:
        self._libcall = libcall

    def __call__(self, *arguments: Any) -> Any:
        if arguments and type(arguments[0]) is int:
            from asm_libcalls.runtime.arguments import instance_in
            from asm_libcalls.runtime.instance import Instance

            instance = instance_in(arguments)
            if type(instance) is Instance:
                return self._libcall._as_function()(instance, *arguments[1:])
        return self._libcall.checked_call(*arguments)
