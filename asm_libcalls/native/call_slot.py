"""Makes objects callable at the cost of a builtin, by a builtin ``__call__`` on their class."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["answer_calls", "is_builtin", "unbound"]


def answer_calls(thing: Any, function: Callable[..., Any]) -> None:
    """Let calls of an object call `function`, without the object as an argument.

    The object gets a class of its own, with the function as ``__call__``. CPython looks up
    ``__call__`` on the class and does not bind a builtin there, so no Python frame is made.
    """
    cls = type(thing)
    own: dict[str, Any] = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
    own["__call__"] = unbound(function)
    thing.__class__ = type(cls.__name__, (cls,), own)


def unbound(function: Callable[..., Any]) -> Any:
    """Return what a class must have so that its objects find the function as it is."""
    return function if is_builtin(function) else staticmethod(function)


def is_builtin(function: Callable[..., Any]) -> bool:
    """Return whether a function is one of CPython's builtins, which classes do not bind."""
    return type(function) is type(len)
