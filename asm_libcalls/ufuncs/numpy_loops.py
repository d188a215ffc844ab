"""Inner loops of NumPy's own ufuncs: their addresses, and for which types they are used."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from asm_libcalls.ufuncs.objects import Loop

_BOOL, _INTEGERS = "?", "bBhHiIlLqQ"
_ORDER = _BOOL + _INTEGERS + "efdgFDGO"  # of NumPy's own ufuncs, which decides about casts

# The ufuncs whose loops serve for types that ours have no loop for. Integers stay as they are: so
# do they in NumPy from 2.1 on, except in rint, where large ones would lose bits.
_SOURCES: dict[str, tuple[tuple[np.ufunc, str], ...]] = {
    name: (
        (same, _ORDER.strip(_BOOL + _INTEGERS) if name == "nearest" else _ORDER),
        (np.positive, _INTEGERS),
        (np.absolute, _BOOL),
    )
    for name, same in (
        ("ceil", np.ceil),
        ("floor", np.floor),
        ("trunc", np.trunc),
        ("nearest", np.rint),
    )
}


class _UFuncObject(ctypes.Structure):
    """The public fields of ``PyUFuncObject``, after the object's header.

    Source: ``numpy/ufuncobject.h``.
    """

    _fields_ = [
        ("nin", ctypes.c_int),
        ("nout", ctypes.c_int),
        ("nargs", ctypes.c_int),
        ("identity", ctypes.c_int),
        ("functions", ctypes.POINTER(ctypes.c_void_p)),
        ("data", ctypes.POINTER(ctypes.c_void_p)),
        ("ntypes", ctypes.c_int),
        ("reserved1", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("types", ctypes.POINTER(ctypes.c_char)),
    ]


def loop_of(ufunc: np.ufunc, dtypes: Sequence[str]) -> Loop | None:
    """Return a ufunc's loop of some types; None if it has none or its layout is unknown."""
    fields = _UFuncObject.from_address(id(ufunc) + object.__basicsize__)
    counts = (fields.nin, fields.nout, fields.nargs, fields.ntypes)
    if counts != (ufunc.nin, ufunc.nout, ufunc.nargs, ufunc.ntypes):
        return None
    if fields.name != ufunc.__name__.encode():
        return None
    wanted = bytes(np.dtype(dtype).num for dtype in dtypes)
    types = ctypes.string_at(fields.types, ufunc.nargs * ufunc.ntypes)
    for i in range(ufunc.ntypes):
        if types[i * ufunc.nargs : (i + 1) * ufunc.nargs] == wanted and fields.functions[i]:
            return Loop(dtypes, fields.functions[i] or 0, fields.data[i] or 0)
    return None


def with_loops_of_numpy(name: str, ours: Sequence[Loop]) -> list[Loop]:
    """Return the loops of one of our ufuncs with those of NumPy's that serve its other types.

    Ours come first: at each call NumPy goes through the loops until it finds that of the types.
    """
    if name not in _SOURCES:
        return list(ours)
    loops = {loop.dtypes[0].char: loop for loop in ours}
    for ufunc, types in _SOURCES[name]:
        for type_ in types:
            found = None if type_ in loops else loop_of(ufunc, (type_, type_))
            if found is not None:
                loops[type_] = found
    others = [loops[type_] for type_ in _ORDER if type_ in loops and loops[type_] not in ours]
    return [*ours, *others]
