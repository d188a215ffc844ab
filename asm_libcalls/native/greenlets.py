"""Greenlets: which one runs, and where native code was left for Python by which.

greenlet (and gevent, which is built on it) switches stacks inside of Python calls. Machine code
asks it who runs as soon as :func:`notice` has found it; nothing has to be imported for that, and
without greenlet nothing is asked.
"""

from __future__ import annotations

import sys
from _thread import get_ident

from asm_libcalls.native import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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


def current() -> int:
    """Return what stands for the running greenlet in a departure; 0 where there are none."""
    notice()
    return id(_getcurrent[0]()) if _getcurrent else 0


Place = tuple[int, int, int]
"""A thread, a greenlet of it (0 where there are none), and the serial number of its newest
departure; 0 for that is where native code was not left."""


def position(departures: Iterable[Departure]) -> Place:
    """Return where the running greenlet of this thread is."""
    owner = current()
    for departure in departures:
        if not owner or departure.owner == owner:
            return get_ident(), owner, departure.serial
    return get_ident(), owner, 0


def is_at(place: Place, departures: Iterable[Departure]) -> bool:
    """Return whether a greenlet of this thread, or the thread, is still where it was."""
    thread, owner, serial = place
    if thread != get_ident():
        return False
    for departure in departures:
        if departure.owner == owner or not owner:
            return bool(departure.serial == serial)
    return serial == 0


def is_over(place: Place, departures: Iterable[Departure]) -> bool:
    """Return whether the departure of a place has ended, if it was this thread's."""
    thread, _, serial = place
    return bool(serial) and thread == get_ident() and serial not in {d.serial for d in departures}
