"""The libcalls of the second table as functions: what the names of ``asm_libcalls.llvm`` are."""

from __future__ import annotations

from asm_libcalls.native.native_function import Specification, native_functions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.binding import Libcall
    from asm_libcalls.llvm.binding import LlvmBinding

__all__ = ["make_functions"]

MODULE = "asm_libcalls.llvm"
"""Where they are found, and what pickling goes by."""


def make_functions(binding: LlvmBinding) -> dict[str, Any]:
    """Make the functions: builtins, where this Python and CPU can have them."""
    libcalls = list(binding.libcalls.values())
    functions = native_functions([_specify(each) for each in libcalls], binding.interface)
    return {libcall.name: function for libcall, function in zip(libcalls, functions, strict=True)}


def _specify(libcall: Libcall) -> Specification:
    # Each call is the checked one: most take or return what no builtin unboxes.
    return Specification(
        0,
        libcall.signature,
        name=libcall.name,
        doc=libcall.doc,
        module=MODULE,
        parameters=libcall.declaration.parameters,
        slow=libcall,
        catch=False,
        guard="everything",
    )
