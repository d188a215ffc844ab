"""Python callables as C addresses: what generated code calls when it calls the host.

With machine code, an exception that the callable raises unwinds the native frames of its caller
and arrives, unchanged, where Python entered them (:func:`asm_libcalls.catch_traps`). A Trap is an
exception like any other. Without machine code a ctypes callback serves: the exception is raised
when native code has returned.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from asm_libcalls.owned import NotCopied
from asm_libcalls.signatures import Signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["HostFunction", "ThunkPool", "call_closed", "result_converter"]


class HostFunction(NotCopied):
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

    def __init__(self, function: Callable[..., Any], signature: str, *, bits: bool = False) -> None:
        from asm_libcalls.binding import default_binding

        if not callable(function):
            raise TypeError(f"HostFunction(): function must be callable, got {function!r}")
        self.signature = Signature(signature)
        self.function = function
        self._release: Callable[[], None] | None
        self.address, self._release = default_binding().host_address(function, self.signature, bits)

    def __repr__(self) -> str:
        state = f"at {self.address:#x}" if self._release else "closed"
        return f"<HostFunction {self.function!r} {self.signature} {state}>"

    def close(self) -> None:
        """Give the address back. No native code may call it from now on."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __enter__(self) -> HostFunction:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class ThunkPool:
    """The thunks of this process, made as they are needed, an image of them at a time."""

    def __init__(self, call_python: int) -> None:
        self._call_python = call_python
        self._free: list[tuple[LoadedImage, str]] = []
        self._used: dict[int, tuple[Any, ...]] = {}  # address -> record, and what it borrows
        self._closed = self._record(call_closed, Signature("()"))
        self._making = allocate_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        # The thread that held it, if any, is not in the child.
        self._making = allocate_lock()

    def address_of(
        self, function: Callable[..., Any], signature: Signature, bits: bool
    ) -> tuple[int, Callable[[], None]]:
        """Return a C address for a callable, and what frees it."""
        return self.address_of_record(*self._record(function, signature, bits))

    def address_of_record(self, *kept: Any) -> tuple[int, Callable[[], None]]:
        """Return a C address for a record, given with what it borrows, and what frees it."""
        import ctypes

        loaded, name = self._take()
        address = loaded.routine(name)
        self._used[address] = kept
        loaded.set_slot(name, ctypes.addressof(kept[0]))

        def release() -> None:
            loaded.set_slot(name, ctypes.addressof(self._closed[0]))
            del self._used[address]
            self._free.append((loaded, name))

        return address, release

    def _take(self) -> tuple[LoadedImage, str]:
        while True:
            try:
                return self._free.pop()  # one operation: threads never get the same one
            except IndexError:
                with self._making:  # the assembler is one for all threads
                    if not self._free:
                        self._more()

    def _more(self) -> None:
        import ctypes

        from asm_libcalls.x86_64 import code_cache
        from asm_libcalls.x86_64.trampolines import call_python

        loaded = code_cache.load("thunks")
        loaded.set_slot(call_python.CALL_PYTHON, self._call_python)
        for name in call_python.THUNKS:
            loaded.set_slot(name, ctypes.addressof(self._closed[0]))
            self._free.append((loaded, name))

    def _record(
        self, function: Callable[..., Any], signature: Signature, bits: bool = False
    ) -> tuple[Any, ...]:
        from asm_libcalls.x86_64.trampolines import call_records

        convert = result_converter(function, signature, bits)
        return call_records.make_record(function, convert, signature, bits), function, convert


def result_converter(
    function: Callable[..., Any], signature: Signature, bits: bool
) -> Callable[[Any], int | None]:
    """Return what makes the bit pattern of a host function's result, or raises.

    Parameters
    ----------
    function : callable
        To name in an error.
    signature : Signature
    bits : bool
        Whether the results are bit patterns already.
    """
    result = signature.result
    where = f"the result of host function {getattr(function, '__qualname__', '') or function!r}"

    def convert(value: Any) -> int | None:
        if result is None:
            return None
        check = result.check_pattern if bits else result.to_bits
        return check(value, where)

    return convert


def call_closed(*arguments: Any) -> None:
    """Raise what native code gets that calls a closed host function."""
    raise RuntimeError("native code called a host function that was closed")
