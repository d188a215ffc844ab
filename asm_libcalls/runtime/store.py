"""Stores: an instance and all that it is linked to, which one thread at a time may use.

Imports link: whoever imports a memory, table, global or function is in the store of its instance. A
function reference links too, once it is put into a table or global of another instance, or passed
to one. So stores merge, and never part. (Wasmtime's user makes a ``Store`` and passes it on; here
the links make it.)

With the GIL nothing in this module has an effect. In a build without it, each export, each libcall
on an instance, and each access of Python to a table or global *enters* the store, and leaves it at
the end; a host function runs inside the store of its caller. Other threads wait, and run signal
handlers meanwhile. A thread may enter again. If two threads wait for each other's stores, one of
them gets a RuntimeError. Closing does not wait: what a closed object owns is released at the next
entry, if a thread is inside.

The lock is a :class:`~asm_libcalls.activation.StoreLock`; ``x86_64/trampolines/store_locks.py`` has
its protocol.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from _thread import get_ident
from functools import partial, wraps

from asm_libcalls.activation import StoreLock
from asm_libcalls.owned import Owned
from asm_libcalls.runtime.store_locks import Routines
from asm_libcalls.steps import HAS_GIL, step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Concatenate, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T", bound="Stored")

__all__ = [
    "Store",
    "Stored",
    "call_inside",
    "close_inside",
    "inside",
    "inside_or_later",
    "link",
    "wait_for",
]

_PERIOD = 0.05
"""Seconds after which a thread that waits runs signal handlers and checks for a deadlock."""

_TURN = 0.001
"""Seconds that a thread lets those that waited before it go first."""


class Stored(Owned):
    """Base class of instances, memories, tables and globals: each is in one store."""

    _in_store: Store | None = None

    def _moved_to(self, store: Store) -> None:
        """Note that the object is in another store now. This thread is inside both."""
        self._in_store = store

    def _check_while_waiting(self) -> None:
        """Raise if a thread that waits for the store must not wait any longer."""


class Store:
    """A store: its lock, and weak references to the objects in it.

    Attributes
    ----------
    address : int
        Of the lock.
    lock : StoreLock
    later : list of callable
        What is to be called at the next entry from Python.
    """

    __slots__ = ("__weakref__", "_block", "_members", "address", "later", "lock")

    def __init__(self) -> None:
        # On cache lines of its own, or threads in different stores would wait for each other's.
        self._block = (ctypes.c_uint8 * (3 * _LINE))()
        self.address = -(-ctypes.addressof(self._block) // _LINE) * _LINE
        self.lock = StoreLock.from_address(self.address)
        self._members: list[weakref.ref[Stored]] = []
        self.later: list[Callable[[], object]] = []
        _add_weakly(_stores, self)

    def enter(self) -> None:
        """Enter the store; wait while another thread is inside.

        Raises
        ------
        RuntimeError
            That thread waits for a store that this thread is inside.
        BaseException
            A signal handler raised it.
        """
        word = _routines.take(self.address, 0)
        if word:
            self.wait_for_turn(word)

    def wait_for_turn(self, word: int, check: Callable[[], object] = bool) -> None:
        """Wait until this thread is inside.

        Parameters
        ----------
        word : int
            What the lock's owner word was.
        check : callable
            Called every :data:`_PERIOD`; it may raise.
        """
        try:
            while word:
                self.wait(word, check)
                word = _routines.take(self.address, 1)
        except BaseException:
            self.pass_on()
            raise

    def wait(self, word: int, check: Callable[[], object] = bool) -> None:
        """Wait a while for the owner word to change."""
        if sys.is_finalizing():
            raise RuntimeError("the interpreter ends while a thread is inside the store")
        thread = get_ident()
        _waiting[thread] = self.address
        try:
            check()
            _routines.wait(self.address, word, _TURN if word == 1 else _PERIOD)
            if self._waits_for(thread):
                raise RuntimeError(
                    "two threads wait for each other: each is inside a store, in a host function, "
                    "and calls an instance of the other's store"
                )
        finally:
            _waiting.pop(thread, None)

    def pass_on(self) -> None:
        """Let another thread have the turn of this one, which does not wait any longer."""
        if self.lock.owner == 1:
            _routines.wake(self.address)

    def _waits_for(self, thread: int) -> bool:
        """Return whether the thread inside waits, over any number of stores, for this one."""
        address = self.address
        for _ in range(100):
            owner = StoreLock.from_address(address).owner & ~1
            if owner in (0, thread):
                return False  # 0, or this thread's turn has come
            wanted = _waiting.get(owner)
            # It is inside the one store still, so it was while it began to wait for the other.
            if wanted is None or StoreLock.from_address(address).owner & ~1 != owner:
                return False
            if StoreLock.from_address(wanted).owner & ~1 == thread:
                return True
            address = wanted
        return False

    def add(self, thing: Stored) -> None:
        """Take in an object that is in no store. This thread is inside."""
        if _claim(thing, self):
            _add_weakly(self._members, thing)
            thing._moved_to(self)

    def absorb(self, other: Store) -> None:
        """Take in all of another store. This thread is inside both."""
        for reference in other._members:
            thing = reference()
            if thing is not None:
                thing._moved_to(self)
                _add_weakly(self._members, thing)
        other._members = []
        later, other.later = other.later, []
        self.later += later

    def size(self) -> int:
        """Return the number of members, as far as is known."""
        return len(self._members)

    def do_later(self, function: Callable[[], object]) -> None:
        """Call a function at the next entry from Python."""
        self.later.append(function)
        # The lock is marked, so that an entry in machine code asks Python.
        if not _routines.take(self.address, 0):
            self.leave_to(_routines.depth(self.address) - 1)

    def do_what_waits(self) -> None:
        """Call the functions that were to be called later. This thread is inside."""
        while self.later:
            function = self.later.pop()
            try:
                function()
            except BaseException as error:
                sys.unraisablehook(_Unraisable(error, function))

    def leave_to(self, depth: int) -> None:
        """End the entries of this thread, if it is inside, beyond a number of them."""
        try:
            if self.later and not depth and _routines.depth(self.address):
                self.do_what_waits()
        finally:
            _routines.leave(self.address, depth)

    def renew(self) -> None:
        """Free the store from a thread that is not in this process, after a fork."""
        if self.lock.owner & ~1 != get_ident():
            self.lock.owner = self.lock.depth = 0

    def __del__(self) -> None:
        if self.later and not sys.is_finalizing():
            self.do_what_waits()


class _Unraisable:
    """What ``sys.unraisablehook`` takes."""

    def __init__(self, error: BaseException, where: object) -> None:
        self.exc_type: type[BaseException] = type(error)
        self.exc_value: BaseException | None = error
        self.exc_traceback = error.__traceback__
        self.err_msg: str | None = "Exception ignored while a closed object was released by"
        self.object = where


_LINE = 64
_routines = Routines()
_stores: list[weakref.ref[Store]] = []
_waiting: dict[int, int] = {}  # by thread: the address of the lock that it waits for


def _add_weakly(references: list[weakref.ref[Any]], thing: object) -> None:
    """Append a weak reference; forget those that are dead when the list has doubled."""
    references.append(weakref.ref(thing))
    if len(references) & len(references) - 1 == 0:
        _forget_dead(references)


@step
def _forget_dead(references: list[weakref.ref[Any]]) -> None:
    known = len(references)
    references[:known] = [each for each in references[:known] if each() is not None]


@step
def _claim(thing: Stored, store: Store) -> bool:
    """Put an object into a store; return False if another thread has put it into one."""
    if thing._in_store is None:
        thing._in_store = store
        return True
    return False


def _store_of(thing: Stored) -> Store:
    """Return the store of an object, which may be a new one."""
    while thing._in_store is None:
        link([thing])
    return thing._in_store


def inside(function: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Return a function that runs inside the store of its first argument."""
    if HAS_GIL:
        return function

    @wraps(function)
    def locked(thing: T, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        while True:
            store = thing._in_store or _store_of(thing)
            address = store.address
            # A signal handler may raise after any call. What was done until then is undone by
            # `leave`, a builtin, which nothing interrupts before its end.
            before = _routines.depth(address)
            try:
                word = _routines.take(address, 0)
                if word:
                    store.wait_for_turn(word, thing._check_while_waiting)
                if store.later and not before:
                    store.do_what_waits()
                if thing._in_store is store:
                    return function(thing, *arguments, **keywords)
            finally:
                _routines.leave(address, before)

    return locked


def inside_or_later(function: Callable[[T], None]) -> Callable[[T], None]:
    """Return a function that runs inside the store of its argument; later, if it had to wait."""
    if HAS_GIL:
        return function

    @wraps(function)
    def locked(thing: T) -> None:
        store = thing._in_store
        if store is None:
            function(thing)
            return
        before = _routines.depth(store.address)
        try:
            if _routines.take(store.address, 1):
                store.do_later(partial(function, thing))
            else:
                function(thing)
        finally:
            _routines.leave(store.address, before)

    return locked


def close_inside(store: Store | None, thing: Owned) -> bool:
    """Close an object inside a store, if there is one; return False if another thread is inside."""
    if store is None:
        thing.close()
        return True
    before = _routines.depth(store.address)
    try:
        if _routines.take(store.address, 1):
            return False
        thing.close()
        return True
    finally:
        _routines.leave(store.address, before)


@inside
def call_inside(
    thing: Stored, function: Callable[P, R], /, *arguments: P.args, **keywords: P.kwargs
) -> R:
    """Call a function inside the store of an object."""
    return function(*arguments, **keywords)


def wait_for(thing: Stored) -> None:
    """Wait for a turn inside a store, which machine code then takes."""
    store = thing._in_store
    assert store is not None
    if store.later:
        call_inside(thing, bool)
    try:
        word = store.lock.owner & 0xFFFFFFFF
        if word & 1:
            store.wait(word, thing._check_while_waiting)
    except BaseException:
        store.pass_on()
        raise


def link(things: Iterable[Stored]) -> None:
    """Put objects into one store, with all that is in their stores."""
    if HAS_GIL:
        return
    linked = list(things)
    while True:
        stores = [store for thing in linked if (store := thing._in_store) is not None]
        stores = list({id(store): store for store in stores}.values())
        if len(stores) == 1 and all(thing._in_store is not None for thing in linked):
            return
        if _link(linked, stores or [Store()]):
            return


def _link(things: list[Stored], stores: list[Store]) -> bool:
    """Link objects that are in no other stores; return False if they are meanwhile."""
    stores.sort(key=lambda store: store.address)  # two threads enter in the same order
    before = [_routines.depth(store.address) for store in stores]
    try:
        for store in stores:
            store.enter()
        if any(t._in_store is not None and t._in_store not in stores for t in things):
            return False
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
        return True
    finally:
        for store, depth in zip(stores, before, strict=True):
            _routines.leave(store.address, depth)


def _renew() -> None:
    _waiting.clear()
    for reference in [*_stores]:
        store = reference()
        if store is not None:
            store.renew()


if not HAS_GIL:
    os.register_at_fork(after_in_child=_renew)
