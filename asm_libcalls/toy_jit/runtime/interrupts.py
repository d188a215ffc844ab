"""Stopping compiled code from outside: a trap that another thread asks for, and Python's signals.

Every function and every loop compares rsp with a stack limit. Each thread has its own
``VMInterrupts``, and each instance points to those of the thread that entered it last: an entry,
and a call from instance to instance, see to that. The highest limit, above every stack pointer,
sends code to :func:`interrupted`, which is Python: there an asked-for trap is raised, and Python
has run the handlers of pending signals (Ctrl-C is one: KeyboardInterrupt).

What is asked for concerns an instance, and all that it calls: other instances, whose functions it
imports or calls through a host function. So all threads are made to look, and each walks its stack
for the instance. If it is not there, it looks when it is entered next: until then it points to
:data:`_LOOK`, whose limit is the highest too. What replaces that pointer by a thread's hands the
request on to the thread.
"""

from __future__ import annotations

import ctypes
import math
from time import monotonic
from weakref import WeakValueDictionary

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import libc
from asm_libcalls.native import process
from asm_libcalls.native.entry import MachineEntry
from asm_libcalls.native.stack_walker import departed_stacks
from asm_libcalls.runtime.instance import Instance, may_be_running
from asm_libcalls.toy_jit.codegen.places import VMCTX_IN_FRAME
from asm_libcalls.toy_jit.runtime.watcher import Watcher, is_main_thread
from asm_libcalls.traps import Interrupt
from asm_libcalls.vmcontext import VMInterrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.activation import ThreadRecord

__all__ = [
    "StoppableInstance", "current_record", "interrupted", "interrupts_of_thread", "limit_of_time",
    "stoppable", "stoppable_instances", "time_limit", "watcher",
]  # fmt: skip

_POINTER = ctypes.sizeof(ctypes.c_size_t)


class _Thread:
    """What makes the code of one thread stop.

    Attributes
    ----------
    interrupts : VMInterrupts
        Kept for good: an instance may point to those of a thread that has ended.
    walks : bool
        Whether it is to look for all instances on its stack.
    """

    def __init__(self) -> None:
        self.interrupts = VMInterrupts(VMInterrupts.STOP, 0)
        self.walks = False
        self.is_main = False

    @property
    def address(self) -> int:
        return ctypes.addressof(self.interrupts)

    def look(self) -> None:
        """Have its code come to :func:`interrupted` at the next check."""
        self.interrupts.stack_limit = VMInterrupts.STOP


_look = VMInterrupts(VMInterrupts.STOP, 0)
_LOOK = ctypes.addressof(_look)
"""The VMInterrupts of instances that come to :func:`interrupted` at the next check."""

_threads: dict[int, _Thread] = {}
"""By pthread_t: what ends gives its own to a later thread with the same number."""

_pthread_self = libc.prototype("pthread_self", ctypes.c_ulong)


def _this_thread() -> _Thread:
    return _threads.setdefault(_pthread_self(), _Thread())


def _let_main_thread_look() -> None:
    for thread in [*_threads.values()]:
        if thread.is_main:
            thread.look()


def _let_all_threads_look() -> None:
    for thread in [*_threads.values()]:
        thread.walks = True
        thread.look()


def current_record() -> ThreadRecord | None:
    """Return the record of this thread, if it has ever entered native code."""
    return _entry().record()


def _entry() -> MachineEntry:
    entry = default_binding().entry
    assert isinstance(entry, MachineEntry)
    return entry


watcher = Watcher(_let_main_thread_look, current_record)
process.own_threads.append(lambda: watcher.running)


def interrupts_of_thread() -> int:
    """Return the address of this thread's VMInterrupts, and note it in the thread's record.

    What enters compiled code calls this where it finds none in the record.
    """
    record = current_record()
    assert record is not None  # it is entering
    thread = _this_thread()
    is_main = is_main_thread()
    if not (is_main and thread.is_main):  # of which everything is known
        thread.is_main = is_main
        thread.look()
    record.interrupts = thread.address
    if is_main:
        watcher.entered(record)
    return thread.address


stoppable: WeakValueDictionary[int, StoppableInstance] = WeakValueDictionary()
"""The instances with compiled code, by vmctx."""


def stoppable_instances() -> Iterator[StoppableInstance]:
    """Yield the instances with compiled code that there are now."""
    for reference in stoppable.valuerefs():  # a list: other threads come and go meanwhile
        instance = reference()
        if instance is not None:
            yield instance


class StoppableInstance(Instance):
    """An instance whose code checks its VMInterrupts.

    Attributes
    ----------
    asked_to_trap : bool
        Whether it is to trap, once.
    deadlines : list of float
        When it is to trap, from then on: of the limits that are in force now.
    """

    def __init__(self, **parts: Any) -> None:
        self._begin()
        self.asked_to_trap = False
        self.deadlines: list[float] = []
        super().__init__(**parts)
        stoppable[self.vmctx] = self
        self.look_at_entry()

    def look_at_entry(self) -> None:
        """Have its code come to :func:`interrupted` at its next check on whatever thread."""
        if not self.closed:
            _point(self.vmctx, _LOOK)

    def look(self) -> None:
        """Have its code, and all that it calls, come to :func:`interrupted` at the next check."""
        # In this order: a thread that enters the instance from here on looks by itself, and one
        # that has entered it is among the threads.
        self.look_at_entry()
        _let_all_threads_look()

    def _release(self) -> None:
        # Code that runs stops at its next check, and what enters it at the first.
        stoppable.pop(self._vmctx, None)
        _point(self._vmctx, _LOOK)
        if may_be_running():
            _let_all_threads_look()
        super()._release()

    def ask_to_trap(self) -> None:
        """Have what it is computing trap, or else what it computes next."""
        self.asked_to_trap = True
        self.look()

    def has_expired(self) -> bool:
        """Return whether a limit of its time has expired."""
        return any(deadline <= monotonic() for deadline in [*self.deadlines])

    def trap_if_asked(self) -> None:
        """Raise Interrupt if this instance is to trap."""
        if self.has_expired():
            # Until the limit is called off, whoever catches this: so it looks again.
            self.look_at_entry()
            thread = _this_thread()
            thread.walks = True
            thread.look()
            raise Interrupt
        if self.asked_to_trap:
            self.asked_to_trap = False
            raise Interrupt


def _point(vmctx: int, interrupts: int) -> None:
    """Let an instance point to these VMInterrupts, the first field of the VMContext."""
    ctypes.c_size_t.from_address(vmctx).value = interrupts


def interrupted(vmctx: int) -> None:
    """Let signal handlers run, and trap if somebody asked for it; compiled code calls this."""
    instance = stoppable.get(vmctx)
    if instance is None:
        _point(vmctx, _LOOK)  # so that each call comes here
        raise ValueError("the Instance is closed")
    instance.activations_table.end_transfer()
    thread = _this_thread()
    # Before the questions, so that who asks from now on is heard at the next check.
    walks, thread.walks = thread.walks, False
    thread.interrupts.stack_limit = thread.interrupts.native_stack_limit
    _point(vmctx, thread.address)
    instance.trap_if_asked()
    if walks:
        for other in _instances_on_stack():
            other.trap_if_asked()


def _instances_on_stack() -> list[StoppableInstance]:
    """Return the instances that are to trap, of those with frames on this thread's stack."""
    sought = {
        vmctx: instance
        for instance in stoppable_instances()
        if (vmctx := instance._vmctx) and (instance.asked_to_trap or instance.has_expired())
    }
    found = {}
    if sought:
        for frame_pointer in _frames():
            # Of other native code it is any word of its frame: what looks like a vmctx is one.
            word = _word(frame_pointer + VMCTX_IN_FRAME)
            if word in sought:
                found[word] = sought.pop(word)
    return [*found.values()]


def _frames() -> Iterator[int]:
    """Yield the frame pointers of this greenlet's native code, as far as they can be followed."""
    for departure, moved in departed_stacks(_entry().departures() or (), own=True):
        at, canary = departure.exit_frame_pointer, departure.canary
        while moved == 0 and at < canary and at % _POINTER == 0:  # between them is live stack
            yield at
            at = _word(at)


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def limit_of_time(value: Any, where: str) -> float:
    """Return the seconds of a time limit, infinity for none.

    Raises
    ------
    TypeError
        It is no number.
    ValueError
        It is negative, or not a number.
    """
    if not (hasattr(type(value), "__float__") or hasattr(type(value), "__index__")):
        raise TypeError(f"{where} must be a number of seconds, got {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.copysign(math.inf, value > 0 or -1)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where} must be a number of seconds: {error}") from None
    if not seconds >= 0:
        raise ValueError(f"{where} must be a number of seconds that is not negative, got {value!r}")
    return seconds


class time_limit:
    """A context in which an instance computes for some seconds at most.

    Then what it computes traps with :class:`~asm_libcalls.traps.Interrupt`, and so does whatever it
    computes from then on until the context is left. Contexts may be nested, and entered again.
    """

    def __init__(self, instance: StoppableInstance, seconds: Any) -> None:
        self._instance = instance
        self._seconds = limit_of_time(seconds, "time_limit(): seconds")
        self._entered: list[tuple[object, float]] = []

    def __enter__(self) -> None:
        deadline = monotonic() + self._seconds
        key = object()
        self._entered.append((key, deadline))
        self._instance.deadlines.append(deadline)
        if self._seconds == 0:
            self._instance.look()
        elif deadline < math.inf:
            try:
                watcher.add(key, deadline, self._instance.look)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *exception: object) -> None:
        key, deadline = self._entered.pop()
        watcher.remove(key)
        self._instance.deadlines.remove(deadline)
