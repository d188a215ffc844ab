"""Interrupts: requests to trap, and Python's signal handlers, during compiled code.

Each function and each loop of compiled code checks rsp against the stack limit in a
``VMInterrupts``. Each thread has one, and each instance points to that of the thread that entered
it last: entries, and calls between instances, set the pointer. The limit STOP is above every stack
pointer. It sends code to :func:`interrupted`, a Python function, which raises requested traps.
Python runs the handlers of pending signals there (Ctrl-C: KeyboardInterrupt).

A request is for an instance and all that it calls, by imports or through host functions. So a
request makes all threads check, and each walks its stack for the instance. It also points the
instance to :data:`_CHECK`, whose limit is STOP. So an instance that is on no stack checks at its
next entry, where the pointer is set to the thread's VMInterrupts again.
"""

from __future__ import annotations

import ctypes
import os
from _thread import get_ident
from functools import partial
from operator import attrgetter
from time import monotonic
from weakref import WeakValueDictionary, ref

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import libc
from asm_libcalls.native import process
from asm_libcalls.native.entry import MachineEntry
from asm_libcalls.native.stack_walker import departed_stacks, word
from asm_libcalls.owned.objects import OPEN
from asm_libcalls.runtime import releasing
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.codegen.places import VMCTX_IN_FRAME
from asm_libcalls.toy_jit.runtime.watcher import Watcher, is_main_thread
from asm_libcalls.traps import Interrupt
from asm_libcalls.vmcontext import VMInterrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.activation import ThreadRecord
    from asm_libcalls.toy_jit.runtime.deadlines import Deadline

_POINTER = ctypes.sizeof(ctypes.c_size_t)


class _Thread:
    """The VMInterrupts of one thread, and the state of its checks."""

    def __init__(self) -> None:
        # never freed: an instance may point to that of a thread that has ended
        self.interrupts = VMInterrupts(VMInterrupts.STOP, 0)
        libc.never_free(self.interrupts)
        self.walks = False  # whether the next check concerns all instances on the thread's stack
        self.is_main = False
        self.record: ThreadRecord | None = None

    def begin(self, record: ThreadRecord) -> None:
        """Note the record of a thread, which other threads read from now on."""
        before, self.record = self.record, record
        record.is_kept = True
        if before is not None and ctypes.addressof(before) != ctypes.addressof(record):
            libc.free(ctypes.addressof(before))  # of a thread that had the same number and ended

    def is_inside(self) -> bool:
        """Return whether the thread is inside native code, or in Python code that it has called."""
        record = self.record
        return record is not None and bool(record.innermost or record.departures)

    @property
    def address(self) -> int:
        return ctypes.addressof(self.interrupts)

    def check_soon(self) -> None:
        """Make the thread's code call :func:`interrupted` at its next check."""
        self.interrupts.stack_limit = VMInterrupts.STOP

    def go_on(self) -> None:
        """Undo :meth:`check_soon`."""
        interrupts, address = self.interrupts, self.address
        while True:
            # An entry may have pointed a closed instance here, and not reached its check yet.
            instances = [it for r in [*_closed.values()] if (it := r()) is not None]
            cells = [_pointer(it._last_vmctx) for it in instances]
            for cell in cells:
                if cell.value == address:
                    cell.value = _CHECK
            pointers = map(_value, cells)
            # No call from here on, so no entry.
            if address not in pointers:
                interrupts.stack_limit = interrupts.native_stack_limit
                return


_value = attrgetter("value")
_stopping = VMInterrupts(VMInterrupts.STOP, 0)
libc.never_free(_stopping)
_CHECK = ctypes.addressof(_stopping)
"""Address of the VMInterrupts of instances that call :func:`interrupted` at their next check."""

_threads: dict[int, _Thread] = {}
"""By pthread_t. A new thread with the number of one that has ended takes over its entry."""

_pthread_self = libc.prototype("pthread_self", ctypes.c_ulong)


def _this_thread() -> _Thread:
    number = _pthread_self()
    return _threads.get(number) or _threads.setdefault(number, _Thread())


def _forget_other_threads() -> None:
    this = _this_thread()
    for thread in _threads.values():
        if thread is not this:
            thread.record = None  # a forked child does not have that thread
    this.is_main = is_main_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


def _make_main_thread_check() -> None:
    for thread in [*_threads.values()]:
        if thread.is_main:
            thread.check_soon()


def _make_all_threads_check() -> None:
    for thread in [*_threads.values()]:
        thread.walks = True
        thread.check_soon()


def current_record() -> ThreadRecord | None:
    """Return the record of this thread, if it has ever entered native code."""
    return _entry().record()


def _entry() -> MachineEntry:
    entry = default_binding().entry
    assert isinstance(entry, MachineEntry)
    return entry


watcher = Watcher(_make_main_thread_check, current_record)
process.own_threads.append(lambda: watcher.running)


def interrupts_of_thread() -> int:
    """Return the address of this thread's VMInterrupts, and note it in the thread's record.

    The entry stencil calls this if the record has none.
    """
    record = current_record()
    assert record is not None  # made by the entry that calls this
    thread = _this_thread()
    thread.begin(record)
    is_main = is_main_thread()
    if not (is_main and thread.is_main):  # else the watcher cleared its record
        thread.is_main = is_main
        thread.check_soon()
    # The next entry comes here again if no watcher could be started, and after an exception of a
    # signal handler.
    if not is_main or watcher.entered(record):
        record.interrupts = thread.address
    return thread.address


stoppable: WeakValueDictionary[int, StoppableInstance] = WeakValueDictionary()
"""The instances with compiled code, by vmctx."""

_closed: dict[int, ref[StoppableInstance]] = {}
"""By vmctx, the closed ones that exist. Made with the instance, a reference is dead before the
collector takes the instance apart; one that its finalizer made would not be."""


def stoppable_instances() -> Iterator[StoppableInstance]:
    """Yield the instances with compiled code that exist now."""
    for reference in stoppable.valuerefs():  # a list: other threads change the mapping meanwhile
        instance = reference()
        if instance is not None:
            yield instance


class StoppableInstance(Instance):
    """An instance whose code checks its VMInterrupts."""

    _reference: ref[StoppableInstance] | None = None  # to this one, once __init__ has ended

    def __init__(self, **parts: Any) -> None:
        self._begin()
        self._last_user = 0
        self.asked_to_trap = False  # whether it must trap, once
        # Of the time limits and asynchronous calls in force. Once one has passed, each check of its
        # thread traps.
        self.deadlines: list[Deadline] = []
        super().__init__(**parts)
        self._reference = ref(self, partial(_forget, self.vmctx))
        stoppable[self.vmctx] = self
        self.check_at_entry()

    def check_at_entry(self) -> None:
        """Make its code call :func:`interrupted` at its next check, on any thread."""
        if not self.closed:
            self.last_user()
            _pointer(self.vmctx).value = _CHECK

    def last_user(self) -> int:
        """Return the address of the VMInterrupts of the thread that has entered it last."""
        if self._vmctx:
            interrupts = _pointer(self._vmctx).value
            if interrupts != _CHECK:
                self._last_user = interrupts
        return self._last_user

    def check_soon(self) -> None:
        """Make its code, and all code that it calls, call :func:`interrupted` at the next check."""
        # In this order: a thread that enters the instance after the first call checks at the entry,
        # and a thread that entered it before is reached by the second.
        self.check_at_entry()
        _make_all_threads_check()

    def _release(self) -> None:
        # Running code stops at its next check, and a new call at its first.
        self._last_vmctx = vmctx = self._vmctx or self._last_vmctx
        if HAS_GIL and self._vmctx:
            user = _threads_inside().get(self.last_user())
            self._is_used = None if user is None else user.is_inside
        reference = self._reference
        if reference is not None and reference() is not None:
            _closed[vmctx] = reference
        stoppable.pop(vmctx, None)
        _pointer(vmctx).value = _CHECK
        if releasing.may_be_running():
            _make_all_threads_check()
        super()._release()

    def ask_to_trap(self) -> None:
        """Make its running code trap, or else its next call."""
        self.asked_to_trap = True
        self.check_soon()

    def passed(self) -> list[Deadline]:
        """Return the deadlines that have passed, of any thread."""
        return [deadline for deadline in [*self.deadlines] if deadline.at <= monotonic()]

    def has_expired(self) -> bool:
        """Return whether a deadline of this thread has passed."""
        threads = 0, get_ident()
        return any(deadline.thread in threads for deadline in self.passed())

    def _check_while_waiting(self) -> None:
        if self.closed:
            raise ValueError("the Instance is closed")
        if self.has_expired():
            raise Interrupt

    def trap_if_asked(self) -> None:
        """Raise Interrupt if this instance must trap."""
        if self.has_expired():
            raise Interrupt
        if self.asked_to_trap:
            self.asked_to_trap = False
            raise Interrupt


def _threads_inside() -> dict[int, _Thread]:
    """Return the other threads that are inside native code, by the address of VMInterrupts."""
    this = _this_thread()
    others = [each for each in [*_threads.values()] if each is not this]
    return {each.address: each for each in others if each.is_inside()}


def _find_user(part: object) -> Callable[[], bool] | None:
    """Return a test of whether another thread uses an instance with this part, or None."""
    inside = _threads_inside()
    for instance in stoppable_instances() if inside else ():
        user = inside.get(instance.last_user())
        parts = (*instance.tables, *instance.globals, *instance.elements)
        if user is not None and any(part is each for each in parts):
            return user.is_inside
    return None


def _find_record(ident: int) -> ThreadRecord | None:
    """Return the record of a thread, by Python's identifier, which is its pthread_t."""
    thread = _threads.get(ident)
    return None if thread is None else thread.record


if HAS_GIL:
    releasing.user_finders.append(_find_user)
    releasing.record_finders.append(_find_record)


def _forget(vmctx: int, _: object) -> None:
    _closed.pop(vmctx, None)


def _pointer(vmctx: int) -> ctypes.c_size_t:
    """Return the pointer to the VMInterrupts, the first field of the VMContext."""
    return ctypes.c_size_t.from_address(vmctx)


def interrupted(vmctx: int) -> None:
    """Trap if that was requested; compiled code calls this. Signal handlers run in it."""
    thread = _this_thread()
    instance = stoppable.get(vmctx)
    # An exception in this line, also one of a signal handler, leaves the requests as they are. The
    # next check comes here again: a time limit stays in force.
    _trap_if_asked(instance, thread.walks)
    try:
        walks, thread.walks = thread.walks, False
        _go_on(vmctx, instance, thread)
        _trap_if_asked(instance, walks)  # if it was requested since
        _keep_deadlines(instance, thread, walks)
    except BaseException:
        thread.walks = True
        thread.check_soon()
        _pointer(vmctx).value = _CHECK
        raise


def _trap_if_asked(instance: StoppableInstance | None, walks: bool) -> None:
    if instance is not None:
        instance.trap_if_asked()
    if walks:
        for other in _instances_on_stack():
            other.trap_if_asked()


def _keep_deadlines(instance: StoppableInstance | None, thread: _Thread, walks: bool) -> None:
    """Schedule a check for deadlines that have passed and are not of the code that checks now.

    A deadline may be of another thread, which will enter the instance, or of this thread and
    another instance, which it will enter.
    """
    for deadline in () if instance is None else instance.passed():
        owner = _threads.get(deadline.thread)
        if owner is not None and owner is not thread:
            owner.walks = True
            owner.check_soon()
    if walks:
        for other in stoppable_instances():
            if other is not instance and other.has_expired():
                other.check_at_entry()


def _go_on(vmctx: int, instance: StoppableInstance | None, thread: _Thread) -> None:
    """Let an instance's code go on without checks, or raise ValueError if it is closed."""
    pointer, address = _pointer(vmctx), thread.address
    thread.go_on()
    # No call until the pointer is set, so a closed instance never points to another limit.
    if instance is None or instance._state is not OPEN:
        pointer.value = _CHECK  # so that each further call comes here too
        raise ValueError("the Instance is closed")
    pointer.value = address


def _instances_on_stack() -> list[StoppableInstance]:
    """Return the instances with frames on this thread's stack that must trap."""
    sought = {
        vmctx: instance
        for instance in stoppable_instances()
        if (vmctx := instance._vmctx) and (instance.asked_to_trap or instance.has_expired())
    }
    found = {}
    if sought:
        for frame_pointer in _frames():
            # In a frame of other native code this is any word. One that equals a vmctx counts.
            value = word(frame_pointer + VMCTX_IN_FRAME)
            if value in sought:
                found[value] = sought.pop(value)
    return [*found.values()]


def _frames() -> Iterator[int]:
    """Yield the frame pointers of this greenlet's native code, as far as the chain is intact."""
    for departure, moved in departed_stacks(_entry().departures() or (), own=True):
        below, at, canary = 0, departure.exit_frame_pointer, departure.canary
        # Other native code may have any word in rbp. What rises to the canary is live stack.
        while moved == 0 and below < at < canary and at % _POINTER == 0:
            yield at
            below, at = at, word(at)
