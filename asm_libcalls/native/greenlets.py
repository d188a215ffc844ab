"""Greenlets: which one runs, and which departure from native code is its newest.

greenlet (and gevent, which uses it) switches stacks inside Python calls. Once :func:`notice` has
found the imported package, machine code calls that package to learn which greenlet runs. This
module never imports greenlet.
"""

from __future__ import annotations

import sys
from ctypes import addressof

from asm_libcalls.native import process, unraisable
from asm_libcalls.x86_64.trampolines import GREENLET_GETCURRENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_GET_CURRENT = 4  # PyGreenlet_GetCurrent_NUM of greenlet.h
_CAPSULE = b"greenlet._C_API"

_getcurrent: list[Callable[[], Any]] = []


def notice() -> None:
    """Connect machine code to greenlet, if that has been imported since the last call."""
    if _getcurrent:
        return
    for name in ("greenlet._greenlet", "greenlet"):
        module = sys.modules.get(name)
        capsule = getattr(module, "_C_API", None)
        if capsule is not None:
            _take(module, capsule)
            return


def _take(module: Any, capsule: Any) -> None:
    import ctypes

    if process.image is not None:
        prototype = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
        pointer = prototype(("PyCapsule_GetPointer", ctypes.pythonapi))(capsule, _CAPSULE)
        functions = (ctypes.c_void_p * (_GET_CURRENT + 1)).from_address(pointer)
        process.image.set_slot(GREENLET_GETCURRENT, functions[_GET_CURRENT] or 0)
    _getcurrent.append(module.getcurrent)
    unraisable.identify.append(_identify)


def _identify() -> int:
    # The main greenlet has its thread's id, as before greenlet was imported.
    running = _getcurrent[0]()
    return unraisable.identify[0]() if running.parent is None else id(running)


def current() -> int:
    """Return the id of the running greenlet, as in a departure; 0 without greenlet."""
    notice()
    return id(_getcurrent[0]()) if _getcurrent else 0


Place = tuple[int, int, int, int]
"""A thread, its greenlet (0 without greenlet), and the serial number and address of the greenlet's
newest departure (0 without one)."""


def position() -> Place:
    """Return the place of the running greenlet of this thread."""
    owner, entry = current(), process.machine_entry
    newest = None if entry is None else entry.newest_departure(owner)
    if newest is None:
        return thread(), owner, 0, 0
    return thread(), owner, newest.serial, addressof(newest)


def is_over(place: Place) -> bool:
    """Return whether the departure of a place has ended, if it was this thread's."""
    began, _, serial, _ = place
    if not serial or began != thread() or process.machine_entry is None:
        return False
    # Its own record may be of a thread that ended, and freed.
    left = process.machine_entry.departures()
    return left is not None and all(each.serial != serial for each in left)


def thread() -> int:
    """Return the address of this thread's record, 0 while it has none.

    (The thread's id can be a greenlet's: gevent replaces ``get_ident``.)
    """
    record = None if process.machine_entry is None else process.machine_entry.record()
    return 0 if record is None else addressof(record)
