"""``HostFunction``: a Python callable with a C address, for generated code to call.

With machine code, an exception of the callable unwinds the native frames of its caller, and the
Python call that entered them (:func:`asm_libcalls.catch_traps`) raises it unchanged, also a Trap.
Without machine code the address is a ctypes callback's: the exception is raised when native code
has returned.
"""

from __future__ import annotations

from asm_libcalls.native import process
from asm_libcalls.owned.objects import Owned, unmade
from asm_libcalls.signatures import MEMORY_POINTERS, Signature
from asm_libcalls.signatures.arguments import shown
from asm_libcalls.signatures.pointers import address_of_result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class HostFunction(Owned):
    """A Python callable with a C address.

    Parameters
    ----------
    function : callable
        Called with one Python number for each parameter, a pointer's address for a pointer. Its
        return value is the result: a Python number; for a pointer an int, None, or an owner of an
        address (a HostFunction, a ctypes pointer or function), which the callable keeps alive.
    signature : str
        The C signature of the address.
    bits : bool, optional
        Pass bit patterns (unsigned integers) instead of numbers, so NaNs keep their bits.

    Attributes
    ----------
    address : int
        The C address, valid until :meth:`close`. Native code may hold it at any time, so the object
        and the callable stay alive until the close. A later call raises RuntimeError, until another
        host function reuses the address.
    signature : Signature
    """

    __slots__ = ("_entry",)  # the address, for machine code; 0 once it is closed
    _readable_member = ("pointer", "_entry")
    function: Callable[..., Any] = unmade()
    signature: Signature = unmade()
    _address: int = unmade()
    _closes_when_dropped = False  # native code may have its address

    def __init__(self, function: Callable[..., Any], signature: str, *, bits: bool = False) -> None:
        self._begin()
        if not callable(function):
            raise TypeError(f"HostFunction(): function must be callable, got {shown(function)}")
        self.signature = Signature.of(signature, "HostFunction(): signature")
        self.function = function
        self._thunk = process.interface.thunk(function, self.signature, bits)
        self._entry = self._address = self._thunk.address
        self._finish()
        self._thunk.keep()

    def __repr__(self) -> str:
        state = f"at {self._address:#x}" if not self.closed else "closed"
        return f"<HostFunction {self.function!r} {self.signature} {state}>"

    @property
    def address(self) -> int:
        """The C address."""
        self._check_open()
        return self._address

    def __native_address__(self, kind: str) -> Any:
        if kind not in MEMORY_POINTERS:
            return NotImplemented
        return self.address

    def close(self) -> None:
        """Release the address. Native code must not call it any more.

        A running call continues, and its result is returned; a result that is not exactly a number
        of the result's type and range is then a RuntimeError.
        """
        super().close()

    def _release(self) -> None:
        self._entry = 0
        self._thunk.close()


def result_converter(
    function: Callable[..., Any], signature: Signature, bits: bool
) -> Callable[[Any], int | None]:
    """Return a function that converts a host function's result to its bit pattern, or raises.

    Errors name `function`. With `bits`, the results are bit patterns already.
    """
    result = signature.result
    where = f"the result of host function {getattr(function, '__qualname__', '') or function!r}"

    def convert(value: Any) -> int | None:
        if result is None:
            return None
        if bits:
            return result.check_pattern(value, where)
        if result.kind == "pointer":
            return address_of_result(result, value, where)
        return result.to_bits(value, where)

    return convert


def call_closed(*arguments: Any) -> None:
    """Raise the error for native code that calls a closed host function."""
    raise RuntimeError("native code called a host function that was closed")


def refuse_result(value: Any) -> NoReturn:
    """Raise the error for a function closed during its call, whose result needs a conversion."""
    raise RuntimeError(
        "the host function was closed while it ran, and its result "
        f"({type(value).__name__}) does not fit as it is"
    )
