"""The entry from Python into native code through ctypes, and each thread's entries and callbacks.

The entry serves without machine code. It cannot unwind native frames. A trap or an exception in a
callback is recorded, the callback returns 0, and the exception is raised when the native code has
returned.
"""

from __future__ import annotations

import ctypes
from _thread import _local

from asm_libcalls.native import greenlets, process
from asm_libcalls.native.unraisable import catch, identify
from asm_libcalls.owned import raise_first
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from asm_libcalls.signatures import Signature


class CtypesActivation:
    """One entry through ctypes that has not ended."""

    __slots__ = ("owner", "raised")

    def __init__(self, owner: int) -> None:
        # the thread or greenlet that entered, by `identify`
        self.owner = owner
        self.raised: list[BaseException] = []  # the exceptions of its callbacks


class _ThreadState(_local):
    """A thread's ctypes entries and ctypes callbacks.

    It has no ``__init__``: a finalizer or a signal handler that runs in that of a thread-local
    object sees the thread's attributes before they are set.
    """

    callbacks = 0
    """The running ones, called by native code."""

    @property
    def activations(self) -> list[CtypesActivation]:
        """The thread's entries, of all its greenlets."""
        entries: list[CtypesActivation] = self.__dict__.setdefault("entries", [])
        return entries


thread_state = _ThreadState()


def runs_unknown_frames() -> bool:
    """Return whether this thread has frames of native code that the stack walker cannot follow.

    They were entered, or called Python, through ctypes.
    """
    return bool(thread_state.activations or thread_state.callbacks)


class PythonEntry:
    """Calls through ctypes; a trap in a callback is raised when native code has returned.

    With `release_gil`, other Python threads run during the call.
    """

    def __init__(self, release_gil: bool = True) -> None:
        self._release_gil = release_gil

    def call(self, address: int, signature: Signature, patterns: Sequence[int]) -> int:
        """Call a C address with bit patterns; return the result's pattern or raise."""
        passed = _as_passed.get(signature) or _passed(signature)
        function = passed.ctypes_prototype(self._release_gil)(address)
        arguments = [
            ctypes_value(as_passed.ctypes_name, value_type.extended(pattern))
            for as_passed, value_type, pattern in zip(
                passed.parameters, signature.parameters, patterns, strict=True
            )
        ]
        result = signature.result
        if result is not None:
            function.restype = exact_type(result.ctypes_name)
        greenlets.notice()
        activations = thread_state.activations
        activation = CtypesActivation(identify[-1]())
        raised = activation.raised
        try:
            activations.append(activation)
            # A signal handler may raise before a callback's first line: ctypes reports that.
            value = catch(lambda: function(*arguments), raised, _is_of_a_callback)
        finally:
            if activation in activations:  # not if a signal handler raised before the append
                activations.remove(activation)
        raise_first(raised)
        return 0 if result is None else pattern_of(value)


_as_passed: dict[str, Signature] = {}


def _passed(signature: Signature) -> Signature:
    """Return the signature with narrow parameters as u32: on the stack libffi does not extend."""
    names = ("u32" if t.bits < 32 and t.kind == "integer" else t.name for t in signature.parameters)
    result = "" if signature.result is None else f" -> {signature.result.name}"
    _as_passed[signature] = type(signature)(f"({', '.join(names)}){result}")
    return _as_passed[signature]


def _is_of_a_callback(unraisable: Any) -> bool:
    if getattr(unraisable.object, "__func__", None) in callback_functions:
        return True
    # From Python 3.13 on only the message names the function.
    message = unraisable.err_msg or ""
    return any(f"{function.__qualname__} of" in message for function in callback_functions)


callback_functions: set[Any] = set()
"""The functions that ctypes calls back."""


def ctypes_value(ctypes_name: str, pattern: int) -> Any:
    """Return a ctypes object with exactly this bit pattern, a signalling NaN included."""
    value = getattr(ctypes, ctypes_name)()
    _holder(value).value = pattern
    return value


def pattern_of(value: Any) -> int:
    """Return the bit pattern of a ctypes object, unsigned."""
    return int(_holder(value).value)


def _holder(value: Any) -> Any:
    # An unsigned integer in the same memory and byte order.
    size = ctypes.sizeof(value)
    kinds = {1: ctypes.c_uint8, 2: ctypes.c_uint16, 4: ctypes.c_uint32, 8: ctypes.c_uint64}
    return kinds[size].from_buffer(value)


def exact_type(ctypes_name: str) -> Any:
    """Return a subclass of a simple ctypes type, which ctypes does not convert to a Python number.

    That conversion would lose the signalling bit of an f32.
    """
    if ctypes_name not in _exact_types:
        _exact_types[ctypes_name] = type("Exact", (getattr(ctypes, ctypes_name),), {})
    return _exact_types[ctypes_name]


_exact_types: dict[str, Any] = {}


def report(exception: BaseException) -> None:
    """Report an exception of a ctypes callback to the innermost entry.

    That is a :class:`PythonEntry` or, in a process that also has machine code, an activation.
    Without an entry on the thread, a trap ends the process with a signal, as the trapping machine
    instruction would. Any other exception is printed as by ctypes, and native code gets a 0.
    """
    owner = identify[-1]()
    own = [each for each in thread_state.activations if each.owner == owner]
    if own:
        own[-1].raised.append(exception)
    elif process.machine_entry is not None and process.machine_entry.raise_at_return(exception):
        pass
    elif isinstance(exception, Trap):
        _die()
    else:

        def tell() -> NoReturn:
            raise exception

        # Raised here it would be printed too, but native code would get a random result.
        ctypes.CFUNCTYPE(None)(tell)()


def _die() -> None:
    # As by the instruction itself: on this thread, and not through a Python handler, which would
    # run only after native code has gone on without a result. (Python's signal.signal works only in
    # the main thread.)
    import signal

    from asm_libcalls.emitter import libc

    libc.prototype("signal", ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(signal.SIGILL, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGILL])
    signal.raise_signal(signal.SIGILL)
