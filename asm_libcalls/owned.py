"""Ownership of C memory: closable objects, and the resources that several of them share.

Users have :class:`Owned` objects. Each is closed once and cannot be used after that. Memory that
native code may still use is in a :class:`Resource`, released with its last reference. So closing
never waits: the object drops its references to resources, and a running call holds its own.

A signal handler may raise at the first instruction of any Python function, ``__del__`` included. So
the finalizer of these objects begins in C: see :class:`Finalized`.

The finalizer of a Resource can run too early. In a garbage cycle the collector first calls all
finalizers, in any order, and then clears the objects. So another finalizer may still call native
code that uses the resource. So a :class:`Resource` that is finalized during a collection is
released at the end of the collection, or later if a finalizer has resurrected it.
"""

from __future__ import annotations

import gc
import sys
from itertools import repeat

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import defaultdict
    from collections.abc import Callable
    from typing import Any, NoReturn, Self
else:
    from _collections import defaultdict  # importing collections takes longer

__all__ = [
    "OPEN",
    "Finalized",
    "NotCopied",
    "Owned",
    "Released",
    "Resource",
    "attempt",
    "is_a",
    "not_made",
    "raise_first",
    "refuse_again",
    "unmade",
]


class NotMade(ValueError, AttributeError):
    """An object is used whose ``__init__`` was not called, or has not ended."""


def not_made(it: object) -> NotMade:
    """Return the exception for the use of an object that was not made."""
    name = type(it).__name__
    return NotMade(f"the {name} was not made: {name}.__init__() did not end")


class _Unmade:
    def __get__(self, it: object, cls: type) -> _Unmade:
        if it is None:
            return self
        raise not_made(it)


def unmade() -> Any:
    """Return what a class has for an attribute that ``__init__`` sets: reading it is an error."""
    return _Unmade()


def refuse_again(made: object, attribute: str) -> None:
    """Raise RuntimeError if ``__init__`` is called on an object that has an attribute already.

    The ``__getattr__`` of a user's class is not called.
    """
    try:
        object.__getattribute__(made, attribute)
    except AttributeError:
        return
    _refuse(made)


def _refuse(made: object) -> NoReturn:
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
    """Finalize what was dropped; raise the first exception, which Python reports."""
    if is_finalizing():
        return  # modules may be cleared already; the system frees all memory
    errors: list[BaseException] = []
    for each in dict.copy(_dropped):  # one operation; other threads put objects in meanwhile
        if not attempt(each._finalize, errors) and _is_too_deep(errors[-1]):
            break  # the next finalizer continues, perhaps at a lesser depth
        _dropped.pop(each, None)  # not reached if a signal handler raises outside of the `try`
    raise_first(errors)


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


def _check_overrides(cls: type) -> None:
    """Raise TypeError if a class of a user defines what the runtime relies on."""
    for base in cls.__mro__:
        for name in vars(base).get("_relied_on", ()):
            definer = next(each for each in cls.__mro__ if name in vars(each))
            if definer.__module__.partition(".")[0] != __name__.partition(".")[0]:
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

    _relied_on: tuple[str, ...] = ()
    """Names that users' classes must not define, because the runtime uses them."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_overrides(cls)
        if cls.__hash__ is not object.__hash__ and "__del__" not in cls.__dict__:
            cls.__del__ = _finalize_one

    def _begin(self) -> None:
        """Refuse a second ``__init__`` call, before anything is changed."""
        if self._state is not None and self._state is not BEGUN:
            _refuse(self)
        self._state = BEGUN
        # Not first in a finalizer: for a new attribute CPython 3.11 may make the object's dict. The
        # collection that runs the finalizer does not know that dict, and frees nothing of it.
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
        self.waiting: dict[object, Callable[[], None]] = {}  # by the token of the Resource

    def __call__(self, phase: str, information: dict[str, Any]) -> None:
        """Note a collection's start; at its end run the releases. The collector calls this."""
        self.running = phase == "start"
        if self.running or not self.waiting:
            return
        errors: list[BaseException] = []
        for token in [*self.waiting]:
            if sys.getrefcount(token) <= _REFERENCES:  # its Resource does not exist any more
                attempt(self.waiting[token], errors)
                del self.waiting[token]
        raise_first(errors)


def _count_references() -> int:
    """Return the reference count of a token without a Resource, measured as above."""
    waiting = {object(): print}
    for token in [*waiting]:
        return sys.getrefcount(token)
    raise AssertionError


_REFERENCES = _count_references()
_collections = _Collections()


class Released(NotCopied, Finalized):
    """Something of C's that `release` gives back, after the last reference to this is dropped.

    Not at interpreter exit, where code may still use it, and the system frees all memory. `release`
    is called again if it raises, as the exception may be a signal handler's: what it has done it
    does not do again.

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
        """Never release it: something that this object does not know of uses it."""
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
        """Return the release to one call at a time: two threads may finalize what was dropped."""
        try:
            release = self._release
        except AttributeError:  # __init__ did not end
            return None
        if release is None or self._releases is not None:
            return None
        self._releases = call
        return release


class Resource(Released):
    """A native resource, owned by every object that refers to this one.

    Where the last reference is dropped by the garbage collector, it is released at the end of the
    collection.
    """

    __slots__ = ("_token",)

    def __init__(self, release: Callable[[], None]) -> None:
        refuse_again(self, "_release")
        # Before what is released: a signal handler may raise in between.
        self._token = object()  # this reference is dropped when this object is deallocated
        super().__init__(release)
        if _collections not in gc.callbacks:
            gc.callbacks.append(_collections)

    def _give_back(self, release: Callable[[], None]) -> None:
        if _collections.running:
            _collections.waiting[self._token] = release
        else:
            release()
