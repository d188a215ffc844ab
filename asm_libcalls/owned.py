"""The ownership of C memory: objects that are closed, and resources that several of them share.

An :class:`Owned` object is what users have. It is closed once, and refuses to be used after that;
what native code may still be using is in a :class:`Resource`, which is released when its last owner
is gone, and not before. So closing never waits: the object lets go of its resources, and a call
that runs holds them until it leaves.

``__del__`` alone is too early for that. Where an owner is in a cycle of garbage, the collector
calls the finalizers of all that is in the cycle first, in any order, and only then takes it apart;
so another finalizer may still call native code that uses what this one has released. A
:class:`Resource` that is finalized during a collection waits for its end. It waits longer if it is
still there then, because some finalizer has brought it back to life.
"""

from __future__ import annotations

import gc
import sys

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from typing_extensions import Self

__all__ = ["OPEN", "NotCopied", "Owned", "Resource", "is_a"]


class NotCopied:
    """Base class of what :mod:`copy` and :mod:`pickle` must leave alone; they raise TypeError."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects can not be copied or pickled: "
            "each stands for a C address"
        )


class _State:
    """What an Owned object has come to."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


BEGUN, OPEN, CLOSED = _State("begun"), _State("open"), _State("closed")
"""What :attr:`Owned._state` is; code that must not make a call compares it itself."""


class Owned(NotCopied):
    """Base class of what owns C memory: made once, closed once, and not used after that.

    A subclass calls :meth:`_begin` first of all in ``__init__``, :meth:`_finish` when the object
    is whole, and releases what it owns in :meth:`_release`. Users may derive classes: what they
    override, of dunders too, is not relied upon here and in the runtime.
    """

    _state: _State | None = None  # None where __init__ was not called
    _closes_when_dropped = True

    def _begin(self) -> None:
        """Refuse to make an object again that has been made, before anything is changed."""
        if self._state is not None and self._state is not BEGUN:
            raise RuntimeError(
                f"{type(self).__name__}.__init__() was called again on the same object: "
                "make another one"
            )
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
        """Release what it owns; native code must not use it any more. Twice is a no-op."""
        if self._end():
            self._release()

    @step
    def _end(self) -> bool:
        """Be closed; return whether it was open: of two threads one alone closes."""
        if self._state is OPEN:
            self._state = CLOSED
            return True
        return False

    def _release(self) -> None:
        """Release what it owns; called once."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At interpreter exit what modules name may be gone already; the process gives all back.
        if self._state is OPEN and self._closes_when_dropped and not is_finalizing():
            Owned.close(self)


def is_a(value: object, cls: type[Any]) -> bool:
    """Return whether a value is an instance of a class; isinstance() believes its __class__."""
    return issubclass(type(value), cls)


class _Collections:
    """Knows when the garbage collector is at work, and does afterwards what has to wait."""

    def __init__(self) -> None:
        self.running = False
        self.waiting: list[tuple[object, Callable[[], None]]] = []

    def __call__(self, phase: str, information: dict[str, Any]) -> None:
        """Be called by the collector."""
        self.running = phase == "start"
        if self.running or not self.waiting:
            return
        waiting, self.waiting = self.waiting, []
        while waiting:
            token, release = waiting.pop()
            if sys.getrefcount(token) > _REFERENCES:
                self.waiting.append((token, release))  # its Resource is still there
            else:
                release()


def _count_references() -> int:
    """Count those of a token that nobody else has, as it is looked at above."""
    waiting = [(object(), print)]
    token, _ = waiting.pop()
    return sys.getrefcount(token)


_REFERENCES = _count_references()
_collections = _Collections()


class Resource(NotCopied):
    """Something native, whose owners refer to this object.

    Parameters
    ----------
    release : callable
        Called without arguments when there are no owners any more; unless Python is shutting down,
        where nobody knows what is called yet, and the process gives all back.
    """

    __slots__ = ("_release", "_token")

    def __init__(self, release: Callable[[], None]) -> None:
        if hasattr(self, "_release"):
            raise RuntimeError(f"{type(self).__name__}.__init__() was called again")
        self._release = release
        self._token = object()  # this reference to it goes when this object is deallocated
        if _collections not in gc.callbacks:
            gc.callbacks.append(_collections)

    def __del__(self, is_finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        release = getattr(self, "_release", None)
        if release is None or is_finalizing():
            return
        if _collections.running:
            _collections.waiting.append((self._token, release))
        else:
            release()
