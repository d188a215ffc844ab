"""Makes the functions of the package, one for each libcall.

The numeric libcalls run their machine code, and those on the bytes of memories do so for an
Instance. Their slow path, and all other libcalls, use the checked call of a libcall: instances,
indices and references from Python must be checked before native code uses them.
"""

from __future__ import annotations

from asm_libcalls.native.native_function import Specification, native_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from asm_libcalls.libcalls import Declaration
    from asm_libcalls.native.process import NativeInterface
    from asm_libcalls.signatures import Signature
    from asm_libcalls.x86_64.backend import Backend

    class Libcall(Protocol):
        """A libcall, served."""

        name: str
        doc: str
        backend: str
        takes_instance: bool
        declaration: Declaration
        signature: Signature

        @property
        def address(self) -> int:
            """The C address."""

        def checked_call(self, *arguments: Any) -> Any:
            """Check the arguments and call."""

    class Binding(Protocol):
        """Which implementation serves each libcall."""

        x86_64: Backend | None

        @property
        def interface(self) -> NativeInterface:
            """How Python calls native code."""

        @property
        def libcalls(self) -> Mapping[str, Libcall]:
            """The libcalls by name."""


__all__ = ["make_functions"]

MODULE = "asm_libcalls"
"""The ``__module__`` of the functions, by which they are pickled."""


def make_functions(binding: Binding, like: str = "") -> dict[str, Any]:
    """Make the functions of the libcalls: builtins, where this Python and CPU can have them.

    Parameters
    ----------
    binding : Binding
    like : str, optional
        A libcall: make only numeric ones if it is numeric, only the others otherwise. So a program
        with numeric calls does not import the runtime.
    """
    backend = binding.x86_64
    libcalls = list(binding.libcalls.values())
    if like:
        which = binding.libcalls[like].takes_instance
        libcalls = [each for each in libcalls if each.takes_instance == which]
    functions = native_functions([_specify(each, backend) for each in libcalls], binding.interface)
    return {libcall.name: function for libcall, function in zip(libcalls, functions, strict=True)}


def _specify(libcall: Libcall, backend: Backend | None) -> Specification:
    declaration = libcall.declaration
    address, guard, inline, vmctx_of = 0, "everything", "", None
    if libcall.backend == "x86_64":
        assert backend is not None
        if not libcall.takes_instance:
            # Without a guard, a trap would find no entry to unwind to.
            guard = (backend.guard_of(declaration) or "everything") if declaration.traps else ""
            address = libcall.address
            inline = "" if guard else libcall.name
        elif backend.has_checked(libcall.name):
            from asm_libcalls.runtime.instance import Instance

            guard, inline, vmctx_of = "", libcall.name, (Instance, "_vmctx")
    return Specification(
        address,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=MODULE,
        parameters=declaration.parameters,
        slow=libcall.checked_call,
        catch=False,
        guard=guard,
        inline=inline,
        vmctx_of=vmctx_of,
    )
