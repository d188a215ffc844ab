"""The watcher: a thread that makes running code check for signals and expired time limits.

CPython records a signal, and runs its handler in the main thread between two bytecode instructions.
So while the main thread is in native code, the watcher makes that code call Python every
:data:`PERIOD`. It needs no signal handler and no wake-up descriptor, which asyncio and IPython set
for themselves. It also calls functions at deadlines. It ends when the main thread has left native
code and no deadline is left.

The watcher clears the interrupts in the main thread's record. So the next entry calls Python,
which reports it to the watcher.

It uses the interpreter's own ``_thread`` even if gevent or eventlet has replaced those functions:
theirs make greenlets, which do not run while native code does.
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
from weakref import ref

from asm_libcalls.emitter.libc import python_api
from asm_libcalls.native import process
from asm_libcalls.native.unraisable import report

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.activation import ThreadRecord

_POINTER = ctypes.c_void_p

PERIOD = 0.05
"""Seconds between two checks of the main thread's code: how long a signal may wait."""

_LONGEST_WAIT = 1.0
"""Seconds after which the watcher checks whether it is still needed."""

_thread: Any = module_from_spec(BuiltinImporter.find_spec("_thread"))  # type: ignore[arg-type]
BuiltinImporter.exec_module(_thread)


def thread_states() -> Iterator[int]:
    """Yield the addresses of this interpreter's thread states, the newest first."""
    older = python_api("PyThreadState_Next", _POINTER, _POINTER)
    interpreter = python_api("PyInterpreterState_Get", _POINTER)()
    state = python_api("PyInterpreterState_ThreadHead", _POINTER, _POINTER)(interpreter)
    while state:
        yield state
        state = older(state)


@cache
def _is_main_interpreter() -> bool:
    this, main = (python_api(f"PyInterpreterState_{name}", _POINTER)() for name in ("Get", "Main"))
    return bool(this == main)


def is_main_thread() -> bool:
    """Return whether this is the thread that runs signal handlers, which no subinterpreter has."""
    if not _is_main_interpreter():
        return False
    number = _thread.get_native_id()
    # The process's first thread, or after a fork its only one, which `threading` may not know.
    return bool(number in (os.getpid(), threading.main_thread().native_id))


def _wait_for_thread_states() -> None:
    """In a subinterpreter: wait until this thread's state is the only one.

    A thread has its state for a moment after it has released its lock, and a subinterpreter that
    ends with another thread's state aborts the process.
    """
    if _is_main_interpreter():
        return
    this = python_api("PyThreadState_Get", _POINTER)()
    pause = _thread.allocate_lock()
    pause.acquire()
    until = monotonic() + _LONGEST_WAIT
    while [*thread_states()] != [this] and monotonic() < until:
        pause.acquire(timeout=0.001)


class _NoThread(RuntimeError):
    """No thread can be started; a signal handler may raise other RuntimeErrors."""


class _Start:
    """A thread that has been started; the thread holds the only lasting reference."""

    __slots__ = ("__weakref__", "begun")

    def __init__(self) -> None:
        self.begun = False  # whether the thread has begun to watch, or found another that does


class Watcher:
    """The watcher thread, which is started when it is needed, and its deadlines.

    `request_check` makes the main thread's running code call Python at its next check.
    `find_record` returns the record of the calling thread, or None.

    A signal handler may raise at any call in the main thread. So the thread itself takes and
    releases the lock that says that it runs: no signal handler runs there. At worst two threads are
    started, and one ends at once.
    """

    def __init__(
        self, request_check: Callable[[], None], find_record: Callable[[], ThreadRecord | None]
    ) -> None:
        self._request_check = request_check
        self._find_record = find_record
        self._record: ThreadRecord | None = None  # the main thread's, while it is watched
        # Changes are atomic, so a signal handler may make another at any time.
        self._deadlines: dict[object, tuple[float, Callable[[], None]]] = {}
        self._forked = False  # whether `_fork` has ended
        self._renew()
        # Python ends threads that run at its exit by pthread_exit, for which glibc loads a library:
        # in a sandbox that refuses that, the process aborts.
        atexit.register(self._end)
        if hasattr(os, "register_at_fork"):
            # Python warns of a fork while another thread runs.
            os.register_at_fork(before=self._pause)
            # A signal handler's exception may end a function early. The second call does the rest.
            for in_child in (self._fork, self._finish_fork):
                os.register_at_fork(after_in_parent=self._resume, after_in_child=in_child)

    def _renew(self) -> None:
        self._alive = _thread.allocate_lock()  # the thread holds it while it watches
        self._wake = _thread.allocate_lock()  # released to end the thread's wait early
        self._started: Callable[[], _Start | None] = lambda: None  # as a dead reference
        self._stopping = False  # whether the thread must end
        self._next = 0.0  # when the thread's wait ends, while it waits

    @property
    def running(self) -> bool:
        """Whether the thread runs, or is about to."""
        if self._alive.locked():
            return True
        start = self._started()
        return start is not None and not start.begun

    def entered(self, record: ThreadRecord) -> bool:
        """Watch the main thread, which enters native code; return whether it is watched.

        If no thread can be started, or Python is shutting down, signals wait.
        """
        record.is_kept = True  # the main thread of a forked child may end before its process
        known, self._record = self._record, record
        try:
            self._start(at_once=known is None)
        except _NoThread:
            return False
        return True

    def add(self, key: object, deadline: float, call: Callable[[], None]) -> None:
        """Call a function, when :func:`time.monotonic` has reached a deadline.

        It is called again if it raises an exception. RuntimeError is raised if no thread can be
        started.
        """
        try:
            self._deadlines[key] = deadline, call
            self._start(at_once=deadline < self._next)
        except BaseException:
            self.remove(key)
            raise

    def remove(self, key: object) -> None:
        """Forget a deadline, if it has not passed."""
        self._deadlines.pop(key, None)

    def _start(self, at_once: bool) -> None:
        self._stopping = False  # if it is ending for a fork, that may wait in vain
        if not self.running:
            start = _Start()
            try:
                _thread.start_new_thread(self._watch, (start, self._alive, self._wake))
            except RuntimeError as error:
                raise _NoThread(*error.args) from error
            self._started = ref(start)
        elif at_once:
            self._end_wait()

    def _end_wait(self) -> None:
        with suppress(RuntimeError):  # it was released before
            self._wake.release()

    def _watch(self, start: _Start, alive: Any, wake: Any) -> None:
        is_first = alive.acquire(blocking=False)
        start.begun = True
        process.own_idents.add(_thread.get_ident())
        while is_first:
            try:
                self._serve(wake)
            except BaseException as error:  # such as MemoryError; what is due stays due
                report(error, "in", self._watch)
                wake.acquire(timeout=PERIOD)
            finally:
                alive.release()
            # An entry or deadline before the release has found the thread running: check again.
            is_first = not self._must_end() and alive.acquire(blocking=False)
        process.own_idents.discard(_thread.get_ident())

    def _serve(self, wake: Any) -> None:
        while not self._must_end():
            record = self._record
            if record is not None:
                record.interrupts = 0  # the next entry comes to `entered`
            self._wait(wake, PERIOD if record is not None else _LONGEST_WAIT)
            if self._must_end():
                return
            self._call_back()
            # If the record has interrupts, native code was entered meanwhile.
            if record is not None and not record.interrupts:
                if record.innermost:
                    self._request_check()
                elif not record.departures:
                    self._record = None
                    # In this order: an entry is in Python until it has set the interrupts.
                    if record.departures or record.interrupts:
                        self._record = record  # entered before the line above

    def _must_end(self) -> bool:
        return self._stopping or not self._is_needed()

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
        # A deadline added from here on is compared with `_next`; one added before is found now.
        if self._earliest() >= earliest:
            wake.acquire(timeout=wait)
        self._next = 0.0

    def _call_back(self) -> None:
        now = monotonic()
        for key, (at, call) in [*self._deadlines.items()]:
            if at <= now and key in self._deadlines:
                call()
                self.remove(key)

    def _pause(self) -> None:
        if self.running:
            self._stop()

    def _stop(self) -> None:
        self._stopping = True
        self._end_wait()
        pause = _thread.allocate_lock()
        pause.acquire()
        until = monotonic() + 10 * PERIOD
        while self.running and monotonic() < until:
            pause.acquire(timeout=0.0001)

    def _end(self) -> None:
        self._pause()
        self._stopping = False
        _wait_for_thread_states()

    def _resume(self) -> None:
        # Also if another fork has ended it: several threads may fork at once.
        record = self._record
        if record is not None:
            record.interrupts = 0  # the next entry starts it, if no thread can be started here
        if self._is_needed():
            self._start(at_once=False)

    def _fork(self) -> None:
        # This thread is the child's main thread, even if it was another one in the parent.
        self._forked = False
        process.own_idents.clear()
        self._renew()
        record = self._find_record()
        self._record = None
        if record is not None:
            record.interrupts = 0
            record.is_kept = True
            if record.innermost or record.departures:
                self._record = record
        if self._is_needed():
            self._start(at_once=False)
        self._forked = True

    def _finish_fork(self) -> None:
        if not self._forked:
            self._fork()
        self._forked = False
