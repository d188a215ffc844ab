"""A thread that wakes running code: for signals, and when a time limit expires.

Python only notes a signal down, and runs its handler in its main thread, between two instructions
of Python. So while the main thread is in native code, the watcher makes that code look, some times
a second. It needs no signal handler and no wake-up descriptor, which others (asyncio, IPython) set
as they need them. It also calls back when a deadline has passed. It ends where neither the main
thread nor a deadline needs it any more.

Entries of the main thread that the watcher must hear of find no interrupts in their thread's
record, and so come to Python.

Source: the thread functions are the interpreter's own, also where gevent or eventlet has replaced
those of ``_thread`` by functions of greenlets, which do not run while native code does.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import threading
from contextlib import suppress
from functools import cache
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.activation import ThreadRecord

__all__ = ["Watcher", "is_main_thread"]

PERIOD = 0.05
"""Seconds between two looks of the main thread's code: how long a signal may wait."""

_LONGEST_WAIT = 1.0
"""Seconds after which the thread looks whether it is still needed."""

_thread: Any = module_from_spec(BuiltinImporter.find_spec("_thread"))  # type: ignore[arg-type]
BuiltinImporter.exec_module(_thread)


def _state_function(name: str, *parameters: Any) -> Any:
    return ctypes.PYFUNCTYPE(ctypes.c_void_p, *parameters)((name, ctypes.pythonapi))


@cache
def _is_main_interpreter() -> bool:
    get, get_main = map(_state_function, ("PyInterpreterState_Get", "PyInterpreterState_Main"))
    return bool(get() == get_main())


def is_main_thread() -> bool:
    """Return whether this is the thread that runs signal handlers, which no subinterpreter has."""
    if not _is_main_interpreter():
        return False
    number = _thread.get_native_id()
    # The process's first one, and the only one behind a fork, of which `threading` may not know.
    return bool(number in (os.getpid(), threading.main_thread().native_id))


def _wait_for_thread_states() -> None:
    """In a subinterpreter: wait until it has no thread's state but this thread's.

    One that has given its lock back still has a state for a moment, and an interpreter that finds
    another thread's state at its end aborts the process.
    """
    if _is_main_interpreter():
        return
    newest = _state_function("PyInterpreterState_ThreadHead", ctypes.c_void_p)
    older = _state_function("PyThreadState_Next", ctypes.c_void_p)
    interpreter = _state_function("PyInterpreterState_Get")()
    this = _state_function("PyThreadState_Get")()
    pause = _thread.allocate_lock()
    pause.acquire()
    until = monotonic() + _LONGEST_WAIT
    while (newest(interpreter) != this or older(this)) and monotonic() < until:
        pause.acquire(timeout=0.001)


class Watcher:
    """The thread, while there is one, and what it waits for.

    Parameters
    ----------
    let_look : callable
        Lets the code that the main thread runs come to Python at its next check.
    find_record : callable
        Returns the record of the calling thread, or None.
    """

    def __init__(
        self, let_look: Callable[[], None], find_record: Callable[[], ThreadRecord | None]
    ) -> None:
        self._let_look = let_look
        self._find_record = find_record
        self._record: ThreadRecord | None = None  # of the main thread, while that is watched
        # When to call what. Each change is one operation, so a signal handler may make another.
        self._deadlines: dict[object, tuple[float, Callable[[], None]]] = {}
        self._renew()
        # A thread that Python finds at its end is ended by pthread_exit, for which glibc loads a
        # library: in a sandbox that refuses that, the process aborts.
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            # A fork finds no thread of ours, of which Python would warn.
            os.register_at_fork(
                before=self._pause, after_in_parent=self._resume, after_in_child=self._fork
            )

    def _renew(self) -> None:
        self._alive = _thread.allocate_lock()  # held by the thread, as long as it is there
        self._wake = _thread.allocate_lock()  # given back where it is to look before its time
        self._wake.acquire()
        self._stop = threading.Event()
        self._next = 0.0  # when the thread looks by itself, while it waits
        self._paused = False

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return bool(self._alive.locked())

    def entered(self, record: ThreadRecord) -> None:
        """Note that the main thread enters native code, and has just been given its interrupts."""
        known, self._record = self._record, record
        # Where there are no more threads, or Python is shutting down, signals wait.
        with suppress(RuntimeError):
            self._start(at_once=known is None)

    def add(self, key: object, deadline: float, call: Callable[[], None]) -> None:
        """Call something, once, when :func:`time.monotonic` has reached a deadline.

        Raises
        ------
        RuntimeError
            There can be no more threads.
        """
        self._deadlines[key] = deadline, call
        try:
            self._start(at_once=deadline < self._next)
        except BaseException:
            self.remove(key)
            raise

    def remove(self, key: object) -> None:
        """Forget a deadline, if it has not passed."""
        self._deadlines.pop(key, None)

    def _start(self, at_once: bool) -> None:
        if self._alive.acquire(blocking=False):
            try:
                _thread.start_new_thread(self._watch, (self._alive, self._wake, self._stop))
            except BaseException:
                self._alive.release()
                raise
        elif at_once:
            self._look_at_once()

    def _look_at_once(self) -> None:
        with suppress(RuntimeError):  # it was woken before
            self._wake.release()

    def _watch(self, alive: Any, wake: Any, stop: Any) -> None:
        while True:
            record = self._record
            if record is not None:
                record.interrupts = 0  # the next entry comes to `entered`
            self._wait(wake, PERIOD if record is not None else _LONGEST_WAIT)
            if stop.is_set():
                alive.release()
                return
            self._call_back()
            # Where there are interrupts, something was entered meanwhile.
            if record is not None and not record.interrupts:
                if record.innermost:
                    self._let_look()
                elif not record.departures:
                    self._record = None
                    if record.interrupts:
                        self._record = record  # entered before the line above
            if not self._is_needed():
                alive.release()
                # What was entered or added before this line has found the thread alive.
                if not self._is_needed() or not alive.acquire(blocking=False):
                    return

    def _is_needed(self) -> bool:
        return self._record is not None or bool(self._deadlines)

    def _earliest(self) -> float:
        return min((at for at, _ in [*self._deadlines.values()]), default=math.inf)

    def _wait(self, wake: Any, longest: float) -> None:
        earliest = self._earliest()
        now = monotonic()
        wait = min(longest, earliest - now)
        if wait <= 0:
            return
        self._next = now + wait
        # Who adds a deadline from here on finds when we look; what was added before is found now.
        if self._earliest() >= earliest:
            wake.acquire(timeout=wait)
        self._next = 0.0

    def _call_back(self) -> None:
        now = monotonic()
        for key, (at, call) in [*self._deadlines.items()]:
            if at <= now and key in self._deadlines:
                self.remove(key)
                call()

    def _pause(self) -> None:
        self._paused = self.running
        if self._paused:
            self._stop.set()
            self._look_at_once()
            self._alive.acquire(timeout=10 * PERIOD)

    def _end(self) -> None:
        self._pause()
        if self._paused:
            self._renew()
        _wait_for_thread_states()

    def _resume(self) -> None:
        if self._paused:
            self._renew()
            self._start(at_once=False)

    def _fork(self) -> None:
        # This thread is the child's main thread, whatever it was before.
        was_watched = self._paused
        self._renew()
        record = self._find_record()
        self._record = None
        if record is not None:
            record.interrupts = 0
            if was_watched and (record.innermost or record.departures):
                self._record = record
        if self._record is not None or self._deadlines:
            self._start(at_once=False)
