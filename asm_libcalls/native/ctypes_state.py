"""The entries and callbacks of each thread that went through ctypes."""

from __future__ import annotations

from _thread import _local


class CtypesActivation:
    """One entry through ctypes that has not ended."""

    __slots__ = ("owner", "raised")

    def __init__(self, owner: int) -> None:
        # the thread or greenlet that entered, by asm_libcalls.native.unraisable.identify
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
