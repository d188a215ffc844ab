"""Stopping compiled code from outside: a trap that another thread asks for, and Python's signals.

Every function and every loop compares rsp with the stack limit of its instance. The highest limit,
above every stack pointer, sends it to :func:`interrupted`, which is Python: there an asked-for trap
is raised, and Python has run the handlers of pending signals (Ctrl-C is one: KeyboardInterrupt).

Nobody tells us of a signal: Python only notes it down, and runs the handler in its main thread,
between two instructions of Python. So while the main thread is in native code for long, a *watcher*
thread lets its code look, some times a second. It is made by the first entry and ends when the
main thread is out of native code; entries of which it needs to hear find no stack limit in their
thread's record, and so come to Python. It needs no signal handler and no wake-up descriptor, which
others (asyncio, IPython) set as they need them.
"""

from __future__ import annotations

import atexit
import os
import threading
from _thread import allocate_lock, start_new_thread
from weakref import WeakValueDictionary

from asm_libcalls.native.entry import Activation, ThreadRecord
from asm_libcalls.traps import Interrupt
from asm_libcalls.vmcontext import VMInterrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance

__all__ = ["ask_to_stop", "interrupted", "stoppable", "time_limit", "watcher"]

PERIOD = 0.05
"""Seconds between two looks of the watcher: how long a signal may wait."""

stoppable: WeakValueDictionary[int, CompiledInstance] = WeakValueDictionary()
"""The instances with compiled code, by vmctx."""


def ask_to_stop(instance: CompiledInstance, trap: bool) -> None:
    """Have an instance's code come to :func:`interrupted` at its next check, and maybe trap."""
    if trap:
        instance.asked_to_trap = True
    instance.interrupts.stack_limit = VMInterrupts.STOP


def interrupted(vmctx: int) -> None:
    """Let signal handlers run, and trap if somebody asked for it; compiled code calls this."""
    instance = stoppable.get(vmctx)
    if instance is None:
        raise ValueError("the Instance is closed")
    instance.activations_table.end_transfer()
    # Before the question, so that who asks from now on is heard at the next check.
    instance.interrupts.stack_limit = instance.interrupts.native_stack_limit
    if instance.asked_to_trap:
        instance.asked_to_trap = False
        raise Interrupt


class time_limit:
    """A context in which an instance computes for some seconds at most.

    Then what it computes traps with :class:`~asm_libcalls.traps.Interrupt`, or will do so when it
    goes on. When the context is left, a trap that has not happened is called off.
    """

    def __init__(self, instance: CompiledInstance, seconds: float) -> None:
        self._instance = instance
        self._timer = threading.Timer(seconds, ask_to_stop, (instance, True))
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._instance.asked_to_trap = False


class _Watcher:
    """Lets the main thread's compiled code look for signals, while there is any that runs."""

    def __init__(self) -> None:
        self._record: ThreadRecord | None = None
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
        self._alive = allocate_lock()  # held by the thread, as long as it is there
        self._stop = allocate_lock()  # given back to end the thread before its time
        self._stop.acquire()
        self._paused = False

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._alive.locked()

    def entered(self, record: ThreadRecord) -> None:
        """Note that this thread enters native code, and has just been given its stack limit."""
        if threading.current_thread() is threading.main_thread():
            self._record = record
            self._start()

    def _start(self) -> None:
        if not self._alive.acquire(blocking=False):
            return
        try:
            start_new_thread(self._watch, (self._alive, self._stop))
        except RuntimeError:  # no more threads, or Python is shutting down: signals wait
            self._alive.release()

    def _watch(self, alive: Any, stop: Any) -> None:
        record = self._record
        assert record is not None
        while True:
            record.stack_limit = 0  # the next entry comes to `entered`
            stopped = stop.acquire(timeout=PERIOD)
            if not stopped and record.stack_limit:
                continue  # something new was entered meanwhile
            if not stopped and record.innermost:
                if not Activation.from_address(record.innermost).exit_frame_pointer:
                    self._let_look()
                continue
            alive.release()
            # Who entered before this line has found the thread alive.
            if stopped or not record.stack_limit or not alive.acquire(blocking=False):
                return

    def _let_look(self) -> None:
        for reference in stoppable.valuerefs():  # a list: nothing changes it while we go on
            instance = reference()
            if instance is not None:
                ask_to_stop(instance, trap=False)

    def _pause(self) -> None:
        self._paused = self.running
        if self._paused:
            self._stop.release()
            self._alive.acquire(timeout=10 * PERIOD)

    def _end(self) -> None:
        self._pause()
        if self._paused:
            self._renew()

    def _resume(self) -> None:
        if self._paused:
            self._renew()
            self._start()

    def _fork(self) -> None:
        # This thread is the child's main thread, whatever it was before.
        was_watched = self._paused
        self._renew()
        self._record = current_record()
        if self._record is not None:
            self._record.stack_limit = 0
            if was_watched and self._record.innermost:
                self._start()


def current_record() -> ThreadRecord | None:
    """Return the record of this thread, if it has ever entered native code."""
    from asm_libcalls.binding import default_binding
    from asm_libcalls.native.entry import MachineEntry

    entry = default_binding().entry
    assert isinstance(entry, MachineEntry)
    return entry.record()


watcher = _Watcher()
