"""The entry from Python into native code through machine code; it raises traps as exceptions.

Machine code keeps each thread's activations in a list (``x86_64/trampolines/enter_and_raise.py``).
A Python exception crosses native frames as the thread's error indicator, which stays unchanged from
the callback that raised it to the entry.
"""

from __future__ import annotations

from itertools import count

from asm_libcalls.activation import (
    REPORTED,
    TRAPPED,
    Activation,
    Departure,
    NativeCall,
    ThreadRecord,
    argument_offset,
)
from asm_libcalls.calling_convention import INTEGERS, STACK, assign, bank_of
from asm_libcalls.emitter import code_names, libc
from asm_libcalls.native import process
from asm_libcalls.signatures import Signature, c_types
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.traps import trap_of
from asm_libcalls.x86_64.trampolines import FIND_DEPARTURE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

if not HAS_GIL:
    # Now, not at the first trap: the child of a fork in the middle of another thread's import waits
    # for ever when it imports the module.
    from asm_libcalls.native import backtraces as _  # noqa: F401

MAXIMUM_STACK_ARGUMENTS = 1000
"""A limit, because the arguments must fit the stack."""


def raise_status(status: int) -> None:
    """Raise the exception of a nonzero status, except ``EXCEPTION``, which is raised already."""
    if status & ~0xFFFFFFFF == TRAPPED:
        # First: later lines may run Python code that enters native code and leaves another trace.
        trace = process.machine_entry.take_trace() if process.machine_entry is not None else None
        trap = trap_of(status & 0xFFFFFFFF)
        if trace is not None:
            process.tell_observers(trap, trace)
        try:
            raise trap
        finally:
            del trap  # this frame is in its traceback: that would be a cycle
    if status & ~0xFFFFFFFF == REPORTED:
        raise _reported.pop(status & 0xFFFFFFFF)
    raise MemoryError("no memory for this thread's record of activations")


_numbers = count()
_reported: dict[int, BaseException] = {}
"""Exceptions of ctypes callbacks that activations will raise, by their numbers."""


def note_exception(error: BaseException) -> None:
    """Add the functions that a host function's exception has unwound, if any have names."""
    if code_names.are_traced() and process.machine_entry is not None:
        from asm_libcalls.native.backtraces import note_exception

        # The first word is not a return address: the frame of call_python.py is still there.
        note_exception(error, process.machine_entry.take_trace()[1:])


class _Layout:
    """The places of a signature's values in the words of a NativeCall and the stack after it."""

    __slots__ = ("narrow", "places", "result", "stack_count", "wide", "words")

    def __init__(self, signature: Signature) -> None:
        assignment = assign(signature.parameters)
        if assignment.stack > MAXIMUM_STACK_ARGUMENTS:
            raise ValueError(f"a signature of {len(signature.parameters)} parameters: too many")
        # the array of 64-bit words
        self.words: Any = c_types.c_uint64 * (_CALL_WORDS + assignment.stack)
        # the word of each argument
        self.places = tuple(
            _CALL_WORDS + place.number if place.bank == STACK else argument_offset(place) // 8
            for place in assignment.places
        )
        # the numbers of the arguments of two words
        self.wide = tuple(i for i, t in enumerate(signature.parameters) if t.bits > 64)
        # the numbers of the signed arguments of less than 32 bits
        self.narrow = tuple(
            i for i, t in enumerate(signature.parameters) if t.extended(t.mask) != t.mask
        )
        self.stack_count = assignment.stack  # the words on the stack
        self.result = 0  # the word of the result
        if signature.result is not None:
            in_integers = bank_of(signature.result) == INTEGERS
            field = NativeCall.integer_results if in_integers else NativeCall.float_result
            self.result = field.offset // 8


_layouts: dict[str, _Layout] = {}
_CALL_WORDS = c_types.sizeof(NativeCall) // 8
_STACK_ARGUMENTS = NativeCall.stack_arguments.offset // 8
_STACK_COUNT = NativeCall.stack_count.offset // 8


def _layout(signature: Signature) -> _Layout:
    layout = _layouts[signature] = _Layout(signature)
    return layout


class MachineEntry:
    """Calls through ``x86_64/trampolines/enter_and_raise.py``; a trap unwinds native frames."""

    def __init__(self, enter_address: int, activations_key: int) -> None:
        self._key = activations_key
        self._record = libc.prototype("pthread_getspecific", c_types.c_size_t, c_types.c_uint32)
        # Such a function raises the error indicator that a callback has set. The entry
        # routine itself releases the GIL during the call.
        self._enter = libc.python_function_at(enter_address, c_types.c_uint64, c_types.c_void_p)

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
        where = c_types.addressof(words)
        if layout.stack_count:
            words[_STACK_ARGUMENTS] = where + c_types.sizeof(NativeCall)
            words[_STACK_COUNT] = layout.stack_count
        try:
            status = self._enter(where)
        except BaseException as error:  # of a host function, which may have unwound native frames
            note_exception(error)
            raise
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

    def take_trace(self) -> tuple[int, ...]:
        """Return the return addresses of the frames that this thread unwound last, once."""
        address = self._record(self._key)
        if not address:
            return ()
        record = ThreadRecord.from_address(address)
        count, record.trace_count = record.trace_count, 0
        return tuple(record.trace[:count])

    def raise_at_return(self, exception: BaseException) -> bool:
        """Let the innermost activation of this thread raise an exception when its callee returns.

        It is for ctypes callbacks, whose frames cannot be unwound. The first exception counts.
        Return False if this thread has no innermost activation.
        """
        record = self.record()
        if record is None or not record.innermost:
            return False
        activation = Activation.from_address(record.innermost)
        if not activation.status:
            number = next(_numbers) & 0xFFFFFFFF
            _reported[number] = exception
            activation.status = REPORTED | number
        return True

    def newest_departure(self, owner: int) -> Departure | None:
        """Return this thread's newest departure, of `owner` unless that is 0."""
        record = self.record()
        if record is None:
            return None
        address = record.departures
        if owner:
            assert process.image is not None
            number = c_types.c_size_t
            find = libc.python_function_at(
                process.image.routine(FIND_DEPARTURE), number, number, number
            )
            address = find(c_types.addressof(record), owner)
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
