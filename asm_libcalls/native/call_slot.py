"""Makes objects callable at about the cost of a builtin.

An object of a class from :func:`callable_class` is called through machine code (PEP 590). Any other
object gets a class of its own, with the builtin as ``__call__``: CPython looks up ``__call__`` on
the class and does not bind a builtin there. Neither makes a Python frame.
"""

from __future__ import annotations

import sys

from asm_libcalls.native import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.x86_64.python_functions.callable_types import CallableType

FUNCTION = "_function"
"""The member that has the function; in ``__slots__`` of a class for :func:`callable_class`."""

_of_base: dict[type, CallableType | None] = {}
_of_class: dict[type, CallableType] = {}


def callable_class(base: type) -> type:
    """Return a class for callable objects: derived from `base`, or `base` where that is impossible.

    `base` has :data:`FUNCTION` in its ``__slots__``, and no ``__dict__``. Its ``__call__`` serves
    an object until :func:`answer_calls` gets it. A subclass is returned as it is.
    """
    if FUNCTION not in vars(base).get("__slots__", ()):
        return base  # a user's subclass, or one that this function has made
    if base not in _of_base:
        made = _derive(base)
        if made is not None:
            _of_class[made.cls] = made
        made = _of_base.setdefault(base, made)  # the first thread's stays
        if made is not None:
            made.cls._code_owner.keep()  # type: ignore[attr-defined]
    made = _of_base[base]
    return base if made is None else made.cls


def _derive(base: type) -> CallableType | None:
    maker = process.interface.function_maker()
    if isinstance(maker, str) or sys.is_finalizing():  # at interpreter exit
        return None
    from asm_libcalls.x86_64.python_functions.callable_types import Unsupported, derive

    try:
        return derive(maker, base, FUNCTION)
    except (OSError, Unsupported):  # a process may be denied new executable pages at any time
        return None


def answer_calls(thing: Any, function: Callable[..., Any]) -> None:
    """Let calls of an object call `function`, without the object as an argument."""
    cls = type(thing)
    of_class = _of_class.get(cls)
    if of_class is not None:
        of_class.answer(thing, function)
        return
    setattr(thing, FUNCTION, function)
    own: dict[str, Any] = {"__slots__": (), "__module__": cls.__module__}
    own.update(__doc__=vars(cls)["__doc__"], __call__=unbound(function))
    thing.__class__ = type(cls.__name__, (cls,), own)


def unbound(function: Callable[..., Any]) -> Any:
    """Return what a class must have so that its objects find the function as it is."""
    return function if is_builtin(function) else staticmethod(function)


def is_builtin(function: Callable[..., Any]) -> bool:
    """Return whether a function is one of CPython's builtins, which classes do not bind."""
    return type(function) is type(len)
