"""Steps: a few operations that no other thread may come between.

With the GIL that is any function which makes no call and no backward jump, since Python switches
threads at no other place; :func:`step` then does nothing. A build without the GIL needs a lock for
them. It is one for the process, because references go from store to store, and it is held for some
operations only: nothing that a step does runs a destructor, a callback or native code.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["step"]

if "t" in getattr(sys, "abiflags", ""):
    import os
    from functools import wraps
    from threading import RLock

    # Re-entrant: a collection can start in a step, and its finalizers come back here.
    _lock = RLock()

    def step(function: Callable[P, R]) -> Callable[P, R]:
        """Have one thread at a time in all functions that are steps."""

        @wraps(function)
        def alone(*arguments: P.args, **keywords: P.kwargs) -> R:
            with _lock:
                return function(*arguments, **keywords)

        return alone

    # No other thread is in a step when a process forks.
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )

else:

    def step(function: Callable[P, R]) -> Callable[P, R]:
        """Return the function: the GIL keeps others out."""
        return function
