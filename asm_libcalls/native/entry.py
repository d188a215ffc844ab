"""Entering native code from Python, and what comes back: a result, a trap or an exception.

An *activation* is one entry into native code that has not ended. Machine code keeps each thread's
activations in a list (see ``x86_64/trampolines/enter.py``); :class:`MachineEntry` is the Python
side. Where there is no machine code, :class:`PythonEntry` keeps the list in Python: a trap that a
libcall raises is then reported when the native code returns by itself, since nothing can unwind
its frames.

A Python exception crosses native frames as what it is, the thread's error indicator: nothing of
ours touches it between the callback that raised it and the entry that gives it to Python.
"""

from __future__ import annotations

import ctypes
from _thread import _local

from asm_libcalls.calling_convention import (
    FLOAT_REGISTERS,
    INTEGER_REGISTERS,
    INTEGER_RESULTS,
    INTEGERS,
    STACK,
    assign,
    bank_of,
)
from asm_libcalls.traps import Trap
from asm_libcalls.unraisable import hear

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from asm_libcalls.calling_convention import Place
    from asm_libcalls.signatures import Signature

__all__ = ["Activation", "MachineEntry", "NativeCall", "PythonEntry"]

MAXIMUM_STACK_ARGUMENTS = 1000
"""A C function of more parameters is a mistake, and they must fit the stack."""


class NativeCall(ctypes.Structure):
    """One call, as ``asm_libcalls_enter`` takes it: registers to load, and results.

    Attributes
    ----------
    address : address
        What to call.
    integers, floats : array
        The argument registers, in the order of :mod:`asm_libcalls.calling_convention`. A float
        register has 16 bytes, of which a float or double uses the first ones.
    stack_arguments, stack_count : address, int
        The eightbytes to put on the stack, and how many they are.
    integer_results : array
        rax and rdx after the call.
    float_result : array
        xmm0 after the call.
    """

    _fields_ = [
        ("address", ctypes.c_uint64),
        ("integers", ctypes.c_uint64 * len(INTEGER_REGISTERS)),
        ("floats", ctypes.c_uint64 * 2 * len(FLOAT_REGISTERS)),
        ("stack_arguments", ctypes.c_uint64),
        ("stack_count", ctypes.c_uint64),
        ("integer_results", ctypes.c_uint64 * len(INTEGER_RESULTS)),
        ("float_result", ctypes.c_uint64 * 2),
    ]


class Activation(ctypes.Structure):
    """One entry into native code, on its own stack.

    Attributes
    ----------
    thread : address
        The :class:`ThreadRecord` of its thread.
    previous : address
        The activation below it on this thread, or 0.
    landing : address
        Where a trap jumps to, with the three registers below restored.
    stack_pointer, frame_pointer : address
        rsp and rbp of the entry routine. The frame pointer is also the canary that a stack walk
        must find.
    exit_frame_pointer : address
        The frame through which native code left to Python: where a stack walk begins. 0 while it
        runs itself; :data:`UNKNOWN_FRAMES` where it was not entered through us.
    status : int
        0, or what the raise brought: see :data:`TRAPPED` and :data:`EXCEPTION`.
    thread_state : address
        The ``PyThreadState*`` of the thread while this activation has released the GIL; 0 where it
        keeps the GIL.
    mxcsr, x87_control : int
        The floating-point modes of the caller, which the ABI has us give back.
    """

    _fields_ = [
        ("thread", ctypes.c_uint64),
        ("previous", ctypes.c_uint64),
        ("landing", ctypes.c_uint64),
        ("stack_pointer", ctypes.c_uint64),
        ("frame_pointer", ctypes.c_uint64),
        ("exit_frame_pointer", ctypes.c_uint64),
        ("status", ctypes.c_uint64),
        ("thread_state", ctypes.c_uint64),
        ("mxcsr", ctypes.c_uint32),
        ("x87_control", ctypes.c_uint32),
    ]


UNKNOWN_FRAMES = 1
"""The exit frame pointer of what stands for native frames that nobody entered through us."""

MAXIMUM_TRACE = 64
"""The most return addresses that a trap keeps."""


class ThreadRecord(ctypes.Structure):
    """What the pthread key ``activations_key`` holds: one for each thread that entered.

    Attributes
    ----------
    innermost : address
        The thread's innermost :class:`Activation`, or 0.
    trace_count : int
        How many entries of `trace` the last trap wrote.
    trace : array of address
        Where the last trap came from: the return address into the code that raised it, then those
        of its callers by frame pointer, up to the entry.
    interrupts : address
        For compilers of stack checks: the VMInterrupts of this thread; 0 until they are made.
    """

    _fields_ = [
        ("innermost", ctypes.c_uint64),
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


class _ThreadState(_local):
    def __init__(self) -> None:
        self.activations: list[list[BaseException]] = []
        self.callbacks = 0  # that run, called by native code


thread_state = _ThreadState()


trap_observers: list[Callable[[Trap], None]] = []
"""Called with each trap that has a trace, before it is raised: a JIT knows what its addresses
mean, and can say so in the exception."""


def tell_observers(trap: Trap) -> None:
    """Show a trap to the observers."""
    for observe in trap_observers:
        observe(trap)


def raise_status(status: int) -> None:
    """Raise what a nonzero status stands for, except :data:`EXCEPTION`, which is raised already."""
    if status & ~0xFFFFFFFF == TRAPPED:
        from asm_libcalls.binding import default_binding

        trap = Trap(status & 0xFFFFFFFF)
        entry = default_binding().entry
        if isinstance(entry, MachineEntry):
            trap.trace = entry.trace()
            tell_observers(trap)
        try:
            raise trap
        finally:
            del trap  # this frame is in its traceback: that would be a cycle
    raise MemoryError("no memory for this thread's record of activations")


class _Layout:
    """Where the values of a signature are among the words of a NativeCall and its stack behind it.

    Attributes
    ----------
    words : type
        The array of 64-bit words.
    places : tuple of int
        The word of each argument.
    wide : tuple of int
        Of the arguments: those that have a second word behind it.
    stack_count : int
        How many words the stack has.
    result : int
        The word of the result.
    """

    __slots__ = ("places", "result", "stack_count", "wide", "words")

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
        self.stack_count = assignment.stack
        self.result = 0
        if signature.result is not None:
            in_integers = bank_of(signature.result) == INTEGERS
            field = NativeCall.integer_results if in_integers else NativeCall.float_result
            self.result = field.offset // 8


_layouts: dict[str, _Layout] = {}
_CALL_WORDS = ctypes.sizeof(NativeCall) // 8
_STACK_ARGUMENTS = NativeCall.stack_arguments.offset // 8


def _layout(signature: Signature) -> _Layout:
    layout = _layouts[signature] = _Layout(signature)
    return layout


def argument_offset(place: Place) -> int:
    """Return the offset of an argument register in a :class:`NativeCall`, in bytes."""
    if place.bank == INTEGERS:
        return int(NativeCall.integers.offset) + 8 * place.number
    return int(NativeCall.floats.offset) + 16 * place.number


class MachineEntry:
    """Calls through ``x86_64/trampolines/enter.py``; a trap unwinds native frames."""

    unwinds = True

    def __init__(self, enter_address: int, activations_key: int) -> None:
        from asm_libcalls.emitter import libc

        self._key = activations_key
        self._record = libc.prototype("pthread_getspecific", ctypes.c_size_t, ctypes.c_uint)
        # PYFUNCTYPE: ctypes raises the error indicator that a callback left. The entry routine
        # itself releases the GIL round the call.
        self._enter = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(enter_address)

    def holding_gil(self, enter_address: int) -> MachineEntry:
        """Return a twin that enters through the routine which does not release the GIL."""
        twin = object.__new__(MachineEntry)
        twin.__dict__.update(self.__dict__)
        twin._enter = type(self._enter)(enter_address)
        return twin

    def call(self, address: int, signature: Signature, patterns: Sequence[int]) -> int:
        """Call a C address with bit patterns; return the result's pattern or raise."""
        layout = _layouts.get(signature) or _layout(signature)
        words = layout.words(address)
        for at, pattern in zip(layout.places, patterns, strict=True):
            words[at] = pattern  # its low 64 bits
        for i in layout.wide:
            words[layout.places[i] + 1] = patterns[i] >> 64
        where = ctypes.addressof(words)
        if layout.stack_count:
            words[_STACK_ARGUMENTS] = where + ctypes.sizeof(NativeCall)
            words[_STACK_ARGUMENTS + 1] = layout.stack_count
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
        """Return the return addresses that this thread's last trap came through."""
        address = self._record(self._key)
        if not address:
            return ()
        record = ThreadRecord.from_address(address)
        return tuple(record.trace[: record.trace_count])

    def innermost(self) -> int:
        """Return the address of this thread's innermost activation, or 0."""
        record = self._record(self._key)
        return ThreadRecord.from_address(record).innermost if record else 0

    def activations(self) -> list[Activation] | None:
        """Return this thread's activations, innermost first."""
        found = []
        address = self.innermost()
        while address:
            activation = Activation.from_address(address)
            found.append(activation)
            address = activation.previous
        return found


class PythonEntry:
    """Calls through ctypes; a trap in a callback is raised when native code has returned.

    Parameters
    ----------
    release_gil : bool, optional
        Whether other Python threads run meanwhile.
    """

    unwinds = False

    def __init__(self, release_gil: bool = True) -> None:
        self._release_gil = release_gil

    def call(self, address: int, signature: Signature, patterns: Sequence[int]) -> int:
        """Call a C address with bit patterns; return the result's pattern or raise."""
        arguments = [
            ctypes_value(value_type.ctypes_name, pattern)
            for value_type, pattern in zip(signature.parameters, patterns, strict=True)
        ]
        function = signature.ctypes_prototype(self._release_gil)(address)
        result = signature.result
        if result is not None:
            function.restype = exact_type(result.ctypes_name)
        raised: list[BaseException] = []
        activations = thread_state.activations
        depth = len(activations)
        try:
            activations.append(raised)
            # A signal handler may raise before a callback's first line: ctypes reports that.
            value = hear(lambda: function(*arguments), raised, _is_of_a_callback)
        finally:
            del activations[depth:]
        if raised:
            _raise_first(raised)
        return 0 if result is None else pattern_of(value)

    def innermost(self) -> int:
        """Return 0: it has no activations in memory."""
        return 0

    def activations(self) -> list[Activation] | None:
        """Return None while native code runs on this thread: its frames are not known."""
        return None if runs_native_code() else []


def _is_of_a_callback(unraisable: Any) -> bool:
    if getattr(unraisable.object, "__func__", None) in callback_functions:
        return True
    # From 3.13 on only the message tells.
    message = unraisable.err_msg or ""
    return any(f"{function.__qualname__} of" in message for function in callback_functions)


callback_functions: set[Any] = set()
"""The functions that ctypes calls back."""


def runs_native_code() -> bool:
    """Return whether this thread has frames of native code that nobody can walk.

    They were entered by a :class:`PythonEntry`, or left by a ctypes callback of ours.
    """
    return bool(thread_state.activations or thread_state.callbacks)


def _raise_first(raised: list[BaseException]) -> NoReturn:
    # What the native code did after the first exception is its consequence. No frame of the
    # traceback may keep a reference to the exception: that would be a cycle.
    exception = raised[0]
    raised.clear()
    try:
        raise exception
    finally:
        del exception


def ctypes_value(ctypes_name: str, pattern: int) -> Any:
    """Return a ctypes object with exactly this bit pattern, a signalling NaN included."""
    value = getattr(ctypes, ctypes_name)()
    _holder(value).value = pattern
    return value


def pattern_of(value: Any) -> int:
    """Return the bit pattern of a ctypes object, unsigned."""
    return int(_holder(value).value)


def _holder(value: Any) -> Any:
    # An unsigned integer in the same memory, in this machine's byte order as the value is.
    size = ctypes.sizeof(value)
    return {4: ctypes.c_uint32, 8: ctypes.c_uint64}[size].from_buffer(value)


def exact_type(ctypes_name: str) -> Any:
    """Return a subclass of a simple ctypes type, of which ctypes makes no Python number.

    That would lose the signalling bit of an f32.
    """
    if ctypes_name not in _exact_types:
        _exact_types[ctypes_name] = type("Exact", (getattr(ctypes, ctypes_name),), {})
    return _exact_types[ctypes_name]


_exact_types: dict[str, Any] = {}


def report(exception: BaseException) -> None:
    """Report an exception of a ctypes callback to the innermost :class:`PythonEntry`.

    With none on the thread there is nobody to tell. Where the libcall traps, the bare machine
    instruction would end the process with a signal, and so does this; any other exception is
    printed as ctypes prints them, and native code gets a 0.
    """
    if thread_state.activations:
        thread_state.activations[-1].append(exception)
    elif isinstance(exception, Trap):
        _die()
    else:

        def tell() -> NoReturn:
            raise exception

        # Raised here it would be printed too, but the native code would get a result at random.
        ctypes.CFUNCTYPE(None)(tell)()


def _die() -> None:
    # As by the instruction itself: on this thread, and past any handler of Python's, which would
    # run only when native code has returned, with a result that there is not. (Python's own
    # signal.signal works in the main thread alone.)
    import signal

    from asm_libcalls.emitter import libc

    libc.prototype("signal", ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(signal.SIGILL, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGILL])
    signal.raise_signal(signal.SIGILL)
