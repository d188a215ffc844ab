"""Thunks: C addresses in machine code, each of which calls one Python function."""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.emitter import libc
from asm_libcalls.native import greenlets, record_readers
from asm_libcalls.native.host_function import call_closed, refuse_result, result_converter
from asm_libcalls.native.pooled import Pooled
from asm_libcalls.signatures import Signature
from asm_libcalls.x86_64 import code_cache
from asm_libcalls.x86_64.trampolines import CALL_PYTHON, call_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage


class ThunkPool:
    """The thunks of this process, made on demand, an image of them at a time."""

    def __init__(self, call_python: int) -> None:
        self._call_python = call_python
        self._free: list[tuple[LoadedImage, str]] = []
        self._used: dict[int, tuple[Any, ...]] = {}  # address -> record, and what it borrows
        self._closed = self._record(call_closed, Signature("()"))
        call_records.set_owner(self._closed[0], self._closed)
        libc.never_free(self)

    def thunk(self, function: Callable[..., Any], signature: Signature, bits: bool) -> Thunk:
        """Return a C address for a callable."""
        return self.thunk_of_record(*self._record(function, signature, bits))

    def thunk_of_record(self, *kept: Any) -> Thunk:
        """Return a C address for a record; `kept` is the record, then the objects it borrows."""
        greenlets.notice()
        call_records.set_owner(kept[0], kept)
        return Thunk(self._free, self._more, partial(self._reset, kept[0]), self._used, kept)

    def _reset(self, record: Any, item: tuple[LoadedImage, str]) -> None:
        # `record` and not `kept`, which holds the callable: that can be freed before the Thunk.
        loaded, name = item
        loaded.set_slot(name, ctypes.addressof(self._closed[0]))
        call_records.set_convert(record, refuse_result)
        record_readers.wait()
        self._used.pop(loaded.routine(name), None)

    def _more(self) -> None:
        # Without a lock, since a destructor that runs in it may need a thunk. Threads that do this
        # at once make an image each.
        loaded = code_cache.load("thunks")
        loaded.set_slot(CALL_PYTHON, self._call_python)
        for name in call_records.THUNKS:
            loaded.set_slot(name, ctypes.addressof(self._closed[0]))
        self._free += [(loaded, name) for name in call_records.THUNKS]

    def _record(
        self, function: Callable[..., Any], signature: Signature, bits: bool = False
    ) -> tuple[Any, ...]:
        convert = result_converter(function, signature, bits)
        if any(t.bits not in (32, 64) for t in (*signature.parameters, signature.result) if t):
            function = _of_words(function, signature, bits, convert)
        return call_records.make_record(function, convert, signature, bits), function, convert


class Thunk(Pooled):
    """A C address that calls a Python function, until it is closed, or dropped and not kept.

    A call that runs meanwhile continues; its result is refused if it needs a conversion.
    """

    __slots__ = ()

    def __init__(
        self,
        free: list[Any],
        make_more: Callable[[], None],
        reset: Callable[[Any], None],
        used: dict[int, tuple[Any, ...]],
        kept: tuple[Any, ...],
    ) -> None:
        super().__init__(free, make_more, reset)
        loaded, name = self.item
        self.address = loaded.routine(name)
        used[self.address] = kept
        loaded.set_slot(name, ctypes.addressof(kept[0]))

    def keep(self) -> None:
        """Let the address be valid until :meth:`close`, also if this object is dropped."""
        if self._taken:
            self.item[0].keep()
        self._release = None


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
