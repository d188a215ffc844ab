"""Steps: functions that run atomically, with or without the GIL.

With the GIL, a function without a call and without a backward jump is atomic, since Python switches
threads at no other place. The exception is a trace function, which runs at each new line. So
:func:`step` puts all of the function's code on one line.

A build without the GIL also takes a lock. The process has one lock for all steps, because
references move between stores. Machine code that counts references takes it too
(``runtime/step_lock.py``). It is held briefly: a step runs no destructor, callback or native code.

Signal handlers and collections could wait for a thread that waits for the lock. CPython runs them
where Python calls a function or jumps backward, and where a Python function begins. So a step has
none of these while it has the lock. Before the lock is shared with machine code, and while a
debugger or profiler is active, other code can run in a step. Code of this package that waits for
another thread there does so by :func:`wait_outside`.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")

HAS_GIL = "t" not in getattr(sys, "abiflags", "")
"""Whether this build of Python has a GIL."""

_NO_COLUMNS = 0x80 | 13 << 3
"""The first byte of an entry in a code object's location table, for up to eight code units. Its low
three bits are the number of units less one. The next byte is the distance from the line before.
Source: CPython, ``InternalDocs/code_objects.md``, "Location entries"."""


def _on_one_line(code: CodeType) -> CodeType:
    """Return the code with all of it on one line: a trace function runs only at its start."""
    full, rest = divmod(len(code.co_code) // 2, 8)
    table = bytes((_NO_COLUMNS | 7, 0)) * full
    return code.replace(co_linetable=table + bytes((_NO_COLUMNS | rest - 1, 0)) if rest else table)


if not HAS_GIL:
    import os
    from functools import wraps
    from opcode import opmap
    from threading import RLock

    # Re-entrant: a collection can start in a step, and its finalizers may call steps.
    _lock = RLock()
    _shared: list[Any] = []
    """The lock that replaces it, once :func:`use` was called."""

    def use(lock: Any) -> Any:
        """Set the lock of all steps, unless one is set; return the one that is set."""
        with _lock:
            if not _shared:
                _shared.append(lock)
        return _shared[0]

    _AT_START, _AFTER_YIELD_FROM = 0, 2
    """Arguments of RESUME, the first instruction of a function. At the second one CPython runs no
    signal handlers and no collection."""

    def _uninterrupted(function: Callable[..., Any]) -> None:
        """Have CPython run no signal handlers and no collection where a function begins."""
        code = _on_one_line(function.__code__)
        if code.co_code[:2] == bytes((opmap["RESUME"], _AT_START)):
            begin = bytes((opmap["RESUME"], _AFTER_YIELD_FROM))
            code = code.replace(co_code=begin + code.co_code[2:])
        function.__code__ = code

    def step(function: Callable[P, R]) -> Callable[P, R]:
        """Return the function so that it excludes all other steps."""
        _uninterrupted(function)

        @wraps(function)
        def alone(*arguments: Any) -> R:
            if not _shared:
                with _lock:
                    if not _shared:
                        return function(*arguments)  # type: ignore[call-arg]
            lock = _shared[0]
            # A signal handler may raise after any call. `leave` is a C function, so nothing
            # interrupts it.
            before = lock.depth()
            try:
                for looks, _ in enumerate(iter(lock.attempt, 1)):
                    lock.pause(looks)
                # The iterator has taken the lock, without a call in Python code. The next call is
                # not in the `return`: a debugger's exception after it would be outside the `try`.
                result = function(*arguments)  # type: ignore[call-arg]
            finally:
                lock.leave(before)
            return result

        alone.__code__ = _on_one_line(alone.__code__)  # type: ignore[attr-defined]
        return alone  # type: ignore[return-value]

    def wait_outside(wait: Callable[[], object]) -> None:
        """Call a function that waits for another thread, and leave the steps meanwhile.

        Other steps may run during the wait, as with the GIL.
        """
        depth: Callable[[], int] = _lock._recursion_count  # type: ignore[attr-defined]
        lock: Any = _shared[0] if _shared else None
        outer = depth()
        held = lock.depth() if lock else 0
        try:
            if held:
                lock.leave(0)
            for _ in range(outer):
                _lock.release()
            wait()
        finally:
            while depth() < outer:
                _lock.acquire()
            while held and lock.depth() < held:
                lock.take()

    def _before_fork() -> None:
        _lock.acquire()
        for lock in _shared:
            lock.take()

    def _after_fork() -> None:
        for lock in _shared:
            lock.end()
        _lock.release()

    _uninterrupted(_after_fork)

    # No other thread is in a step when a process forks. Functions that are registered later may
    # wait for other threads. Python calls them before `_before_fork`, and after `_after_fork`.
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )

else:

    def step(function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, on one line: the GIL makes it atomic with a trace function too."""
        function.__code__ = _on_one_line(function.__code__)
        return function

    def use(lock: Any) -> Any:
        """Do nothing."""
        return lock

    def wait_outside(wait: Callable[[], object]) -> None:
        """Call a function that waits for another thread."""
        wait()
