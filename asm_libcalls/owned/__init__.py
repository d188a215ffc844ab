"""Ownership of C memory: finalizers that always end.

A signal handler may raise at the first instruction of any Python function, ``__del__`` included. So
the finalizers here begin in C: see :class:`Finalized`. ``objects.py`` has the base class of objects
that users close.
"""

from __future__ import annotations

import os
import sys
from itertools import repeat

from asm_libcalls.steps import HAS_GIL, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import Callable
    from typing import Any, NoReturn
else:
    from _collections import defaultdict  # importing collections takes longer


class NotMade(ValueError, AttributeError):
    """An object is used whose ``__init__`` was not called, or has not ended."""


def not_made(it: object) -> NotMade:
    """Return the exception for the use of an object that was not made."""
    name = type(it).__name__
    return NotMade(f"the {name} was not made: {name}.__init__() did not end")


def refuse_again(made: object, attribute: str) -> None:
    """Raise RuntimeError if ``__init__`` is called on an object that has an attribute already.

    The ``__getattr__`` of a user's class is not called.
    """
    try:
        object.__getattribute__(made, attribute)
    except AttributeError:
        return
    refuse(made)


def refuse(made: object) -> NoReturn:
    """Raise RuntimeError: ``__init__`` is called again."""
    name = type(made).__name__
    raise RuntimeError(f"{name}.__init__() was called again on the same object: make another one")


class NotCopied:
    """Base class of objects that :mod:`copy` and :mod:`pickle` refuse with TypeError."""

    __slots__ = ()
    _shared = "C memory"  # what a copy would share

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        NotCopied.__getstate__(self)

    def __getstate__(self) -> NoReturn:
        # object.__reduce_ex__ would copy the attributes; the items of a ctypes array may be
        # inaccessible memory.
        raise TypeError(
            f"{type(self).__name__} objects cannot be copied or pickled: "
            f"a copy would refer to the same {self._shared}"
        )


_ATTEMPTS = 5


def attempt(action: Callable[[], object], errors: list[BaseException]) -> bool:
    """Call a function until it ends without an exception, a few times; return whether it did."""
    for _ in range(_ATTEMPTS):
        try:
            action()
            return True
        except BaseException as error:
            errors.append(error)
    return False


def _is_too_deep(error: BaseException) -> bool:
    # Before 3.12 ctypes raises ArgumentError where it converts an argument at the recursion limit.
    return isinstance(error, RecursionError) or "RecursionError" in str(error)


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


def _finalize_dropped(is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
    """Finalize the dropped objects; raise the first exception, which Python reports."""
    if is_finalizing():
        return  # modules may be cleared already; the system frees all memory
    errors: list[BaseException] = []
    for each in dict.copy(_dropped):  # one operation; other threads put objects in meanwhile
        if not attempt(each._finalize, errors) and _is_too_deep(errors[-1]):
            break  # the next finalizer continues, perhaps at a lesser depth
        _dropped.pop(each, None)  # not reached if a signal handler raises outside of the `try`
    raise_first(errors)


def _make_dropped() -> Any:
    return defaultdict(repeat(_finalize_dropped).__next__)


_dropped = _make_dropped()
"""Objects whose finalizer has begun and not ended, as keys. A lookup of an object adds it."""


class Finalized:
    """Base class of objects with a finalizer, :meth:`_finalize`, that always ends.

    Reading the attribute ``__del__`` of an object, which Python's deallocation does, runs only C
    code: it puts the object into a dict, and returns the Python function to call. Where a signal
    handler's exception prevents that function, or ends it, the next object's finalizer continues.
    The hash of the object must be that of :class:`object`.

    As for any ``__del__``, Python prints the exception of a signal handler that runs meanwhile.
    """

    __slots__ = ()

    __del__: Any = property(_dropped.__getitem__)

    def _finalize(self) -> None:
        """Release what the object owns. It may be called again, and then does the rest."""
        raise NotImplementedError


def _renew() -> None:
    """Give a forked child a dict of its own.

    Without the GIL a dict has a lock, which CPython hands to a thread that waits for it. If that
    thread is not in the child, no code there can use the dict. The old dict is kept, with the
    objects that other threads were finalizing.
    """
    global _dropped, _left  # noqa: PLW0603
    _left = _dropped, _left
    _dropped = _make_dropped()
    Finalized.__del__ = property(_dropped.__getitem__)


_left: Any = None  # the dicts of the processes before

if not HAS_GIL:
    os.register_at_fork(after_in_child=_renew)


class Released(NotCopied, Finalized):
    """Owner of a C resource, which `release` frees after the last reference to this is dropped.

    At interpreter exit it is not freed: code may still use it, and the system frees all memory.
    `release` is called again if it raises, as the exception may be a signal handler's. It must not
    repeat what it has done.

    A signal handler may also raise between a C function and the assignment of its result. So this
    object is made first, and `release` refers to a list that is empty. One call of C code then
    calls the function and extends the list with the result.
    """

    __slots__ = ("_release", "_releases")

    def __init__(self, release: Callable[[], None]) -> None:
        refuse_again(self, "_release")
        self._releases: object = None  # the call of _finalize that releases
        self._release: Callable[[], None] | None = release

    def keep(self) -> None:
        """Never release it, because code that holds no reference to this object uses it."""
        self._release = None

    def _finalize(self) -> None:
        call = object()
        try:
            release = self._take(call)
            if release is None:
                return
            self._give_back(release)
            self._release = None
        finally:
            # No call: a signal handler may raise after one.
            try:
                if self._releases is call:
                    self._releases = None
            except AttributeError:  # __init__ did not end
                pass

    def _give_back(self, release: Callable[[], None]) -> None:
        release()

    @step
    def _take(self, call: object) -> Callable[[], None] | None:
        """Return the release to one call at a time: two threads may finalize the same object."""
        try:
            release = self._release
        except AttributeError:  # __init__ did not end
            return None
        if release is None or self._releases is not None:
            return None
        self._releases = call
        return release
