"""Makes the functions of ``asm_libcalls.llvm``, one for each libcall of the second table."""

from __future__ import annotations

from asm_libcalls.native.native_function import Specification, native_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.functions import Binding, Libcall

__all__ = ["make_functions"]

MODULE = "asm_libcalls.llvm"
"""The ``__module__`` of the functions, by which they are pickled."""


def make_functions(binding: Binding) -> dict[str, Any]:
    """Make the functions: builtins, where this Python and CPU can have them."""
    libcalls = list(binding.libcalls.values())
    functions = native_functions([_specify(each) for each in libcalls], binding.interface)
    return {libcall.name: function for libcall, function in zip(libcalls, functions, strict=True)}


def _specify(libcall: Libcall) -> Specification:
    # Every call is the checked one: most types here have no unboxing in machine code.
    return Specification(
        0,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=MODULE,
        parameters=libcall.declaration.parameters,
        slow=libcall.checked_call,
        catch=False,
        guard="everything",
    )
