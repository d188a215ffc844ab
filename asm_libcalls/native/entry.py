"""The entry from Python into native code through machine code.

Machine code keeps each thread's activations in a list (``x86_64/trampolines/enter_and_raise.py``).
A Python exception crosses native frames as the thread's error indicator, which stays unchanged from
the callback that raised it to the entry.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.activation import (
    TRAPPED,
    Departure,
    NativeCall,
    ThreadRecord,
    argument_offset,
)
from asm_libcalls.calling_convention import INTEGERS, STACK, assign, bank_of
from asm_libcalls.native import process
from asm_libcalls.traps import Trap
from asm_libcalls.x86_64.trampolines import FIND_DEPARTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from asm_libcalls.signatures import Signature

__all__ = ["MachineEntry", "raise_status"]

MAXIMUM_STACK_ARGUMENTS = 1000
"""A limit, because the arguments must fit the stack."""


def raise_status(status: int) -> None:
    """Raise the exception of a nonzero status, except ``EXCEPTION``, which is raised already."""
    if status & ~0xFFFFFFFF == TRAPPED:
        trap = Trap(status & 0xFFFFFFFF)
        if process.machine_entry is not None:
            trap.trace = process.machine_entry.trace()
            process.tell_observers(trap)
        try:
            raise trap
        finally:
            del trap  # this frame is in its traceback: that would be a cycle
    raise MemoryError("no memory for this thread's record of activations")


class _Layout:
    """The places of a signature's values in the words of a NativeCall and the stack after it.

    Attributes
    ----------
    words : type
        The array of 64-bit words.
    places : tuple of int
        The word of each argument.
    wide : tuple of int
        The numbers of the arguments of two words.
    narrow : tuple of int
        The numbers of the signed arguments of less than 32 bits.
    stack_count : int
        The words on the stack.
    result : int
        The word of the result.
    """

    __slots__ = ("narrow", "places", "result", "stack_count", "wide", "words")

    def __init__(self, signature: Signature) -> None:
        assignment = assign(signature.parameters)
        if assignment.stack > MAXIMUM_STACK_ARGUMENTS:
            raise ValueError(f"a signature of {len(signature.parameters)} parameters: too many")
        self.words: Any = ctypes.c_uint64 * (_CALL_WORDS + assignment.stack)
        self.places = tuple(
            _CALL_WORDS + place.number if place.bank == STACK else argument_offset(place) // 8
            for place in assignment.places
        )
        self.wide = tuple(i for i, t in enumerate(signature.parameters) if t.bits > 64)
        self.narrow = tuple(
            i for i, t in enumerate(signature.parameters) if t.extended(t.mask) != t.mask
        )
        self.stack_count = assignment.stack
        self.result = 0
        if signature.result is not None:
            in_integers = bank_of(signature.result) == INTEGERS
            field = NativeCall.integer_results if in_integers else NativeCall.float_result
            self.result = field.offset // 8


_layouts: dict[str, _Layout] = {}
_CALL_WORDS = ctypes.sizeof(NativeCall) // 8
_STACK_ARGUMENTS = NativeCall.stack_arguments.offset // 8
_STACK_COUNT = NativeCall.stack_count.offset // 8


def _layout(signature: Signature) -> _Layout:
    layout = _layouts[signature] = _Layout(signature)
    return layout


class MachineEntry:
    """Calls through ``x86_64/trampolines/enter_and_raise.py``; a trap unwinds native frames."""

    def __init__(self, enter_address: int, activations_key: int) -> None:
        from asm_libcalls.emitter import libc

        self._key = activations_key
        self._record = libc.prototype("pthread_getspecific", ctypes.c_size_t, ctypes.c_uint)
        # With PYFUNCTYPE ctypes raises the error indicator that a callback has set. The entry
        # routine itself releases the GIL during the call.
        self._enter = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(enter_address)

    def call(self, address: int, signature: Signature, patterns: Sequence[int]) -> int:
        """Call a C address with bit patterns; return the result's pattern or raise."""
        layout = _layouts.get(signature) or _layout(signature)
        words = layout.words(address)
        for at, pattern in zip(layout.places, patterns, strict=True):
            words[at] = pattern  # its low 64 bits
        for i in layout.narrow:
            words[layout.places[i]] = signature.parameters[i].extended(patterns[i])
        for i in layout.wide:
            words[layout.places[i] + 1] = patterns[i] >> 64
        where = ctypes.addressof(words)
        if layout.stack_count:
            words[_STACK_ARGUMENTS] = where + ctypes.sizeof(NativeCall)
            words[_STACK_COUNT] = layout.stack_count
        status = self._enter(where)
        if status:
            raise_status(status)
        result = signature.result
        if result is None:
            return 0
        pattern = words[layout.result]
        if result.bits > 64:
            pattern |= words[layout.result + 1] << 64
        return int(pattern) & result.mask

    def record(self) -> ThreadRecord | None:
        """Return the record of this thread; None if it has never entered native code."""
        address = self._record(self._key)
        return ThreadRecord.from_address(address) if address else None

    def trace(self) -> tuple[int, ...]:
        """Return the return addresses of the frames that this thread's last trap unwound."""
        address = self._record(self._key)
        if not address:
            return ()
        record = ThreadRecord.from_address(address)
        return tuple(record.trace[: record.trace_count])

    def newest_departure(self, owner: int) -> Departure | None:
        """Return this thread's newest departure, of `owner` unless that is 0."""
        record = self.record()
        if record is None:
            return None
        address = record.departures
        if owner:
            assert process.image is not None
            prototype = ctypes.PYFUNCTYPE(ctypes.c_size_t, ctypes.c_size_t, ctypes.c_size_t)
            find = prototype(process.image.routine(FIND_DEPARTURE))
            address = find(ctypes.addressof(record), owner)
        return Departure.from_address(address) if address else None

    def departures(self) -> Iterator[Departure] | None:
        """Iterate over this thread's departures, the newest first.

        None if native code called Python without a departure: its frames are not known.
        """
        record = self.record()
        if record is None:
            return iter(())
        return None if record.innermost else _linked(record.departures)


def _linked(address: int) -> Iterator[Departure]:
    while address:
        departure = Departure.from_address(address)
        address = departure.next  # read before the caller's code runs
        yield departure
