"""The libcalls as functions: what the names of the package are bound to.

Those of numbers run their machine code, and so do those on the bytes of memories for an Instance;
their slow path, and all the others, is the checked call of :class:`~asm_libcalls.binding.Libcall`,
since what Python gives as an instance, an index or a reference must be checked before native code
trusts it.
"""

from __future__ import annotations

from asm_libcalls.native.native_function import Specification, native_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.binding import Binding, Libcall
    from asm_libcalls.x86_64.backend import Backend

__all__ = ["make_functions"]

MODULE = "asm_libcalls"
"""Where they are found, and what pickling goes by."""


def make_functions(binding: Binding, like: str = "") -> dict[str, Any]:
    """Make the functions of the libcalls: builtins, where this Python and CPU can have them.

    Parameters
    ----------
    binding : Binding
    like : str, optional
        A libcall: if it takes numbers alone, only those that do; and the others otherwise. Who
        calls those of numbers does not wait for what there is of instances.
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
            # A trap that nobody sees coming would find no entry to unwind to.
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
        slow=libcall,
        catch=False,
        guard=guard,
        inline=inline,
        vmctx_of=vmctx_of,
    )
