"""Thunks: C addresses in machine code, each of which calls one Python function."""

from __future__ import annotations

import ctypes

from asm_libcalls.emitter import libc
from asm_libcalls.native import greenlets
from asm_libcalls.native.host_results import call_closed, refuse_result, result_converter
from asm_libcalls.signatures import Signature
from asm_libcalls.x86_64 import code_cache
from asm_libcalls.x86_64.trampolines import CALL_PYTHON, THUNKS, call_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["ThunkPool"]


class ThunkPool:
    """The thunks of this process, made on demand, an image of them at a time."""

    def __init__(self, call_python: int) -> None:
        self._call_python = call_python
        self._free: list[tuple[LoadedImage, str]] = []
        self._used: dict[int, tuple[Any, ...]] = {}  # address -> record, and what it borrows
        self._closed = self._record(call_closed, Signature("()"))
        call_records.set_owner(self._closed[0], self._closed)
        libc.never_free(self)

    def address_of(
        self, function: Callable[..., Any], signature: Signature, bits: bool
    ) -> tuple[int, Callable[[], None]]:
        """Return a C address for a callable, and a function that frees it."""
        return self.address_of_record(*self._record(function, signature, bits))

    def address_of_record(self, *kept: Any) -> tuple[int, Callable[[], None]]:
        """Return a C address for a record, and a function that frees it.

        `kept` is the record, then the objects that it borrows. A call that runs during the release
        continues; its result is refused if it needs a conversion.
        """
        greenlets.notice()
        record = kept[0]  # and not `kept`, which holds the callable: for release()
        call_records.set_owner(record, kept)
        loaded, name = self._take()
        address = loaded.routine(name)
        self._used[address] = kept
        loaded.set_slot(name, ctypes.addressof(record))

        def release() -> None:
            loaded.set_slot(name, ctypes.addressof(self._closed[0]))
            call_records.set_convert(record, refuse_result)
            if self._used.pop(address, None) is not None:
                self._free.append((loaded, name))

        return address, release

    def _take(self) -> tuple[LoadedImage, str]:
        while True:
            try:
                return self._free.pop()  # one operation: threads never get the same one
            except IndexError:
                # Without a lock, since a destructor that runs in it may need a thunk. Threads that
                # do this at once make an image each.
                self._more()

    def _more(self) -> None:
        loaded = code_cache.load("thunks")
        loaded.set_slot(CALL_PYTHON, self._call_python)
        for name in THUNKS:
            loaded.set_slot(name, ctypes.addressof(self._closed[0]))
            self._free.append((loaded, name))

    def _record(
        self, function: Callable[..., Any], signature: Signature, bits: bool = False
    ) -> tuple[Any, ...]:
        convert = result_converter(function, signature, bits)
        if any(t.bits not in (32, 64) for t in (*signature.parameters, signature.result) if t):
            function = _of_words(function, signature, bits, convert)
        return call_records.make_record(function, convert, signature, bits), function, convert


def _of_words(
    function: Callable[..., Any],
    signature: Signature,
    bits: bool,
    convert: Callable[[Any], int | None],
) -> Callable[..., Any]:
    """Wrap a callable of numbers as one of 64-bit words, which a record passes."""

    def call(*words: int) -> Any:
        rest = iter(words)
        values = []
        for value_type in signature.parameters:
            value = next(rest)
            if value_type.bits not in (32, 64):
                if value_type.bits > 64:
                    value |= next(rest) << 64
                value &= value_type.mask
                if not bits:
                    value = value_type.from_bits(value)
            values.append(value)
        value = function(*values)
        result = signature.result
        if result is None or result.bits in (32, 64):
            return value
        pattern = convert(value) or 0
        if result.bits > 64:
            ctypes.c_uint64.from_address(next(rest)).value = pattern >> 64
        return result.extended(pattern) & (1 << 64) - 1

    return call
