"""Python objects as pointers: the address of an argument, or of a host function's result.

An object with an address in native code has a method ``__native_address__(kind)``. It takes the
name of the value type, for example ``"vmctx"`` or ``"pointer"``, and returns the address, or a pair
of the address and an object that the caller keeps until the call has ended. For another kind it
returns NotImplemented; if the object is closed it raises ValueError.

A pointer to memory (:data:`~asm_libcalls.signatures.value_types.MEMORY_POINTERS`) may also be given
as an object with the buffer protocol, or as an object of :mod:`ctypes`.
"""

from __future__ import annotations

import sys

from asm_libcalls.signatures.arguments import describe
from asm_libcalls.signatures.value_types import (
    CONST_POINTER,
    MEMORY_POINTERS,
    POINTER_BITS,
    ValueType,
    learners,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POINTER_CODES = "PzZO"
"""The ``_type_`` of ctypes' simple types that hold a pointer: void, char, wchar_t, PyObject."""

_Builtin = type(len)

_OWNERS = {
    "vmctx": "an asm_libcalls.Instance",  # toy_jit has an Instance too
    "anyfunc": "a FuncRef or an export",
    "externref": "a VMExternRef",
}
"""The owners of addresses of parts of an instance, for errors."""


def address_of_owner(value_type: ValueType, argument: Any, where: str, held: list[Any]) -> Any:
    """Return the address from ``__native_address__``, or NotImplemented.

    An object to keep during the call is appended to `held`. The method must not run other Python
    code. It is called after all conversions that may run some.
    """
    try:
        address = type(argument).__native_address__(argument, value_type.name)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{where}: {error}") from error
    if isinstance(address, tuple):
        if len(address) != 2:
            raise TypeError(
                f"{where}: __native_address__() must return an address, or a pair of it and its "
                f"owner, got {describe(address)}"
            )
        address, keeper = address
        held.append((keeper,))
    if learners:
        learners[0](type(argument))
    return address if address is NotImplemented else value_type.to_bits(address, where)


def address_of_argument(value_type: ValueType, argument: Any, where: str, held: list[Any]) -> int:
    """Return the address of an argument without ``__native_address__``; `where` names it in errors.

    It is an int, or None for null. For memory it may also be a pointer, reference or function of
    ctypes, or have the buffer protocol: then a :class:`HeldBuffer` is appended to `held`.

    Raise TypeError, OverflowError or ValueError if it has no address, or its memory is read-only,
    not contiguous or freed.
    """
    if argument is None or isinstance(argument, int) or value_type.name not in MEMORY_POINTERS:
        return _number(value_type, argument, where)
    address = address_in_ctypes(argument)
    if address is not None:
        if learners:
            learners[0](type(argument))
        return address
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(argument, numpy.generic):  # numbers, but with a buffer
        from asm_libcalls.signatures.held_buffers import exports_buffers, hold

        if exports_buffers(argument):
            return hold(argument, value_type.name == CONST_POINTER, where, held)
    address = _of_parameter(argument)
    if address is not None:
        return address
    return _number(value_type, argument, where)


def address_of_result(value_type: ValueType, value: Any, where: str) -> int:
    """Return the address of a host function's result.

    It is an int, None, an object with ``__native_address__``, or a pointer or function of ctypes.
    Nothing is kept alive, so an object whose address is valid for a call only is refused.
    """
    if value is None or isinstance(value, int):
        return value_type.to_bits(value, where)
    if hasattr(type(value), "__native_address__"):
        kept: list[Any] = []
        address = address_of_owner(value_type, value, where, kept)
        if kept:
            raise TypeError(
                f"{where} must be an address that outlives the call ({value_type.name}), "
                f"got {describe(value)}: return its address, and see that it is kept"
            )
        if address is not NotImplemented:
            return int(address)
    if value_type.name in MEMORY_POINTERS:
        found = address_in_ctypes(value)
        if found is None:
            found = _of_parameter(value)
        if found is not None:
            return found
    error = None
    if hasattr(type(value), "__index__"):
        try:
            return value_type.to_bits(value, where)
        except TypeError as reason:
            error = reason
    from asm_libcalls.signatures.held_buffers import exports_buffers

    hint = ", whose memory nothing would hold" if exports_buffers(value) else ""
    raise TypeError(
        f"{where} must be an address (int), None or an owner of an address ({value_type.name}), "
        f"got {describe(value)}{hint}"
    ) from error


def release(held: list[Any]) -> None:
    """Release the buffers that a call holds, and drop the objects that it keeps."""
    while held:
        kept = held.pop()
        if not isinstance(kept, tuple):
            kept.release()


def _number(value_type: ValueType, argument: Any, where: str) -> int:
    type_ = type(argument)
    if argument is None or hasattr(type_, "__index__"):
        return value_type.to_bits(argument, where)
    if value_type.name in MEMORY_POINTERS:
        memory = "a buffer" if value_type.name == CONST_POINTER else "a writable buffer"
        expected = f"an address (int), None, {memory} or an owner of an address"
    else:
        owner = _OWNERS.get(value_type.name, "an owner of an address")
        comma = "," if " or " in owner else " or"
        expected = f"an address (int), None{comma} {owner}"
    hint = ""
    if type_ is str:
        hint = ", which has no bytes before it is encoded"
    elif type_ is _Builtin and value_type.name in MEMORY_POINTERS:
        hint = ", which has no C address: a Libcall has one, and what catch_traps makes"
    raise TypeError(
        f"{where} must be {expected} ({value_type.name}), got {describe(argument)}{hint}"
    )


def address_in_ctypes(value: Any) -> int | None:
    """Return the address that an object of ctypes holds or refers to; None for others."""
    if "_ctypes" not in sys.modules:
        return None
    import ctypes

    if is_pointer(type(value)):
        return ctypes.c_void_p.from_buffer(value).value or 0
    if type(value) is type(ctypes.byref(ctypes.c_int())):
        try:
            return ctypes.cast(value, ctypes.c_void_p).value or 0
        except (TypeError, ctypes.ArgumentError):  # made by `from_param`, and no pointer
            return None
    return None


def is_pointer(type_: Any) -> bool:
    """Return whether a type is one of ctypes whose objects hold a pointer."""
    import _ctypes

    return issubclass(type_, (_ctypes._Pointer, _ctypes.CFuncPtr)) or (
        issubclass(type_, _ctypes._SimpleCData) and type_._type_ in _POINTER_CODES
    )


def _of_parameter(value: Any) -> int | None:
    """Return the address of an object's ``_as_parameter_``, as ctypes does; None without one."""
    parameter = getattr(value, "_as_parameter_", None)
    if type(parameter) is int and parameter >> POINTER_BITS == 0:
        return parameter
    return None if parameter is None else address_in_ctypes(parameter)
