"""Activations: the C structures for entering and leaving native code.

Machine code and Python read them, and only this module declares their layout. An *activation* is
one entry into native code that has not ended. A thread's activations form a list, innermost first,
which begins in its :class:`ThreadRecord`.
"""

from __future__ import annotations

from asm_libcalls.calling_convention import (
    FLOAT_REGISTERS,
    INTEGER_REGISTERS,
    INTEGER_RESULTS,
    INTEGERS,
)
from asm_libcalls.signatures import c_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.calling_convention import Place


class NativeCall(c_types.Structure):
    """One call, the argument of ``asm_libcalls_enter``: registers to load, and results."""

    _fields_ = (
        ("address", c_types.c_uint64),  # the function to call
        # `integers`, `floats`: The argument registers, in the order of
        # asm_libcalls.calling_convention. A float register has 16 bytes; a float or double is in
        # the first ones.
        ("integers", c_types.c_uint64 * len(INTEGER_REGISTERS)),
        # `stack_arguments`, `stack_count`: the eightbytes to put on the stack, and their number
        ("stack_arguments", c_types.c_uint64),
        # At multiples of 16 bytes, so that none crosses a cache line.
        ("floats", c_types.c_uint64 * 2 * len(FLOAT_REGISTERS)),
        ("float_result", c_types.c_uint64 * 2),  # xmm0 after the call
        ("stack_count", c_types.c_uint64),
        ("integer_results", c_types.c_uint64 * len(INTEGER_RESULTS)),  # rax and rdx after the call
    )


class Activation(c_types.Structure):
    """One entry into native code, on its own stack."""

    _fields_ = (
        ("thread", c_types.c_uint64),  # the ThreadRecord of its thread
        # The activation that was running on this thread at the entry. Usually 0; not if native code
        # called Python without a thunk of this library.
        ("previous", c_types.c_uint64),
        # the address that a trap jumps to, with the registers below restored
        ("landing", c_types.c_uint64),
        # `stack_pointer`, `frame_pointer`: rsp and rbp of the entry routine. The frame pointer is
        # also the canary that a stack walk must find.
        ("stack_pointer", c_types.c_uint64),
        ("frame_pointer", c_types.c_uint64),
        ("status", c_types.c_uint64),  # 0, or the status of a raise: see TRAPPED and EXCEPTION
        # the `PyThreadState*` of the thread, also if the entry keeps the GIL
        ("thread_state", c_types.c_uint64),
        # the greenlet that entered, if the thread has a departure; else 0, also without greenlets
        ("owner", c_types.c_uint64),
        # the StoreLock that the callee has entered, to be left at the end; else 0
        ("store", c_types.c_uint64),
        # `mxcsr`, `x87_control`: the caller's floating-point modes, which the ABI requires to be
        # restored
        ("mxcsr", c_types.c_uint32),
        ("x87_control", c_types.c_uint32),
    )


class Departure(c_types.Structure):
    """One call of Python by native code that has not returned, on the heap.

    While Python runs, the thread has no innermost activation. Greenlets move stacks away and back
    during that time, so only the running greenlet's stack can be read in place.
    """

    _fields_ = (
        ("next", c_types.c_uint64),  # the departure before it on this thread, or 0
        # the pointer to this one: the record's `departures`, or `next` of the later departure
        ("link", c_types.c_uint64),
        ("thread", c_types.c_uint64),  # the ThreadRecord of its thread
        # the greenlet that called Python; 0 if greenlet was not imported then
        ("owner", c_types.c_uint64),
        # the activation that was left, or 0 if native code was not entered through this library
        ("activation", c_types.c_uint64),
        # the frame of the thunk, where a stack walk begins
        ("exit_frame_pointer", c_types.c_uint64),
        # the activation's frame pointer, where the walk ends; 0 without an activation
        ("canary", c_types.c_uint64),
        ("stack_limit", c_types.c_uint64),  # the activation's stack limit: see ThreadRecord
        # counts the departures of the thread; 0 once this one has returned
        ("serial", c_types.c_uint64),
        # a copy of the stack from `exit_frame_pointer` to the canary, if `owner` is known and the
        # stack is not too long; else 0
        ("frames", c_types.c_uint64),
        # `buffer`, `capacity`: the memory for such copies, and its size in bytes
        ("buffer", c_types.c_uint64),
        ("capacity", c_types.c_uint64),
    )


MAXIMUM_TRACE = 64
"""The most return addresses that a trap keeps."""


class ThreadRecord(c_types.Structure):
    """The value of the pthread key ``activations_key``: one for each thread that entered."""

    _fields_ = (
        # the Activation whose native code runs, or 0 while Python does
        ("innermost", c_types.c_uint64),
        # the newest Departure of all greenlets of the thread, or 0
        ("departures", c_types.c_uint64),
        ("free_departures", c_types.c_uint64),  # unused structures for departures, linked by `next`
        ("departed", c_types.c_uint64),  # the serial number of the last departure
        # the lowest stack pointer allowed for the running native code, if it has called
        # `asm_libcalls_stack_limit`; else 0
        ("stack_limit", c_types.c_uint64),
        # `stack_low`, `stack_size`: the thread's stack, if it is known
        ("stack_low", c_types.c_uint64),
        ("stack_size", c_types.c_uint64),
        # the bytes at the stack's low end that native code must not use
        ("stack_reserve", c_types.c_uint64),
        # the number of entries of `trace` that the last trap wrote
        ("trace_count", c_types.c_uint64),
        # the return address into the code that raised the last trap, then those of its callers by
        # frame pointer, up to the entry
        ("trace", c_types.c_uint64 * MAXIMUM_TRACE),
        # the VMInterrupts of this thread, for code with stack checks; 0 until they are made
        ("interrupts", c_types.c_uint64),
        # whether it is not freed at the end of its thread, because another thread reads it
        ("is_kept", c_types.c_uint64),
    )


TRAPPED = 1 << 32
"""Status: native code trapped, with the trap code in the low 32 bits."""

EXCEPTION = 2 << 32
"""Status: a callback raised a Python exception, and the thread's error indicator is set."""

NO_MEMORY = 3 << 32
"""Status: the thread's record could not be made (``calloc`` or ``pthread_setspecific`` failed)."""

REPORTED = 4 << 32
"""Status: a ctypes callback raised an exception, and the native code has returned. The low 32 bits
are the exception's number (``native/entry.py``)."""


def argument_offset(place: Place) -> int:
    """Return the offset of an argument register in a :class:`NativeCall`, in bytes."""
    if place.bank == INTEGERS:
        return int(NativeCall.integers.offset) + 8 * place.number
    return int(NativeCall.floats.offset) + 16 * place.number
