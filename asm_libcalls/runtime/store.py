"""Stores: a store is an instance and all that it is linked to; one thread at a time may use it.

Imports link: an instance that imports a memory, table, global or function is in the store of the
instance that defines it. A function reference links too, once it is put into a table or global of
another instance, or passed to one. So stores merge, and are never divided. (In Wasmtime the user
makes a ``Store`` and passes it on. Here the links make it.)

With the GIL nothing in this module has an effect. :mod:`asm_libcalls.runtime.store_entries` enters
and leaves stores.

The lock is a ``StoreLock``; ``x86_64/trampolines/store_locks.py`` has its protocol.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import weakref
from _thread import get_ident
from collections import deque
from functools import partial

from asm_libcalls.native.unraisable import report
from asm_libcalls.owned import attempt
from asm_libcalls.owned.objects import Owned
from asm_libcalls.runtime.store_locks import Routines
from asm_libcalls.steps import HAS_GIL, step, wait_outside
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_PERIOD = 0.05
"""Seconds after which a thread that waits runs signal handlers and checks for a deadlock."""

_TURN = 0.001
"""Seconds that a thread waits while the store is handed over to threads that waited before."""


class Stored(Owned):
    """Base class of instances, memories, tables and globals: each is in one store."""

    _in_store: Store | None = None

    def _moved_to(self, store: Store) -> None:
        """Record the object's new store. This thread is inside both stores."""
        self._in_store = store

    def _check_while_waiting(self) -> None:
        """Raise if a thread that waits for the store must not wait any longer."""


class Store:
    """A store: its lock, and weak references to the objects in it."""

    __slots__ = (
        "__weakref__", "_block", "_catches_up", "_members", "address", "later", "lock", "successor",
    )  # fmt: skip

    def __init__(self) -> None:
        # On cache lines of its own, or threads in different stores would wait for each other's.
        self._block = (ctypes.c_uint8 * (3 * _LINE))()
        self.address = -(-ctypes.addressof(self._block) // _LINE) * _LINE  # of the lock
        self.lock = StoreLock.from_address(self.address)
        self._members: list[weakref.ref[Stored]] = []
        # functions to call once no other thread is inside
        self.later: deque[Callable[[], object]] = deque()
        self._catches_up = False
        self.successor: Store | None = None  # the store that has taken in all of this one
        _add_weakly(_stores, self)

    def enter(self) -> None:
        """Enter the store; wait while another thread is inside.

        Raise RuntimeError if that thread waits for a store that this thread is inside. A signal
        handler may raise too.
        """
        word = routines.take(self.address, 0)
        if word:
            self.wait_for_turn(word)

    def wait_for_turn(self, word: int, check: Callable[[], object] = bool) -> None:
        """Wait until this thread is inside; the lock's owner word was `word`.

        `check` is called every :data:`_PERIOD`; it may raise.
        """
        has_waited = StoreLock.WAITED_FOR
        try:
            while word:
                self.wait(word, check)
                word = routines.take(self.address, has_waited)
                has_waited = StoreLock.BITS
        except BaseException:
            self.pass_on()
            raise

    def wait(self, word: int, check: Callable[[], object] = bool) -> None:
        """Wait for the owner word to change, for a limited time."""
        if sys.is_finalizing():
            raise RuntimeError("the interpreter ends while a thread is inside the store")
        thread = get_ident()
        _waiting[thread] = self
        try:
            check()
            seconds = _TURN if word == StoreLock.BITS else _PERIOD
            wait_outside(partial(routines.wait, self.address, word, seconds))
            if self._waits_for(thread):
                raise RuntimeError(
                    "two threads wait for each other: each is inside a store, in a host function, "
                    "and calls an instance of the other's store"
                )
        finally:
            _waiting.pop(thread, None)

    def pass_on(self) -> None:
        """Wake another thread, because this one does not wait any longer."""
        routines.wake(self.address)

    def _waits_for(self, thread: int) -> bool:
        """Return whether the thread inside waits for `thread`, over any number of stores."""
        store = self
        for _ in range(100):
            owner = store.lock.thread
            if owner in (0, thread):
                return False  # 0, or this thread's turn has come
            wanted = _waiting.get(owner)
            # It is inside the one store still, so it was while it began to wait for the other.
            if wanted is None or store.lock.thread != owner:
                return False
            if wanted.lock.thread == thread:
                return True
            store = wanted
        return False

    def add(self, thing: Stored) -> None:
        """Add an object that is in no store. This thread is inside."""
        if _claim(thing, self):
            _add_weakly(self._members, thing)
            thing._moved_to(self)

    def absorb(self, other: Store) -> None:
        """Move the members and functions of another store here. This thread is inside both."""
        for reference in other._members:
            thing = reference()
            if thing is not None:
                thing._moved_to(self)
                _add_weakly(self._members, thing)
        other._members = []
        self.successor, other.successor = None, self
        if _move_later(other, self, deque()):
            late.append(self)

    def size(self) -> int:
        """Return the number of references to members, of which some may not exist any more."""
        return len(self._members)

    def do_later(self, function: Callable[[], object]) -> None:
        """Call a function once no other thread is inside."""
        _add_later(self, function)
        late.append(self)
        self.catch_up()

    def catch_up(self) -> None:
        """Call the functions that were to be called later, unless another thread is inside."""
        while self.later:
            before = routines.depth(self.address)
            try:
                if routines.take(self.address, 1) or self._catches_up:
                    return  # another thread is inside, or one of the functions has called this
                self.do_what_waits()
            finally:
                routines.leave(self.address, before)

    def do_what_waits(self) -> None:
        """Call the functions that were to be called later. This thread is inside."""
        if self._catches_up:
            return
        try:
            self._catches_up = True
            while self.later:
                # A signal handler may raise, so the function stays in the list until it has ended.
                function = self.later[-1]
                _call(function)
                if function in self.later:  # else its code has linked: `absorb` has moved the list
                    self.later.remove(function)
        finally:
            self._catches_up = False

    def renew(self) -> None:
        """Free the store from a thread that is not in this process, after a fork."""
        if self.lock.thread != get_ident():
            self.lock.owner = self.lock.depth = 0

    def __del__(self) -> None:
        # A signal handler may have ended __init__.
        if getattr(self, "later", None) and not sys.is_finalizing():
            self.do_what_waits()


_LINE = 64
routines = Routines()
if not HAS_GIL:
    # Now, not at the first use: a signal handler in the middle of that could enter no store.
    routines.find()
_stores: list[weakref.ref[Store]] = []
_waiting: dict[int, Store] = {}  # by thread: the store that it waits for
late: list[Store] = []
"""Stores with functions to be called later. Each store may never be used again. So the next thread
that leaves any store from Python calls the functions, unless another thread is still inside."""


def _call(release: Callable[[], object]) -> None:
    """Release what a closed object owns; again after an exception, which may have ended it."""
    errors: list[BaseException] = []
    attempt(release, errors)
    if errors:
        report(errors[0], "while a closed object was released by", release)


def catch_up() -> None:
    """Call the functions that were to be called later, in stores that no other thread is inside."""
    for store in [*late]:
        store.catch_up()
        if not store.later:
            # Where another thread adds to it at this moment, it has appended the store again.
            with contextlib.suppress(ValueError):
                late.remove(store)


@step
def _add_later(store: Store, function: Callable[[], object]) -> None:
    store.later += (function,)


@step
def _move_later(
    store: Store, to: Store, none: deque[Callable[[], object]]
) -> deque[Callable[[], object]]:
    """Move the functions to be called later, leaving `none`, and return them."""
    later = store.later
    store.later = none
    to.later += later
    return later


def _add_weakly(references: list[weakref.ref[Any]], thing: object) -> None:
    """Append a weak reference; remove those without an object when the list has doubled."""
    references.append(weakref.ref(thing))
    if len(references) & len(references) - 1 == 0:
        for each in [*references]:
            if each() is None:
                with contextlib.suppress(ValueError):  # another thread has done it
                    references.remove(each)


@step
def _claim(thing: Stored, store: Store) -> bool:
    """Put an object into a store; return False if another thread has put it into one."""
    if thing._in_store is None:
        thing._in_store = store
        return True
    return False


def link(things: Iterable[Stored]) -> None:
    """Put objects into one store, with all that is in their stores."""
    if HAS_GIL:
        return
    linked = list(things)
    busy: Store | None = None
    while True:
        stores = [store for thing in linked if (store := thing._in_store) is not None]
        stores = list({id(store): store for store in stores}.values())
        if len(stores) == 1 and all(thing._in_store is not None for thing in linked):
            return
        busy = _link(linked, stores or [Store()], busy)


def _link(things: list[Stored], stores: list[Store], busy: Store | None) -> Store | None:
    """Link objects, unless they have moved to other stores, or another thread is inside one.

    Return the store that another thread is inside, for the next attempt, which waits for it first.
    During that wait, this thread is inside no store that it enters here: otherwise two threads that
    link the same stores could wait for each other.
    """
    stores.sort(key=lambda store: store is not busy)
    before = [routines.depth(store.address) for store in stores]
    try:
        stores[0].enter()
        for store in stores[1:]:
            if routines.take(store.address, 0):
                return store
        if any(t._in_store is not None and t._in_store not in stores for t in things):
            return None
        # The one that this thread has been inside for longest, as it leaves that one last.
        entered = [store for store, depth in zip(stores, before, strict=True) if depth]
        if entered:
            target = max(entered, key=lambda store: store.lock.entered)
        else:
            target = max(stores, key=Store.size)
        for store in stores:
            if store is not target:
                target.absorb(store)
        for thing in things:
            target.add(thing)
        return None
    finally:
        for store, depth in zip(stores, before, strict=True):
            routines.leave(store.address, depth)


def _renew() -> None:
    _waiting.clear()
    for reference in [*_stores]:
        store = reference()
        if store is not None:
            store.renew()


if not HAS_GIL:
    os.register_at_fork(after_in_child=_renew)
