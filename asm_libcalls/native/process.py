"""What a process has one of: loaded machine code, the stack walker, the observers of traps.

There may be several bindings, and each chooses what serves a libcall. Machine code is loaded once:
all bindings that use it share one image, one pthread key, and so one list of activations for each
thread. The bindings fill in the variables of this module; everything below them reads these.
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
            """Return the return addresses that this thread's last trap came through."""

        def newest_departure(self, owner: int) -> Departure | None:
            """Return this thread's newest departure, of one owner unless that is 0."""

        def departures(self) -> Iterator[Departure] | None:
            """Iterate over this thread's departures, newest first; None if one is not known."""

    class NativeInterface(Protocol):
        """How Python calls native code, and how native code calls Python."""

        @property
        def entry(self) -> Entry | None:
            """How Python enters native code; None where it cannot."""

        def entry_holding_gil(self) -> Entry:
            """Return an entry whose callees run with the GIL."""

        def host_address(
            self, function: Callable[..., Any], signature: Signature, bits: bool
        ) -> tuple[int, Callable[[], None]]:
            """Return a C address that calls a Python function, and what gives it back."""

        def function_maker(self) -> Any:
            """Return what makes builtins of C addresses, or a text that says why nothing does."""


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
"""How Python enters native code through that image."""

interface: NativeInterface | None = None
"""What ``catch_traps``, ``native_function`` and ``HostFunction`` use: the default binding's."""

builtin_addresses: Callable[[], list[int]] | None = None
"""Returns what the builtin array of a VMContext holds: the default binding's addresses."""

trap_observers: list[Callable[[Trap], None]] = []
"""Called with each trap that has a trace, before it is raised: a JIT knows what its addresses
mean, and adds that to the exception."""


own_threads: list[Callable[[], int]] = []
"""Each returns how many threads of ours there are, which never enter native code."""


def may_run_elsewhere() -> bool:
    """Return whether there are other threads, which may be running native code."""
    return _count() > sum(count() for count in own_threads)


def tell_observers(trap: Trap) -> None:
    """Show a trap to the observers."""
    for observe in trap_observers:
        observe(trap)


class CtypesActivation:
    """One entry through ctypes that has not ended.

    Attributes
    ----------
    who : int
        The thread or greenlet that entered, by :data:`asm_libcalls.unraisable.who_runs`.
    raised : list of BaseException
        By its callbacks.
    """

    __slots__ = ("raised", "who")

    def __init__(self, who: int) -> None:
        self.who = who
        self.raised: list[BaseException] = []


class _ThreadState(_local):
    """What ctypes entries and ctypes callbacks note for their thread."""

    def __init__(self) -> None:
        self.activations: list[CtypesActivation] = []  # of all greenlets of the thread
        self.callbacks = 0  # that run, called by native code


thread_state = _ThreadState()


def runs_unknown_frames() -> bool:
    """Return whether this thread has frames of native code that the stack walker cannot follow.

    They were entered through ctypes, or left by a ctypes callback of ours.
    """
    return bool(thread_state.activations or thread_state.callbacks)
