"""Catches exceptions that C code cannot raise: those of destructors and of ctypes callbacks.

Python reports them to ``sys.unraisablehook``. This module's hook is installed only while a thread
listens; it passes unwanted exceptions to the previous hook. A lock is not used, because a
destructor or a fork could find it taken. A signal handler may raise at any call or jump, also in a
``finally`` clause. So the necessary step is the clause's first line, and the next call repairs the
rest.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Result = TypeVar("Result")
    Listener = tuple[list[BaseException], Callable[[Any], bool], "Listener | None"]
    """The list for exceptions, a filter, and the enclosing listener."""

__all__ = ["hear", "raise_first", "who_runs"]

who_runs: list[Callable[[], int]] = [get_ident]
"""The last one returns the id of the running thread or greenlet; each has its own stack of
listeners."""

_listeners: dict[int, Listener | None] = {}  # the innermost one of each thread or greenlet


class _Hook:
    """The hook while any listener exists."""

    previous: Any = sys.__unraisablehook__

    def __call__(self, unraisable: Any) -> None:
        listener = _listeners.get(who_runs[-1]())
        while listener is not None and unraisable.exc_value is not None:
            heard, wants, listener = listener
            if wants(unraisable):
                heard.append(unraisable.exc_value)
                return
        self.previous(unraisable)


_hook = _Hook()


def hear(
    function: Callable[[], Result],
    heard: list[BaseException],
    wants: Callable[[Any], bool] = lambda unraisable: True,
) -> Result:
    """Call a function, and collect the exceptions that this thread reports during the call.

    Parameters
    ----------
    function : callable
    heard : list
        The exceptions are appended to it, in order.
    wants : callable, optional
        Called with the argument of ``sys.unraisablehook``; a false result leaves the exception to
        the enclosing listener.
    """
    thread = who_runs[-1]()
    outer = _listeners.get(thread)
    try:
        _listeners[thread] = (heard, wants, outer)
        if sys.unraisablehook is not _hook:
            _hook.previous = sys.unraisablehook
            sys.unraisablehook = _hook
        return function()
    finally:
        _listeners[thread] = outer
        if outer is None:
            del _listeners[thread]
            _leave()


def raise_first(errors: list[BaseException]) -> None:
    """Raise the first of the collected exceptions, if there is one, and empty the list.

    Later exceptions are often consequences of the first. No frame of the traceback keeps a
    reference to it: that would be a cycle.
    """
    if errors:
        first = errors[0]
        errors.clear()
        try:
            raise first
        finally:
            del first


def _leave() -> None:
    if not _listeners and sys.unraisablehook is _hook:
        sys.unraisablehook = _hook.previous


def _forget_other_threads() -> None:
    # A forked child has only this thread, and its greenlets.
    if len(who_runs) > 1:
        return
    thread = get_ident()
    for other in [each for each in _listeners if each != thread]:
        del _listeners[other]
    _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
