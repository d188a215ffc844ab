"""State of the process: the loaded image, the default native interface, the observers of traps.

A process may have several bindings. Machine code is loaded once: all bindings share one image, one
pthread key, and one list of activations for each thread. The binding module and native/interface.py
set the variables; the modules below the bindings read them.
"""

from __future__ import annotations

from _thread import _count, _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from asm_libcalls.activation import Departure, ThreadRecord
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.signatures import Signature
    from asm_libcalls.traps import Trap

    class Entry(Protocol):
        """Calls C functions for Python."""

        def call(self, address: int, signature: Signature, patterns: Any) -> int:
            """Call a C address with bit patterns; return the result's pattern or raise."""

    class MachineCodeEntry(Entry, Protocol):
        """An entry that keeps a list of activations for each thread."""

        def record(self) -> ThreadRecord | None:
            """Return the record of this thread; None if it has never entered native code."""

        def trace(self) -> tuple[int, ...]:
            """Return the return addresses of the frames that this thread's last trap unwound."""

        def newest_departure(self, owner: int) -> Departure | None:
            """Return this thread's newest departure, of one owner unless that is 0."""

        def departures(self) -> Iterator[Departure] | None:
            """Iterate over this thread's departures, newest first; None if one is not known."""

    class NativeInterface(Protocol):
        """Calls from Python to native code, and from native code to Python."""

        @property
        def entry(self) -> Entry | None:
            """The entry into native code; None where ctypes is missing."""

        def entry_holding_gil(self) -> Entry:
            """Return an entry whose callees run with the GIL."""

        def host_address(
            self, function: Callable[..., Any], signature: Signature, bits: bool
        ) -> tuple[int, Callable[[], None]]:
            """Return a C address that calls a Python function, and a function that frees it."""

        def function_maker(self) -> Any:
            """Return the maker of builtins, or a text that says why there is none."""


__all__ = [
    "CtypesActivation",
    "may_run_elsewhere",
    "own_threads",
    "runs_unknown_frames",
    "tell_observers",
    "thread_state",
    "trap_observers",
]

image: LoadedImage | None = None
"""The image with the runtime's own routines (entry, thunks, builtins); None until it is loaded."""

machine_entry: MachineCodeEntry | None = None
"""The entry into native code through that image."""

interface: NativeInterface
"""The default binding's interface, for ``catch_traps``, ``native_function``, ``HostFunction``; set
while the package is imported."""

builtin_addresses: Callable[[], list[int]] | None = None
"""Returns the default binding's addresses for the builtin array of a VMContext."""

trap_observers: list[Callable[[Trap], None]] = []
"""Called with each trap that has a trace, before it is raised: a JIT can add the meaning of its
addresses to the exception."""


own_threads: list[Callable[[], int]] = []
"""Each returns a number of this library's own threads, which never enter native code."""


def may_run_elsewhere() -> bool:
    """Return whether other threads exist, which may be running native code."""
    return _count() > sum(count() for count in own_threads)


def tell_observers(trap: Trap) -> None:
    """Show a trap to the observers, with the frames of its trace named."""
    try:
        from asm_libcalls.native.backtraces import name_frames
    except ImportError:  # a finalizer at interpreter exit, where nothing can be imported
        pass
    else:
        name_frames(trap)
    for observe in trap_observers:
        observe(trap)


class CtypesActivation:
    """One entry through ctypes that has not ended.

    Attributes
    ----------
    who : int
        The thread or greenlet that entered, by :data:`asm_libcalls.native.unraisable.who_runs`.
    raised : list of BaseException
        The exceptions of its callbacks.
    """

    __slots__ = ("raised", "who")

    def __init__(self, who: int) -> None:
        self.who = who
        self.raised: list[BaseException] = []


class _ThreadState(_local):
    """A thread's ctypes entries and ctypes callbacks."""

    def __init__(self) -> None:
        self.activations: list[CtypesActivation] = []  # of all greenlets of the thread
        self.callbacks = 0  # running ones, called by native code


thread_state = _ThreadState()


def runs_unknown_frames() -> bool:
    """Return whether this thread has frames of native code that the stack walker cannot follow.

    They were entered, or called Python, through ctypes.
    """
    return bool(thread_state.activations or thread_state.callbacks)
