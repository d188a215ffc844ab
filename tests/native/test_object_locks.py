"""Without the GIL: queues that threads share, and their locks in a child of fork."""

import ctypes
import threading
from functools import partial

import pytest

import asm_libcalls
from asm_libcalls.native import object_locks
from asm_libcalls.steps import HAS_GIL

pytestmark = pytest.mark.skipif(HAS_GIL, reason="with the GIL objects have no locks")


def test_the_lock_is_where_cpython_locks():
    thing = [1]
    lock = ctypes.c_uint8.from_address(id(thing) + object_locks.lock_offset(ctypes))
    section = (ctypes.c_size_t * 8)()
    assert lock.value == 0
    ctypes.pythonapi.PyCriticalSection_Begin(section, ctypes.py_object(thing))
    locked = lock.value
    ctypes.pythonapi.PyCriticalSection_End(section)
    assert (locked, lock.value) == (1, 0)


def test_shared_objects_are_those_of_modules_and_of_their_objects(machine_code):
    asm_libcalls.Code(b"\xc3").close()
    from asm_libcalls.binding import default_binding
    from asm_libcalls.emitter import code_arena
    from asm_libcalls.runtime import externref_boxes, funcref, store
    from asm_libcalls.toy_jit.link import code_map

    one = store.Store()
    found = {id(each) for each in object_locks.shared_objects()}
    for each in (
        externref_boxes.value_cells,
        externref_boxes._lost,
        vars(externref_boxes),
        vars(funcref.live)["data"],
        default_binding()._functions,
        code_map._codes._values,
        code_arena._regions[0].freed,
        one.later,
    ):
        assert id(each) in found


def test_a_child_finds_them_unlocked(child, machine_code):
    """As they are where a thread got the lock that it waited for while it was stopped."""
    child(r"""
    import ctypes, os

    locks = []

    def lock():
        for each in locks: each.value = 1

    def unlock():
        for each in locks: each.value = 0

    # First: what is registered later runs before it.
    os.register_at_fork(before=lock, after_in_parent=unlock)
    from asm_libcalls import Code, VMExternRef
    from asm_libcalls.binding import default_binding
    from asm_libcalls.emitter import code_arena
    from asm_libcalls.native import object_locks
    from asm_libcalls.runtime import externref_boxes, transit
    from forks import check, in_child
    Code(b"\xc3").close()
    shared = (externref_boxes._lost, externref_boxes.value_cells, transit._words,
              default_binding()._functions, code_arena._regions[0].freed)
    offset = object_locks.lock_offset(ctypes)
    locks += [ctypes.c_uint8.from_address(id(each) + offset) for each in shared]

    def work():
        assert [each.value for each in locks] == [0] * len(locks)
        for each in shared: each.copy()
        VMExternRef(1).drop()

    check(in_child(work))
    VMExternRef(1).drop()
    """)


def queues():
    """Containers to which threads add at any time, with a function that adds to each."""
    from asm_libcalls.emitter.code_arena import _Region
    from asm_libcalls.runtime import externref_boxes, store

    region, one = _Region(1 << 16), store.Store()
    return {
        "freed code": (region.freed, lambda item: region.freed.extend(map([item].pop, (0,)))),
        "releases of a store": (one.later, partial(store._add_later, one)),
        "values to drop": (
            externref_boxes._lost_dead,
            lambda item: len(externref_boxes._Dead((item,))),  # dropped at once
        ),
    }


@pytest.mark.parametrize("name", ["freed code", "releases of a store", "values to drop"])
def test_a_queue_shows_what_is_in_it_while_others_add(machine_code, name):
    """CPython's list shows its former items for a moment while it is extended."""
    queue, add = queues()[name]
    ended = threading.Event()

    def adds():
        while not ended.is_set():
            if len(queue) < 5:
                add(["new"])

    threads = [threading.Thread(target=adds) for _ in range(2)]
    for thread in threads:
        thread.start()
    taken = 0
    try:
        while taken < 5000:
            while queue:
                assert queue[0] == ["new"]
                assert queue[-1] == ["new"]
                queue[0][0] = "taken"
                del queue[0]
                taken += 1
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        queue.clear()
