"""LLVM's libcalls: the functions that code compiled by LLVM calls, under compiler-rt's names.

``asm_libcalls.llvm.divti3(-7, 2)`` calls one from Python; ``symbols()`` gives the C addresses to a
JIT that resolves ``__divti3``; ``LIBCALLS["divti3"]`` has everything about one.
:mod:`asm_libcalls.integrations.llvmlite` registers them with llvmlite.
"""

from __future__ import annotations

from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.binding import default_llvm_binding

_binding = default_llvm_binding()

LIBCALLS: dict[str, Libcall] = dict(_binding.libcalls)
"""Every libcall by name, in the table's order; a C symbol is ``__`` and the name."""


def __getattr__(name: str) -> object:
    if name not in LIBCALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    function = globals()[name] = _binding.function_of(LIBCALLS[name])
    return function


def __dir__() -> list[str]:
    return sorted({*globals(), *LIBCALLS})


def symbols() -> dict[str, int]:
    """Return the C address of each libcall by its symbol, ``"__divti3"`` and so on.

    Where no machine code serves, those of 16 and 128 bits have none: ctypes has no such types.
    """
    return _binding.symbols()


__all__ = ["LIBCALLS", "symbols", *LIBCALLS]
