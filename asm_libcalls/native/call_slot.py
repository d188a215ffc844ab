"""Objects that are called at a builtin's price: the builtin is found on the object's class."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["answer_calls"]


def answer_calls(thing: Any, function: Callable[..., Any]) -> None:
    """Let `function` answer the calls of an object, without the object as an argument.

    The object's class becomes a subclass of its own, with the function as its ``__call__``. CPython
    looks for ``__call__`` on the class, and a builtin that it finds there is not bound: no Python
    frame is made.
    """
    cls = type(thing)
    is_builtin = type(function) is type(len)
    own: dict[str, Any] = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
    own["__call__"] = function if is_builtin else staticmethod(function)
    thing.__class__ = type(cls.__name__, (cls,), own)
