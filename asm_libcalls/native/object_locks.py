"""Locks of the package's shared lists and dicts in a child of fork, in builds without the GIL.

CPython locks a list or dict for most of its methods. Before a fork it stops all other threads, and
they give up their locks. But a thread that has waited for a lock for a millisecond is handed it by
the thread that gives it up, even if the waiting thread is stopped. That thread does not exist in
the child, which would wait for ever. It has not begun to change the object, so the child may free
these locks.

CPython says where the lock of an object is: ``PyCriticalSection_Begin`` stores it.
"""

from __future__ import annotations

import os
import sys
from _thread import get_ident
from collections import deque
from weakref import WeakValueDictionary, ref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_PACKAGE = __name__.partition(".")[0]


def shared_objects() -> list[object]:
    """Return the containers that modules of the package and their objects have as attributes.

    The objects are the values of the modules' variables, the items of these where they are lists,
    and the attributes of all of them.
    """
    found: list[object] = []
    seen: set[int] = set()
    for name, module in sys.modules.copy().items():
        if name.partition(".")[0] == _PACKAGE and module is not None:
            found.append(vars(module))
            for value in vars(module).copy().values():
                found += _containers(value, seen)
                if type(value) in (list, deque):
                    for item in value.copy():
                        found += _containers(item() if type(item) is ref else item, seen)
    return found


def _containers(value: object, seen: set[int]) -> Iterator[object]:
    if type(value) in (list, dict, set, deque):
        yield value
    elif type(value) is WeakValueDictionary:
        yield vars(value)["data"]
    elif str(type(value).__module__).partition(".")[0] == _PACKAGE and id(value) not in seen:
        seen.add(id(value))
        for attribute in _attributes(value):
            yield from _containers(attribute, seen)


def _attributes(thing: object) -> Iterator[object]:
    variables = getattr(thing, "__dict__", None)
    if type(variables) is dict:
        yield variables
        yield from variables.copy().values()
    for cls in type(thing).__mro__:
        for name in cls.__dict__.get("__slots__", ()):
            if not name.startswith("__"):
                yield getattr(thing, name, None)


def lock_offset(ctypes: Any) -> int:
    """Return the offset of the lock in an object; 0 if it is not known."""
    begin = getattr(ctypes.pythonapi, "PyCriticalSection_Begin", None)
    if begin is None:
        return 0
    thing: list[object] = []
    section = (ctypes.c_size_t * 8)()  # {previous, lock}
    begin(section, ctypes.py_object(thing))
    try:
        offset: int = section[1] - id(thing)
    finally:
        ctypes.pythonapi.PyCriticalSection_End(section)
    return offset if 0 < offset < object.__basicsize__ else 0


_forking: dict[int, tuple[list[Any], list[object]]] = {}
"""By thread that forks: the locks as integers of ctypes, and their objects."""


def _before() -> None:
    # All is found here, as the child might wait for one of them.
    ctypes: Any = sys.modules.get("ctypes")
    offset = lock_offset(ctypes) if hasattr(ctypes, "pythonapi") else 0
    if offset:
        shared = shared_objects()
        locks = [ctypes.c_uint8.from_address(id(each) + offset) for each in shared]
        _forking[get_ident()] = locks, shared


def _in_child() -> None:
    try:
        locks = _forking[get_ident()][0]
    except KeyError:
        return
    for lock in locks:
        lock.value = 0
    _forking.clear()


def free_after_forks() -> None:
    """Free the locks in each child of fork, from now on."""
    os.register_at_fork(
        before=_before,
        after_in_parent=lambda: _forking.pop(get_ident(), None),
        after_in_child=_in_child,
    )
