"""The lock of a store: one thread is inside, the others wait in turns. Tested on every Python."""

import ctypes
import gc
import threading
import time
from functools import partial
from threading import get_ident
from types import SimpleNamespace

import pytest

from asm_libcalls.runtime import store as stores
from asm_libcalls.runtime import store_entries, store_locks
from asm_libcalls.runtime.store import Store
from asm_libcalls.runtime.store_entries import close_inside
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

THREADS = 8
WAITED_FOR, BITS = StoreLock.WAITED_FOR, StoreLock.BITS


@pytest.fixture(params=["in machine code", "in Python"], autouse=True)
def routines(request, monkeypatch):
    """Both implementations of the lock."""
    if request.param == "in machine code":
        request.getfixturevalue("machine_code")
        make = store_locks._in_machine_code
    else:
        make = store_locks._in_python
    found = store_locks.Routines()
    found.__dict__.update(make())
    monkeypatch.setattr(stores, "routines", found)
    monkeypatch.setattr(store_entries, "routines", found)
    return found


def leave(store, depth=0):
    stores.routines.leave(store.address, depth)
    if stores.late and not depth:
        stores.catch_up()


def start(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_entries_nest(routines):
    store = Store()
    assert routines.depth(store.address) == 0
    for depth in (1, 2, 3):
        assert routines.take(store.address, 0) == 0
        assert routines.depth(store.address) == depth
    leave(store, 2)
    assert routines.depth(store.address) == 2
    leave(store, 2)  # no deeper: nothing to end
    assert routines.depth(store.address) == 2
    leave(store)
    assert (store.lock.owner, store.lock.depth) == (0, 0)
    leave(store)
    assert (store.lock.owner, store.lock.depth) == (0, 0)


def test_another_thread_is_kept_out(routines):
    store, seen = Store(), []
    store.enter()

    def work():
        seen.append(routines.depth(store.address))
        seen.append(routines.take(store.address, 0))
        seen.append(routines.take(store.address, 1))
        leave(store)  # not inside: nothing happens

    start(work).join()
    assert routines.depth(store.address) == 1
    assert seen == [0, store.lock.owner & 0xFFFFFFFF, store.lock.owner & 0xFFFFFFFF]
    assert store.lock.owner & WAITED_FOR
    leave(store)
    assert store.lock.owner == 0  # none was there to be woken


def test_a_store_that_is_handed_over_is_free_for_threads_that_have_waited(routines):
    store = Store()
    store.lock.owner = BITS
    assert routines.take(store.address, 0) == BITS
    assert routines.take(store.address, WAITED_FOR) == 0
    assert store.lock.owner == threading.get_ident() | WAITED_FOR  # others may wait too
    start(lambda: routines.take(store.address, BITS)).join()
    assert store.lock.owner == threading.get_ident() | BITS
    leave(store)
    assert store.lock.owner == 0  # none was there to be woken


@pytest.mark.parametrize("waits", [1, 2], ids=["once", "again"])
def test_a_thread_that_waits_in_vain_is_handed_the_store(routines, waits):
    """Others may enter before a thread that was woken; not if that happens to it again."""
    store, words = Store(), []
    store.enter()

    def work():
        word = routines.take(store.address, 0)
        for has_waited in (WAITED_FOR, BITS)[:waits]:
            words.append(routines.take(store.address, has_waited))
            routines.wait(store.address, word, 0.001)

    start(work).join()
    thread = threading.get_ident() & 0xFFFFFFFF
    assert words == [thread | WAITED_FOR, thread | BITS][:waits]


def test_waiting_ends_when_the_other_leaves():
    store, order = Store(), []
    store.enter()

    def work():
        store.enter()
        order.append("second")
        leave(store)

    thread = start(work)
    wait_until(lambda: stores._waiting)
    order.append("first")
    leave(store)
    thread.join()
    assert order == ["first", "second"]
    assert not stores._waiting


def test_nothing_is_lost_between_threads():
    store = Store()
    cell = ctypes.c_uint64()
    rounds = 300

    def work():
        for _ in range(rounds):
            store.enter()
            value = cell.value
            if value % 7 == 0:
                time.sleep(0)
            cell.value = value + 1
            leave(store)

    threads = [start(work) for _ in range(THREADS)]
    for thread in threads:
        thread.join()
    assert cell.value == rounds * THREADS
    assert store.lock.depth == 0


def test_threads_take_turns():
    """One that comes again at once does not keep the others out."""
    store, stop = Store(), threading.Event()
    entered = {}

    def work(name):
        while not stop.is_set():
            store.enter()
            entered[name] = entered.get(name, 0) + 1
            time.sleep(0.001)
            leave(store)

    threads = [start(lambda i=i: work(i)) for i in range(3)]
    try:
        wait_until(lambda: len(entered) == 3 and min(entered.values()) >= 10)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_two_that_wait_for_each_other_are_told():
    one, other, both = Store(), Store(), threading.Barrier(2)
    outcomes = []

    def work(first, second):
        first.enter()
        both.wait(60)
        try:
            second.enter()
            leave(second)
            outcomes.append("entered")
        except RuntimeError as error:
            outcomes.append(str(error))
        finally:
            leave(first)

    threads = [start(lambda: work(one, other)), start(lambda: work(other, one))]
    for thread in threads:
        thread.join()
    assert any("two threads wait for each other" in each for each in outcomes), outcomes
    assert one.lock.depth == other.lock.depth == 0
    for store in (one, other):
        store.enter()  # both are free
        leave(store)


def test_who_stops_waiting_passes_its_turn_on():
    store, order = Store(), []
    store.enter()

    class Enough(Exception):
        pass

    def refuse():
        raise Enough

    def gives_up():
        word = stores.routines.take(store.address, 0)
        with pytest.raises(Enough):
            store.wait_for_turn(word, refuse)
        order.append("gave up")

    def waits():
        store.enter()
        order.append("entered")
        leave(store)

    start(gives_up).join()
    thread = start(waits)
    wait_until(lambda: stores._waiting)
    leave(store)
    thread.join()
    assert order == ["gave up", "entered"]


def test_what_must_wait_is_done_at_the_next_entry_or_at_the_end():
    done = []
    store = Store()
    store.enter()
    start(partial(store.do_later, lambda: done.append("later"))).join()
    assert not done
    leave(store)
    assert done == ["later"]
    store.later.append(lambda: done.append("at the end"))
    del store
    gc.collect()
    assert done == ["later", "at the end"]


def test_what_waits_may_merge_the_store():
    one, other, done = Store(), Store(), []

    def merge():
        done.append("merge")
        other.enter()
        other.absorb(one)
        leave(other)

    one.later += [lambda: done.append("first"), merge]
    one.catch_up()
    stores.catch_up()
    assert "first" in done
    assert not one.later
    assert not other.later
    assert one.lock.owner == other.lock.owner == 0


def test_closing_inside_a_store_that_was_merged_enters_the_other():
    one, other, last = Store(), Store(), Store()
    for store, target in ((one, other), (other, last)):
        store.enter()
        target.enter()
        target.absorb(store)
        leave(store)
        leave(target)
    closed, outcomes = [], []
    thing = SimpleNamespace(close=lambda: closed.append(last.lock.thread == get_ident()))
    last.enter()
    start(lambda: outcomes.append(close_inside(one, thing))).join()
    assert (outcomes, closed) == ([False], [])
    leave(last)
    start(lambda: outcomes.append(close_inside(one, thing))).join()
    assert (outcomes, closed) == ([False, True], [True])


def test_an_error_of_what_was_done_later_is_reported(monkeypatch):
    store, told = Store(), []
    monkeypatch.setattr("sys.unraisablehook", told.append)
    store.do_later(lambda: 1 / 0)
    (error,) = told
    assert error.exc_type is ZeroDivisionError


def test_stores_that_are_gone_are_forgotten():
    for _ in range(3000):
        Store()
    gc.collect()
    assert len(stores._stores) < 2500


def test_no_two_stores_share_a_cache_line():
    several = [Store() for _ in range(100)]
    lines = {store.address // 64 for store in several}
    assert len(lines) == len(several)
    assert all(store.address % 64 == 0 for store in several)
