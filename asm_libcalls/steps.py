"""Steps: functions that run atomically, with or without the GIL.

With the GIL, a function without a call and without a backward jump is atomic, since Python switches
threads at no other place; :func:`step` does nothing. A build without the GIL takes a lock. The
process has one lock for all steps, because references move between stores. It is held briefly: a
step runs no destructor, callback or native code.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["HAS_GIL", "step"]

HAS_GIL = "t" not in getattr(sys, "abiflags", "")
"""Whether this build of Python has a GIL."""

if not HAS_GIL:
    import os
    from functools import wraps
    from threading import RLock

    # Re-entrant: a collection can start in a step, and its finalizers may call steps.
    _lock = RLock()

    def step(function: Callable[P, R]) -> Callable[P, R]:
        """Return the function under the lock that all steps share."""

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
        """Return the function unchanged: the GIL makes it atomic."""
        return function
