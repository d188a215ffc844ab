"""cffi: the libcalls as typed function pointers, by name.

A pointer can be stored in a struct, passed to a C function as a callback, or given to a JIT as a C
address. It can also be called from Python. It is the bare C function: a call that may trap must be
inside native code entered through :func:`asm_libcalls.catch_traps`.
"""

from __future__ import annotations

from asm_libcalls.binding import default_binding
from asm_libcalls.signatures.arguments import describe, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.signatures import Signature, ValueType

__all__ = ["c_type", "pointer", "pointers"]


def c_type(signature: Signature) -> str:
    """Return the C type of a pointer to a function, for example ``"double(*)(double)"``.

    Pointers in the signature are ``void *``: cffi does not know this package's types.
    """
    parameters = ", ".join(map(_name, signature.parameters)) or "void"
    result = "void" if signature.result is None else _name(signature.result)
    return f"{result}(*)({parameters})"


def _name(value_type: ValueType) -> str:
    return "void *" if value_type.kind == "pointer" else value_type.c_name


def pointer(ffi: Any, name: str) -> Any:
    """Return a function pointer to a libcall.

    Parameters
    ----------
    ffi : cffi.FFI
        Your FFI object, also that of a compiled module.
    name : str
        The libcall's name or symbol.

    Returns
    -------
    cffi.FFI.CData
        Valid until the process ends. ``int(ffi.cast("intptr_t", it))`` is the address.

    Raises
    ------
    ValueError
        There is no such libcall.
    """
    if not hasattr(ffi, "cast"):
        raise TypeError(f"pointer(): ffi must be a cffi.FFI, got {describe(ffi)}")
    for libcall in default_binding().libcalls.values():
        if name in (libcall.name, libcall.symbol):
            return ffi.cast(c_type(libcall.signature), libcall.address)
    raise ValueError(f"pointer(): there is no libcall {shown(name)}")


def pointers(ffi: Any) -> dict[str, Any]:
    """Return a function pointer to every libcall, by symbol.

    Parameters
    ----------
    ffi : cffi.FFI
    """
    libcalls = default_binding().libcalls
    return {each.symbol: pointer(ffi, each.name) for each in libcalls.values()}
