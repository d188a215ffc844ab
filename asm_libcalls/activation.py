"""Activations: the C structures for entering and leaving native code.

Machine code and Python both read them; only this module declares their layout. An *activation* is
one entry into native code that has not ended. A thread's activations form a list, innermost first,
which begins in its :class:`ThreadRecord`.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.calling_convention import (
    FLOAT_REGISTERS,
    INTEGER_REGISTERS,
    INTEGER_RESULTS,
    INTEGERS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.calling_convention import Place

__all__ = [
    "EXCEPTION",
    "MAXIMUM_TRACE",
    "NO_MEMORY",
    "TRAPPED",
    "Activation",
    "Departure",
    "NativeCall",
    "StoreLock",
    "ThreadRecord",
    "argument_offset",
]


class NativeCall(ctypes.Structure):
    """One call, the argument of ``asm_libcalls_enter``: registers to load, and results.

    Attributes
    ----------
    address : address
        The function to call.
    integers, floats : array
        The argument registers, in the order of :mod:`asm_libcalls.calling_convention`. A float
        register has 16 bytes; a float or double is in the first ones.
    stack_arguments, stack_count : address, int
        The eightbytes to put on the stack, and their number.
    integer_results : array
        rax and rdx after the call.
    float_result : array
        xmm0 after the call.
    """

    _fields_ = [
        ("address", ctypes.c_uint64),
        ("integers", ctypes.c_uint64 * len(INTEGER_REGISTERS)),
        ("stack_arguments", ctypes.c_uint64),
        # At multiples of 16 bytes, so that none crosses a cache line.
        ("floats", ctypes.c_uint64 * 2 * len(FLOAT_REGISTERS)),
        ("float_result", ctypes.c_uint64 * 2),
        ("stack_count", ctypes.c_uint64),
        ("integer_results", ctypes.c_uint64 * len(INTEGER_RESULTS)),
    ]


class Activation(ctypes.Structure):
    """One entry into native code, on its own stack.

    Attributes
    ----------
    thread : address
        The :class:`ThreadRecord` of its thread.
    previous : address
        The activation that was running on this thread at the entry. Usually 0; not if native code
        called Python without a thunk of this library.
    landing : address
        The address that a trap jumps to, with the registers below restored.
    stack_pointer, frame_pointer : address
        rsp and rbp of the entry routine. The frame pointer is also the canary that a stack walk
        must find.
    status : int
        0, or the status of a raise: see :data:`TRAPPED` and :data:`EXCEPTION`.
    thread_state : address
        The ``PyThreadState*`` of the thread, also if the entry keeps the GIL.
    owner : address
        The greenlet that entered, if the thread had called Python from native code before; else 0,
        also without greenlets.
    store : address
        The :class:`StoreLock` that the callee has entered, to be left at the end; else 0.
    mxcsr, x87_control : int
        The caller's floating-point modes, which the ABI requires to be restored.
    """

    _fields_ = [
        ("thread", ctypes.c_uint64),
        ("previous", ctypes.c_uint64),
        ("landing", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("frame_pointer", ctypes.c_uint64),
        ("status", ctypes.c_uint64),
        ("thread_state", ctypes.c_uint64),
        ("owner", ctypes.c_uint64),
        ("store", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint32),
        ("x87_control", ctypes.c_uint32),
    ]


class Departure(ctypes.Structure):
    """One call of Python by native code that has not returned, on the heap.

    While Python runs, the thread has no innermost activation. Greenlets move stacks away and back
    during that time, so only the running greenlet's stack can be read in place.

    Attributes
    ----------
    next : address
        The departure before it on this thread, or 0.
    link : address
        The pointer to this one: the record's `departures`, or `next` of the later departure.
    thread : address
        The :class:`ThreadRecord` of its thread.
    owner : address
        The greenlet that called Python; 0 if greenlet was not imported then.
    activation : address
        The activation that was left, or 0 if native code was not entered through this library.
    exit_frame_pointer : address
        The frame of the thunk, where a stack walk begins.
    canary : address
        The activation's frame pointer, where the walk ends; 0 without an activation.
    stack_limit : address
        The activation's stack limit: see :class:`ThreadRecord`.
    serial : int
        Counts the departures of the thread; 0 once this one has returned.
    frames : address
        A copy of the stack from `exit_frame_pointer` to the canary, if `owner` is known and the
        stack is not too long; else 0.
    buffer, capacity : int
        The memory for such copies, and its size in bytes.
    """

    _fields_ = [
        ("next", ctypes.c_uint64),
        ("link", ctypes.c_uint64),
        ("thread", ctypes.c_uint64),
        ("owner", ctypes.c_uint64),
        ("activation", ctypes.c_uint64),
        ("exit_frame_pointer", ctypes.c_uint64),
        ("canary", ctypes.c_uint64),
        ("stack_limit", ctypes.c_uint64),
        ("serial", ctypes.c_uint64),
        ("frames", ctypes.c_uint64),
        ("buffer", ctypes.c_uint64),
        ("capacity", ctypes.c_uint64),
    ]


class StoreLock(ctypes.Structure):
    """The lock of a store, in builds without the GIL; ``store_locks.py`` describes its use.

    Attributes
    ----------
    owner : int
        The thread pointer of the thread inside, or 0; the lowest bit says that threads wait.
    depth : int
        How often that thread has entered and not left.
    entered : address
        Its stack pointer at its first entry.
    """

    _fields_ = [
        ("owner", ctypes.c_uint64),
        ("depth", ctypes.c_uint64),
        ("entered", ctypes.c_uint64),
    ]


MAXIMUM_TRACE = 64
"""The most return addresses that a trap keeps."""


class ThreadRecord(ctypes.Structure):
    """The value of the pthread key ``activations_key``: one for each thread that entered.

    Attributes
    ----------
    innermost : address
        The :class:`Activation` whose native code runs, or 0 while Python does.
    departures : address
        The newest :class:`Departure` of all greenlets of the thread, or 0.
    free_departures : address
        Unused structures for departures, linked by `next`.
    departed : int
        The serial number of the last departure.
    stack_limit : address
        The lowest stack pointer allowed for the running native code, if it has called
        ``asm_libcalls_stack_limit``; else 0.
    stack_low, stack_size : int
        The thread's stack, if it is known.
    stack_reserve : int
        The bytes at the stack's low end that native code must not use.
    trace_count : int
        The number of entries of `trace` that the last trap wrote.
    trace : array of address
        The return address into the code that raised the last trap, then those of its callers by
        frame pointer, up to the entry.
    interrupts : address
        The VMInterrupts of this thread, for code with stack checks; 0 until they are made.
    """

    _fields_ = [
        ("innermost", ctypes.c_uint64),
        ("departures", ctypes.c_uint64),
        ("free_departures", ctypes.c_uint64),
        ("departed", ctypes.c_uint64),
        ("stack_limit", ctypes.c_uint64),
        ("stack_low", ctypes.c_uint64),
        ("stack_size", ctypes.c_uint64),
        ("stack_reserve", ctypes.c_uint64),
        ("trace_count", ctypes.c_uint64),
        ("trace", ctypes.c_uint64 * MAXIMUM_TRACE),
        ("interrupts", ctypes.c_uint64),
    ]


TRAPPED = 1 << 32
"""Status: native code trapped, with the trap code in the low 32 bits."""

EXCEPTION = 2 << 32
"""Status: a callback raised a Python exception, and the thread's error indicator is set."""

NO_MEMORY = 3 << 32
"""Status: the thread's record could not be made (``calloc`` or ``pthread_setspecific`` failed)."""


def argument_offset(place: Place) -> int:
    """Return the offset of an argument register in a :class:`NativeCall`, in bytes."""
    if place.bank == INTEGERS:
        return int(NativeCall.integers.offset) + 8 * place.number
    return int(NativeCall.floats.offset) + 16 * place.number
