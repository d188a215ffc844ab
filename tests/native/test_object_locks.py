"""Without the GIL, a child of fork finds the package's shared lists and dicts unlocked."""

import ctypes

import pytest

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
    from asm_libcalls.binding import default_binding
    from asm_libcalls.runtime import externref_boxes, funcref

    found = {id(each) for each in object_locks.shared_objects()}
    for each in (
        externref_boxes.live,
        externref_boxes._lost,
        vars(externref_boxes),
        vars(funcref.live)["data"],
        default_binding()._functions,
    ):
        assert id(each) in found


def test_a_child_finds_them_unlocked(child, machine_code):
    """As they are where a thread got the lock that it waited for while it was stopped."""
    child(
        """
    import ctypes, os
    import asm_libcalls
    from asm_libcalls import VMExternRef
    from asm_libcalls.binding import default_binding
    from asm_libcalls.native import object_locks
    from asm_libcalls.runtime import externref_boxes, transit
    from forks import check, in_child
    shared = (externref_boxes._lost, externref_boxes.live, transit._words,
              default_binding()._functions)
    offset = object_locks.lock_offset(ctypes)
    locks = [ctypes.c_uint8.from_address(id(each) + offset) for each in shared]

    def lock():
        for each in locks: each.value = 1

    def unlock():
        for each in locks: each.value = 0

    os.register_at_fork(before=lock, after_in_parent=unlock)

    def work():
        assert [each.value for each in locks] == [0] * len(locks)
        for each in shared: each.copy()
        VMExternRef(1).drop()

    check(in_child(work))
    VMExternRef(1).drop()
    """
    )
