"""What a process has one of: loaded machine code, the stack walker, the observers of traps.

There may be several bindings, and each chooses what serves a libcall. Machine code is loaded once:
all bindings that use it share one image, one pthread key, and so one list of activations for each
thread. The bindings fill in the variables of this module; everything below them reads these.
"""

from __future__ import annotations

from _thread import _local

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from asm_libcalls.activation import Activation, ThreadRecord
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

        def innermost(self) -> int:
            """Return the address of this thread's innermost activation, or 0."""

        def activations(self) -> list[Activation]:
            """Return this thread's activations, innermost first."""

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
    "calling_frame",
    "innermost_activation",
    "runs_unknown_frames",
    "stack_frames",
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


def tell_observers(trap: Trap) -> None:
    """Show a trap to the observers."""
    for observe in trap_observers:
        observe(trap)


class _ThreadState(_local):
    """What ctypes entries and ctypes callbacks note for their thread."""

    def __init__(self) -> None:
        self.activations: list[list[BaseException]] = []
        self.callbacks = 0  # that run, called by native code


thread_state = _ThreadState()


def runs_unknown_frames() -> bool:
    """Return whether this thread has frames of native code that the stack walker cannot follow.

    They were entered through ctypes, or left by a ctypes callback of ours.
    """
    return bool(thread_state.activations or thread_state.callbacks)


def innermost_activation() -> int:
    """Return the address of this thread's innermost activation, or 0."""
    return 0 if machine_entry is None else machine_entry.innermost()


def calling_frame() -> tuple[int, int] | None:
    """Find the native frame that called the host function which runs in this thread.

    Returns
    -------
    (return address, frame pointer), or None
        As of :func:`stack_frames`, its first. None where this thread's innermost activation was
        not left through one of our thunks.
    """
    address = innermost_activation()
    if not address:
        return None
    from ctypes import c_size_t

    from asm_libcalls.activation import UNKNOWN_FRAMES, Activation

    exit_frame_pointer = Activation.from_address(address).exit_frame_pointer
    if exit_frame_pointer in (0, UNKNOWN_FRAMES):
        return None
    word = c_size_t.from_address
    return word(exit_frame_pointer + 8).value, word(exit_frame_pointer).value


def stack_frames(innermost: bool = False) -> Iterator[tuple[int, int]] | None:
    """Walk this thread's native frames, innermost first, over all activations.

    Parameters
    ----------
    innermost : bool, optional
        Walk the innermost activation alone.

    Returns
    -------
    iterator of (return address, frame pointer), or None
        For each native frame the address in its code where it continues, and its rbp. None where
        the frames are not known: native code was entered or left through ctypes, or it has no
        frame pointers.
    """
    if runs_unknown_frames():
        return None
    if machine_entry is None:
        return iter(())
    from ctypes import c_size_t

    from asm_libcalls.activation import UNKNOWN_FRAMES

    word = c_size_t.from_address
    activations = machine_entry.activations()
    frames: list[tuple[int, int]] = []
    for activation in activations[:1] if innermost else activations:
        frame_pointer, canary = activation.exit_frame_pointer, activation.frame_pointer
        if frame_pointer in (0, UNKNOWN_FRAMES):
            return None
        while True:
            # All between the exit and the entry is this thread's live stack: safe to read.
            caller = word(frame_pointer).value
            if caller == canary:
                break
            if not frame_pointer < caller < canary or caller % 8:
                return None
            frames.append((word(frame_pointer + 8).value, caller))
            frame_pointer = caller
    return iter(frames)
