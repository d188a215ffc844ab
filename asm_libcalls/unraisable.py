"""Hearing what C code can not raise: exceptions of destructors, and of ctypes callbacks.

Python reports them to ``sys.unraisablehook``. That is ours only while some thread listens; what
nobody wants goes on to the hook that was there. There is no lock, which a destructor or a fork
could find taken. A signal handler may raise wherever Python calls or jumps, in a ``finally`` too:
what must be done there is its first line, and whatever else is left undone, the next one does.
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
    """Where exceptions go, which of them, and the listener round this one."""

__all__ = ["hear", "who_runs"]

who_runs: list[Callable[[], int]] = [get_ident]
"""The last one returns what stands for the thread that runs, or for its greenlet: each of them has
a stack of listeners of its own."""

_listeners: dict[int, Listener | None] = {}  # the innermost one of each of them


class _Hook:
    """The hook while somebody listens."""

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
    """Call a function, and hear what is reported on this thread meanwhile.

    Parameters
    ----------
    function : callable
    heard : list
        Where the exceptions go, in order.
    wants : callable, optional
        Asked with what ``sys.unraisablehook`` gets; what it does not want is for others.
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


def _leave() -> None:
    if not _listeners and sys.unraisablehook is _hook:
        sys.unraisablehook = _hook.previous


def _forget_other_threads() -> None:
    # In a forked child only this thread lives on, and its greenlets, if there are any.
    if len(who_runs) > 1:
        return
    thread = get_ident()
    for other in [each for each in _listeners if each != thread]:
        del _listeners[other]
    _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
