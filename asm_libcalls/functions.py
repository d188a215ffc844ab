"""Makes the functions of the package, one for each libcall.

The numeric libcalls run their machine code. Those on an Instance do so for exactly that class, and
for VMExternRefs, FuncRefs and None as references. Their slow path, and all other libcalls, use the
checked call of a libcall: instances, indices and references from Python must be checked before
native code uses them.
"""

from __future__ import annotations

from asm_libcalls.native.native_function import Specification, native_functions
from asm_libcalls.x86_64.python_functions import EVERYTHING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from asm_libcalls.libcall import Libcall
    from asm_libcalls.native.process import NativeInterface
    from asm_libcalls.x86_64.backend import Backend

    class Binding(Protocol):
        """Which implementation serves each libcall."""

        module: str
        unboxes: bool
        x86_64: Backend | None
        libcalls: dict[str, Libcall]

        @property
        def interface(self) -> NativeInterface:
            """How Python calls native code."""


__all__ = ["make_functions"]


def make_functions(binding: Binding, like: str = "") -> dict[str, Any]:
    """Make the functions of the libcalls: builtins, where this Python and CPU can have them.

    Parameters
    ----------
    binding : Binding
    like : str, optional
        A libcall: make only numeric ones if it is numeric, only the others otherwise. So a program
        with numeric calls does not import the runtime.
    """
    libcalls = list(binding.libcalls.values())
    if like:
        which = binding.libcalls[like].takes_instance
        libcalls = [each for each in libcalls if each.takes_instance == which]
    functions = native_functions([_specify(each, binding) for each in libcalls], binding.interface)
    return {libcall.name: function for libcall, function in zip(libcalls, functions, strict=True)}


def _specify(libcall: Libcall, binding: Binding) -> Specification:
    declaration = libcall.declaration
    address, guard, inline, vmctx_of = 0, EVERYTHING, "", None
    references: tuple[tuple[type, str], ...] = ()
    backend = binding.x86_64
    if binding.unboxes and libcall.backend == "x86_64":
        assert backend is not None
        if not libcall.takes_instance:
            # Without a guard, a trap would find no entry to unwind to.
            guard = (backend.guard_of(declaration) or EVERYTHING) if declaration.traps else ""
            address = libcall.address
            inline = "" if guard else libcall.name
        elif backend.has_checked(libcall.name):
            from asm_libcalls.runtime.externref import VMExternRef
            from asm_libcalls.runtime.funcref import FuncRef
            from asm_libcalls.runtime.instance import Instance

            guard, inline, vmctx_of = "", libcall.name, (Instance, "_vmctx")
            references = ((VMExternRef, "_address"), (FuncRef, "_address"))
    return Specification(
        address,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=binding.module,
        parameters=declaration.parameters,
        slow=libcall.checked_call,
        catch=False,
        guard=guard,
        inline=inline,
        vmctx_of=vmctx_of,
        references=references,
    )
