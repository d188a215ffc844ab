"""C addresses for Python functions without machine code: ctypes callbacks.

Native code may call a callback after all Python references to it are gone, so it is never freed. A
released one is reused for the next function of its signature. Its exceptions go to
:func:`asm_libcalls.native.ctypes_entry.report`, since ctypes would only print them.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.native.ctypes_entry import (
    callback_functions,
    exact_type,
    pattern_of,
    report,
    thread_state,
)
from asm_libcalls.native.host_function import call_closed, result_converter
from asm_libcalls.native.pooled import Pooled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.signatures import Signature

_free: dict[tuple[str, bool], list[_Callback]] = {}


class _Callback:
    """A C address of one signature, and the function that it calls at present."""

    def __init__(self, signature: Signature, bits: bool) -> None:
        import ctypes

        self.signature = signature
        self.bits = bits
        prototype = signature.ctypes_prototype()
        result = signature.result
        self._widens = result is not None and result.name == "f32" and _has_halves()
        if bits or self._widens:
            arguments: Any = prototype._argtypes_
            if bits:  # ctypes would convert the arguments to numbers
                arguments = [exact_type(t.ctypes_name) for t in signature.parameters]
            # A signalling NaN of 32 bits would become quiet in a Python float.
            of_result = ctypes.c_double if self._widens else prototype._restype_
            prototype = ctypes.CFUNCTYPE(of_result, *arguments)
        try:
            self._native = prototype(self._call)
        except MemoryError as refusal:
            raise MemoryError(
                "no C address for a Python function: "
                "the system refuses ctypes executable memory for its callbacks"
            ) from refusal
        self.address = ctypes.cast(self._native, ctypes.c_void_p).value or 0
        self._is_kept = False

    def keep(self) -> None:
        if not self._is_kept:
            from asm_libcalls.emitter import libc

            libc.never_free(self._native)  # which refers to this object
            self._is_kept = True

    def stand_for(self, function: Callable[..., Any]) -> None:
        # One assignment: a running call continues with the pair that it has read.
        self._pair = function, result_converter(function, self.signature, self.bits)

    def _call(self, *values: Any) -> Any:
        result = self.signature.result
        # No context manager: a signal handler may raise wherever Python code is called.
        thread_state.callbacks += 1
        try:
            if self.bits:
                values = tuple(map(pattern_of, values))
            function, convert = self._pair
            pattern = convert(function(*values))
        except BaseException as exception:
            report(exception)
            pattern = 0
        finally:
            thread_state.callbacks -= 1
        if result is None:
            return None
        return _widened(pattern or 0) if self._widens else result.from_bits(pattern or 0)


def _has_halves() -> bool:
    """Return whether the float result register is the low half of the double result register.

    It is the half that comes first in memory: of xmm0 (System V ABI for AMD64, 3.2.3), of v0
    (Procedure Call Standard for Arm 64, 6.1.2), of f0 (ELF ABI s390x Supplement, "Registers").
    """
    import os
    import sys

    return sys.maxsize > 2**32 and os.uname().machine in ("x86_64", "aarch64", "s390x")


def _widened(pattern: int) -> float:
    """Return a double whose half is the float with a bit pattern."""
    import struct

    wide: float = struct.unpack("=d", struct.pack("=II", pattern, 0))[0]
    return wide


callback_functions.add(_Callback._call)


class CallbackThunk(Pooled):
    """A C address that calls a Python function, until it is closed, or dropped and not kept.

    With `bits`, the function takes and returns bit patterns instead of numbers.
    """

    __slots__ = ()

    def __init__(self, function: Callable[..., Any], signature: Signature, bits: bool) -> None:
        free = _free.setdefault((str(signature), bits), [])
        super().__init__(free, partial(_make_more, free, signature, bits), _reset)
        self.item.stand_for(function)
        self.address = self.item.address

    def keep(self) -> None:
        """Let the address be valid until :meth:`close`, also if this object is dropped."""
        if self._taken:
            self.item.keep()
        self._release = None


def _make_more(free: list[_Callback], signature: Signature, bits: bool) -> None:
    free += [_Callback(signature, bits)]


def _reset(callback: _Callback) -> None:
    callback.stand_for(call_closed)
