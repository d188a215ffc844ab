"""Objects that users close, and the resources in C memory that several of them share.

Users have :class:`Owned` objects. Each is closed once and cannot be used after that. Memory that
native code may still use belongs to a :class:`Resource`, released with its last reference. So
closing never waits: the object drops its references to resources, and a running call has its own.

The finalizer of a Resource can run too early. In a garbage cycle the collector first calls all
finalizers, in any order, and then clears the objects. So another finalizer may still call native
code that uses the resource. So a :class:`Resource` that is finalized during a collection is
released at the end of the collection, or later if a finalizer has resurrected it.
"""

from __future__ import annotations

import gc
import sys

from asm_libcalls.owned import (
    Finalized,
    NotCopied,
    Released,
    attempt,
    not_made,
    raise_first,
    refuse,
    refuse_again,
)
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self


class _Unmade:
    def __get__(self, it: object, cls: type) -> _Unmade:
        if it is None:
            return self
        raise not_made(it)


def unmade() -> Any:
    """Return a class attribute that raises when read, for an attribute that ``__init__`` sets."""
    return _Unmade()


def _finalize_one(self: Any) -> None:
    """Finalize an object of a user's class that has its own ``__hash__``."""
    self._finalize()


class _State:
    """The state of an Owned object."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


BEGUN, OPEN, CLOSED = _State("begun"), _State("open"), _State("closed")
"""The values of :attr:`Owned._state`; code that must not make a call compares it itself."""


def _check_overrides(cls: type) -> None:
    """Raise TypeError if a user's class defines one of the names in ``_relied_on``."""
    for base in cls.__mro__:
        for name in vars(base).get("_relied_on", ()):
            definer = next(each for each in cls.__mro__ if name in vars(each))
            own = str(definer.__module__).partition(".")[0] == __name__.partition(".")[0]
            if not own and definer is not object:
                raise TypeError(
                    f"{definer.__name__} must not define {name!r}: "
                    f"the runtime relies on that of {base.__name__}"
                )


class Owned(NotCopied, Finalized):
    """Base class of owners of C memory: made once, closed once, and not used after that.

    A subclass calls :meth:`_begin` first in ``__init__``, and :meth:`_finish` when the object is
    complete. It releases what it owns in :meth:`_release`. That may be called again after an
    exception, and then releases the rest. Users may derive classes, which must not define the names
    in :attr:`_relied_on`. This module and the runtime use no other method that they may override.
    """

    _state: _State | None = None  # None where __init__ was not called
    _closes_when_dropped = True
    _releases = False  # a close is running
    _released = False

    # Steps get and set attributes, and no users' code may run in a step.
    _relied_on: tuple[str, ...] = "__delattr__", "__getattribute__", "__setattr__"
    """Names that users' classes must not define, because the runtime uses them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_overrides(cls)
        if cls.__hash__ is not object.__hash__ and "__del__" not in cls.__dict__:
            cls.__del__ = _finalize_one

    def _begin(self) -> None:
        """Refuse a second ``__init__`` call, before anything is changed."""
        if self._state is not None and self._state is not BEGUN:
            refuse(self)
        self._state = BEGUN
        # Set here, not first in a finalizer: for a new attribute CPython 3.11 may make the object's
        # dict. The collection that runs the finalizer takes the references in a new dict for uses
        # of the garbage, and frees nothing.
        self._releases = self._released = False

    def _finish(self) -> None:
        """Let the object be used."""
        self._state = OPEN

    @property
    def closed(self) -> bool:
        """Whether it was closed, or never made."""
        return self._state is not OPEN

    def _check_open(self) -> None:
        if self._state is not OPEN:
            if self._state is CLOSED:
                raise ValueError(f"the {type(self).__name__} is closed")
            raise not_made(self)

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
        """Become closed; return whether the caller must release: only one of two threads does."""
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
        self.waiting: dict[object, Callable[[], None]] = {}  # by the token of the Resource

    def __call__(self, phase: str, information: dict[str, Any]) -> None:
        """Note a collection's start; at its end run the releases. The collector calls this."""
        self.running = phase == "start"
        if self.running or not self.waiting:
            return
        errors: list[BaseException] = []
        for token in [*self.waiting]:
            if sys.getrefcount(token) <= _REFERENCES:  # its Resource was deallocated
                attempt(self.waiting[token], errors)
                del self.waiting[token]
        raise_first(errors)


def _count_references() -> int:
    """Return a token's reference count without a Resource, as :class:`_Collections` sees it."""
    waiting = {object(): print}
    for token in [*waiting]:
        return sys.getrefcount(token)
    raise AssertionError


_REFERENCES = _count_references()
_collections = _Collections()


class Resource(Released):
    """A native resource, owned by every object that refers to this one.

    Where the last reference is dropped by the garbage collector, it is released at the end of the
    collection.
    """

    __slots__ = ("_token",)

    def __init__(self, release: Callable[[], None]) -> None:
        refuse_again(self, "_release")
        # First: a signal handler may raise before the release is set.
        self._token = object()  # this reference is dropped when this object is deallocated
        super().__init__(release)
        if _collections not in gc.callbacks:
            gc.callbacks.append(_collections)

    def _give_back(self, release: Callable[[], None]) -> None:
        if _collections.running:
            _collections.waiting[self._token] = release
        else:
            release()
