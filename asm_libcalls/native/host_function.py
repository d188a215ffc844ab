"""Python callables as C addresses: what generated code calls when it calls the host.

With machine code, an exception that the callable raises unwinds the native frames of its caller
and arrives, unchanged, where Python entered them (:func:`asm_libcalls.catch_traps`). A Trap is an
exception like any other. Without machine code a ctypes callback serves: the exception is raised
when native code has returned.
"""

from __future__ import annotations

from asm_libcalls.native import process
from asm_libcalls.owned import Owned
from asm_libcalls.signatures import Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["HostFunction"]


class HostFunction(Owned):
    """A Python callable with a C address.

    Parameters
    ----------
    function : callable
        Called with one Python number for each parameter; its return value is the result.
    signature : str
        The C signature of the address.
    bits : bool, optional
        Give and take bit patterns (unsigned integers) instead of numbers: every NaN keeps its
        bits.

    Attributes
    ----------
    address : int
        The C address, valid until :meth:`close`. Nobody can know whether native code still holds
        it: so it keeps itself and the callable alive until it is closed. Called after that, it
        raises RuntimeError, until another host function takes its place.
    signature : Signature
    """

    _closes_when_dropped = False  # native code may have its address

    def __init__(self, function: Callable[..., Any], signature: str, *, bits: bool = False) -> None:
        self._begin()
        if not callable(function):
            raise TypeError(f"HostFunction(): function must be callable, got {function!r}")
        self.signature = Signature(signature)
        self.function = function
        if process.interface is None:
            raise RuntimeError("no C address for a Python function: nothing serves native code")
        self.address, self._give_back = process.interface.host_address(
            function, self.signature, bits
        )
        self._finish()

    def __repr__(self) -> str:
        state = f"at {self.address:#x}" if not self.closed else "closed"
        return f"<HostFunction {self.function!r} {self.signature} {state}>"

    def close(self) -> None:
        """Give the address back. No native code may call it from now on.

        A call that runs goes on, and its result counts; one that is no number of the result's
        type and range is a RuntimeError then.
        """
        super().close()

    def _release(self) -> None:
        self._give_back()
