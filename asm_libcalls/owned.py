"""What native code uses is released when its last owner is gone, and not before.

``__del__`` alone is too early for that. Where an owner is in a cycle of garbage, the collector
calls the finalizers of all that is in the cycle first, in any order, and only then takes it apart;
so another finalizer may still call native code that uses what this one has released. A
:class:`Resource` that is finalized during a collection waits for its end. It waits longer if it is
still there then, because some finalizer has brought it back to life.
"""

from __future__ import annotations

import gc
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

__all__ = ["NotCopied", "Resource"]


class NotCopied:
    """Base class of what :mod:`copy` and :mod:`pickle` must leave alone; they raise TypeError."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects can not be copied or pickled: "
            "each stands for a C address"
        )


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
