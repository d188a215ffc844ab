"""Entering stores: decorators and functions that run Python code inside the store of an object.

In a build without the GIL, each export, each libcall on an instance, and each access of Python to a
table or global *enters* the store, and leaves it at the end. A host function runs inside the store
of its caller. Other threads wait, and run signal handlers meanwhile. A thread may enter again. If
two threads wait for each other's stores, one of them gets a RuntimeError. Closing does not wait: if
another thread is inside, what the closed object owns is released after that thread has left, when
any thread next leaves a store here.

With the GIL the decorators return the functions unchanged.
"""

from __future__ import annotations

from functools import partial, wraps

from asm_libcalls.runtime.store import catch_up, late, link, routines
from asm_libcalls.steps import HAS_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate, ParamSpec, TypeVar

    from asm_libcalls.owned.objects import Owned
    from asm_libcalls.runtime.store import Store, Stored

    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T", bound=Stored)


def inside(function: Callable[Concatenate[T, P], R]) -> Callable[Concatenate[T, P], R]:
    """Return a function that runs inside the store of its first argument."""
    if HAS_GIL:
        return function

    @wraps(function)
    def locked(thing: T, /, *arguments: P.args, **keywords: P.kwargs) -> R:
        while True:
            store = thing._in_store or _store_of(thing)
            address = store.address
            # A signal handler may raise after any call. `leave` ends all entries since `before` was
            # read. It is a builtin, so nothing interrupts it.
            before = routines.depth(address)
            try:
                word = routines.take(address, 0)
                if word:
                    store.wait_for_turn(word, thing._check_while_waiting)
                if store.later and not before:
                    store.do_what_waits()
                if thing._in_store is store:
                    return function(thing, *arguments, **keywords)
            finally:
                routines.leave(address, before)
                if late and not before:
                    catch_up()

    return locked


def inside_or_later(function: Callable[[T], None]) -> Callable[[T], None]:
    """Return a function that runs inside the store of its argument: later, if it had to wait."""
    if HAS_GIL:
        return function

    @wraps(function)
    def locked(thing: T) -> None:
        while True:
            store = thing._in_store
            if store is None:
                function(thing)
                return
            before = routines.depth(store.address)
            try:
                if routines.take(store.address, 1):
                    # `locked`, because the object may be in another store then.
                    store.do_later(partial(locked, thing))
                    return
                if thing._in_store is store:
                    function(thing)
                    return
            finally:
                routines.leave(store.address, before)

    return locked


def close_inside(store: Store | None, thing: Owned) -> bool:
    """Close an object inside a store, if there is one; return False if another thread is inside.

    If the store has been merged into another one, that one is entered.
    """
    while store is not None:
        before = routines.depth(store.address)
        try:
            if routines.take(store.address, 1):
                return False
            successor = store.successor
            if successor is None:
                thing.close()
                return True
        finally:
            routines.leave(store.address, before)
        store = successor
    thing.close()
    return True


@inside
def call_inside(
    thing: Stored, function: Callable[P, R], /, *arguments: P.args, **keywords: P.kwargs
) -> R:
    """Call a function inside the store of an object."""
    return function(*arguments, **keywords)


def wait_for(thing: Stored) -> None:
    """Wait for this thread's turn inside a store; machine code takes it afterwards."""
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


def _store_of(thing: Stored) -> Store:
    """Return the store of an object, which may be a new one."""
    while thing._in_store is None:
        link([thing])
    return thing._in_store
