"""Catches exceptions that C code cannot raise: those of destructors and of ctypes callbacks.

Python reports them to ``sys.unraisablehook``. This module's hook is installed only while a thread
listens; it passes unwanted exceptions to the previous hook. It comes and goes in a step: a
destructor or a forked child could find any other lock taken. A signal handler may raise at any call
or jump, also in a ``finally`` clause. So the first line of each such clause is the step that must
not be lost, and the next call repairs the rest.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    Result = TypeVar("Result")
    Listener = tuple[list[BaseException], Callable[[Any], bool], "Listener | None", int]
    """The list for exceptions, a filter, the enclosing listener, and the number of all of these."""

identify: list[Callable[[], int]] = [get_ident]
"""The last one returns the id of the running thread or greenlet, which has listeners of its own."""

_listeners: dict[int, Listener | None] = {}  # the innermost one of each thread or greenlet


class _Unraisable:
    """What ``sys.unraisablehook`` takes."""

    def __init__(self, error: BaseException, when: str, where: object) -> None:
        self.exc_type: type[BaseException] = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback = error.__traceback__
        self.err_msg: str | None = f"Exception ignored {when}"
        self.object = where


def report(error: BaseException, when: str, where: object) -> None:
    """Report an exception that has no caller to go to, as Python does those of destructors."""
    sys.unraisablehook(_Unraisable(error, when, where))


class _Hook:
    """The hook while any listener exists."""

    previous: Any = sys.__unraisablehook__

    def __call__(self, unraisable: Any) -> None:
        listener = _listeners.get(identify[-1]())
        while listener is not None and unraisable.exc_value is not None:
            caught, wants, listener, _ = listener
            if wants(unraisable):
                caught.append(unraisable.exc_value)
                return
        self.previous(unraisable)


_hook = _Hook()


def catch(
    function: Callable[[], Result],
    caught: list[BaseException],
    wants: Callable[[Any], bool] = lambda unraisable: True,
) -> Result:
    """Call a function, and collect the exceptions that this thread reports during the call.

    `wants` is called with the argument of ``sys.unraisablehook``; a false result leaves the
    exception to the enclosing listener.
    """
    thread = identify[-1]()
    outer = _listeners.get(thread)
    try:
        _listeners[thread] = (caught, wants, outer, outer[3] + 1 if outer else 1)
        _kept = _enter()
        return function()
    finally:
        _listeners[thread] = outer
        if outer is None:
            del _listeners[thread]
            _leave()


def nesting() -> int:
    """Return how many calls of :func:`catch` this code runs in."""
    listener = _listeners.get(identify[-1]())
    return listener[3] if listener else 0


@step
def _enter() -> Any:
    """Install the hook, unless it is; return the last previous one, whose end is no part of it."""
    last, now = _hook.previous, sys.unraisablehook
    if now is not _hook:
        _hook.previous = now
        sys.unraisablehook = _hook
    return last


@step
def _leave() -> None:
    if not _listeners and sys.unraisablehook is _hook:
        sys.unraisablehook = _hook.previous


def _forget_other_threads() -> None:
    # A forked child has only this thread, and its greenlets.
    if len(identify) > 1:
        return
    thread = get_ident()
    for other in [each for each in _listeners if each != thread]:
        del _listeners[other]
    _leave()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
