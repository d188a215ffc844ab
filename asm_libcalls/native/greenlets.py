"""Greenlets: which one runs, and where native code was left for Python by which.

greenlet (and gevent, which is built on it) switches stacks inside of Python calls. Machine code
asks it who runs as soon as :func:`notice` has found it; nothing has to be imported for that, and
without greenlet nothing is asked.
"""

from __future__ import annotations

import sys
from ctypes import addressof

from asm_libcalls import unraisable
from asm_libcalls.native import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.activation import Departure

__all__ = ["Place", "current", "is_at", "is_over", "notice", "position"]

_GET_CURRENT = 4  # PyGreenlet_GetCurrent_NUM of greenlet.h
_CAPSULE = b"greenlet._C_API"

_getcurrent: list[Callable[[], Any]] = []


def notice() -> None:
    """Let machine code ask greenlet who runs, if it has been imported meanwhile."""
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
        process.image.set_slot("greenlet_getcurrent", functions[_GET_CURRENT] or 0)
    _getcurrent.append(module.getcurrent)
    unraisable.who_runs.append(_who_runs)


def _who_runs() -> int:
    # The main greenlet is its thread, which may have been asked for before there were others.
    running = _getcurrent[0]()
    return unraisable.who_runs[0]() if running.parent is None else id(running)


def current() -> int:
    """Return what stands for the running greenlet in a departure; 0 where there are none."""
    notice()
    return id(_getcurrent[0]()) if _getcurrent else 0


Place = tuple[int, int, int, int]
"""A thread, a greenlet of it (0 where there are none), and its newest departure: its serial number
and its address, 0 where native code was not left."""


def position() -> Place:
    """Return where the running greenlet of this thread is."""
    owner = current()
    newest = _newest(owner)
    if newest is None:
        return _thread(), owner, 0, 0
    return _thread(), owner, newest.serial, addressof(newest)


def is_at(place: Place) -> bool:
    """Return whether a greenlet of this thread, or the thread, is still where it was."""
    thread, owner, serial, _ = place
    if thread not in (0, _thread()):
        return False
    newest = _newest(owner)
    return serial == (0 if newest is None else newest.serial)


def is_over(place: Place) -> bool:
    """Return whether the departure of a place has ended, if it was this thread's."""
    thread, _, serial, address = place
    if not serial or thread != _thread():
        return False
    from asm_libcalls.activation import Departure

    return bool(Departure.from_address(address).serial != serial)


def _newest(owner: int) -> Departure | None:
    entry = process.machine_entry
    return None if entry is None else entry.newest_departure(owner)


def _thread() -> int:
    # The address of its record, 0 while it has none. (Its number may be that of a greenlet: gevent
    # replaces the function.)
    record = None if process.machine_entry is None else process.machine_entry.record()
    return 0 if record is None else addressof(record)
