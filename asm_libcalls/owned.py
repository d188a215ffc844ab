"""Ownership of C memory: closable objects, and the resources that several of them share.

Users have :class:`Owned` objects. Each is closed once and cannot be used after that. Memory that
native code may still use is in a :class:`Resource`, released with its last reference. So closing
never waits: the object drops its references to resources, and a running call holds its own.

A signal handler may raise at the first instruction of any Python function, ``__del__`` included. So
the finalizer of these objects begins in C: see :class:`Finalized`.

The finalizer of a Resource can be too early. In a garbage cycle the collector first calls all
finalizers, in any order, and then clears the objects. So another finalizer may still call native
code that uses the resource. A :class:`Resource` that is finalized during a collection is therefore
released at its end; later, if a finalizer has resurrected it.
"""

from __future__ import annotations

import gc
import sys
from collections import defaultdict
from itertools import repeat

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn, Self

__all__ = ["OPEN", "Finalized", "NotCopied", "Owned", "Resource", "is_a", "refuse_again"]


def refuse_again(made: object) -> NoReturn:
    """Raise RuntimeError, because ``__init__`` was called on an object that is made already."""
    name = type(made).__name__
    raise RuntimeError(f"{name}.__init__() was called again on the same object: make another one")


class NotCopied:
    """Base class of objects that :mod:`copy` and :mod:`pickle` refuse with TypeError."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects cannot be copied or pickled: "
            "a copy would refer to the same C memory"
        )


_ATTEMPTS = 5  # to finalize an object, if that raises


def _finalize_dropped(is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
    """Finalize what was dropped; raise the first exception, which Python reports."""
    if is_finalizing():
        return  # modules may be cleared already; the system frees all memory
    errors: list[BaseException] = []
    for each in [*_dropped]:
        for _ in range(_ATTEMPTS):
            try:
                each._finalize()
                break
            except BaseException as error:
                errors.append(error)
        _dropped.pop(each, None)  # not reached if a signal handler raises outside of the `try`
    if errors:
        try:
            raise errors[0]
        finally:
            errors.clear()


_dropped: Any = defaultdict(repeat(_finalize_dropped).__next__)
"""Objects whose finalizer has begun and not ended; reading one puts it in."""


class Finalized:
    """Base class of objects with a finalizer, :meth:`_finalize`, that always ends.

    Reading the attribute ``__del__`` of an object, which Python's deallocation does, runs only C
    code: it puts the object into a dict, and returns the Python function to call. Where a signal
    handler's exception prevents that function, or ends it, the next object's finalizer continues.
    The hash of the object must be that of :class:`object`.

    As in any ``__del__``, Python prints the exception of a signal handler that comes meanwhile.
    """

    __slots__ = ()

    __del__: Any = property(_dropped.__getitem__)

    def _finalize(self) -> None:
        """Release what the object owns. It may be called again, and then does the rest."""
        raise NotImplementedError


def _finalize_one(self: Any) -> None:
    """Finalize an object of a user's class with another hash."""
    self._finalize()


class _State:
    """The state of an Owned object."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


BEGUN, OPEN, CLOSED = _State("begun"), _State("open"), _State("closed")
"""The values of :attr:`Owned._state`; code that must not make a call compares it itself."""


class Owned(NotCopied, Finalized):
    """Base class of owners of C memory: made once, closed once, and not used after that.

    A subclass calls :meth:`_begin` first in ``__init__``, and :meth:`_finish` when the object is
    complete. It releases what it owns in :meth:`_release`. That may be called again after an
    exception, and then releases the rest. Users may derive classes; this module and the runtime do
    not call methods that they may override.
    """

    _state: _State | None = None  # None where __init__ was not called
    _closes_when_dropped = True
    _releases = False  # a close is running
    _released = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__hash__ is not object.__hash__ and "__del__" not in cls.__dict__:
            cls.__del__ = _finalize_one

    def _begin(self) -> None:
        """Refuse a second ``__init__`` call, before anything is changed."""
        if self._state is not None and self._state is not BEGUN:
            refuse_again(self)
        self._state = BEGUN

    def _finish(self) -> None:
        """Let the object be used."""
        self._state = OPEN

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never made."""
        return self._state is not OPEN

    def _check_open(self) -> None:
        if self._state is not OPEN:
            name = type(self).__name__
            if self._state is CLOSED:
                raise ValueError(f"the {name} is closed")
            raise ValueError(f"the {name} was not made: {name}.__init__() did not end")

    def close(self) -> None:
        """Release what it owns; native code must not use it any more. Twice is a no-op.

        Where an exception interrupted it, the next call, or the finalizer, releases the rest.
        """
        if self._end():
            try:
                self._release()
                self._released = True
            finally:
                self._releases = False

    @step
    def _end(self) -> bool:
        """Become closed; return whether the caller releases, as only one of two threads does."""
        if self._state is not OPEN and self._state is not CLOSED:
            return False
        self._state = CLOSED
        if self._releases or self._released:
            return False
        self._releases = True
        return True

    def _release(self) -> None:
        """Release what it owns, or the rest of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _finalize(self) -> None:
        if self._state is CLOSED or (self._state is OPEN and self._closes_when_dropped):
            Owned.close(self)


def is_a(value: object, cls: type[Any]) -> bool:
    """Return whether a value's type is a class or a subclass; ``__class__`` is not consulted."""
    return issubclass(type(value), cls)


class _Collections:
    """Tracks whether the garbage collector runs, and runs deferred releases afterwards."""

    def __init__(self) -> None:
        self.running = False
        self.waiting: list[tuple[object, Callable[[], None]]] = []

    def __call__(self, phase: str, information: dict[str, Any]) -> None:
        """Note a collection's start; at its end run the releases. The collector calls this."""
        self.running = phase == "start"
        if self.running or not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        while waiting:
            token, release = waiting.pop()
            if sys.getrefcount(token) > _REFERENCES:
                self.waiting.append((token, release))  # its Resource still exists
            else:
                release()


def _count_references() -> int:
    """Return the reference count of a token without a Resource, measured as above."""
    waiting = [(object(), print)]
    token, _ = waiting.pop()
    return sys.getrefcount(token)


_REFERENCES = _count_references()
_collections = _Collections()


class Resource(NotCopied, Finalized):
    """A native resource, owned by every object that refers to this one.

    Parameters
    ----------
    release : callable
        Called without arguments after the last reference is dropped; not at interpreter exit,
        where code may still be called, and the system frees all memory.
    """

    __slots__ = ("_release", "_token")

    def __init__(self, release: Callable[[], None]) -> None:
        if hasattr(self, "_release"):
            refuse_again(self)
        self._release: Callable[[], None] | None = release
        self._token = object()  # this reference is dropped when this object is deallocated
        if _collections not in gc.callbacks:
            gc.callbacks.append(_collections)

    def _finalize(self) -> None:
        release = self._take()
        if release is None:
            return
        if _collections.running:
            _collections.waiting.append((self._token, release))
        else:
            release()

    @step
    def _take(self) -> Callable[[], None] | None:
        """Return the release to one caller: two threads may finalize what was dropped.

        Released twice would be worse than not at all.
        """
        try:
            release = self._release
        except AttributeError:  # __init__ did not end
            return None
        self._release = None
        return release
