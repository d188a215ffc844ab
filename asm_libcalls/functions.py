"""The libcalls as functions: what the names of the package are bound to.

Those of numbers run their machine code; their slow path, and all the others, is the checked call
of :class:`~asm_libcalls.binding.Libcall`, since what Python gives as an instance, an index or a
reference must be checked before native code trusts it.
"""

from __future__ import annotations

from asm_libcalls.native_functions import Specification, native_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.binding import Binding, Libcall

__all__ = ["make_functions"]

MODULE = "asm_libcalls"
"""Where they are found, and what pickling goes by."""


def make_functions(binding: Binding) -> dict[str, Any]:
    """Make the function of every libcall: builtins, where this Python and CPU can have them."""
    libcalls = binding.libcalls
    functions = native_functions([_specify(each) for each in libcalls.values()], binding)
    return dict(zip(libcalls, functions, strict=True))


def _specify(libcall: Libcall) -> Specification:
    declaration = libcall.declaration
    leaf = libcall.backend == "x86_64" and declaration.family in ("rounding", "integers")
    if leaf:
        from asm_libcalls.x86_64.integers import GUARDS

        # A trap that nobody sees coming would find no entry to unwind to.
        guard = GUARDS.get(libcall.name, "everything" if declaration.traps else "")
    else:
        guard = "everything"
    return Specification(
        libcall.address if leaf else 0,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=MODULE,
        parameters=declaration.parameters,
        slow=libcall,
        catch=False,
        guard=guard,
        inline="" if guard else libcall.name,  # all without a trap are straight-line code
    )
