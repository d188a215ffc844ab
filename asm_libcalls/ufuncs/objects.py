"""Makes a real ``np.ufunc`` of inner loops, and finds those of NumPy's own, through its C API.

``PyUFunc_FromFuncAndData`` makes NumPy's own ufuncs and SciPy's. This module calls it as extension
modules do: through a table of functions in a capsule, at an index from NumPy's public header
``__ufunc_api.h``. NumPy does not copy the arguments, and a ufunc may outlive every reference to
them here, so they are never freed.

Source: NumPy reference, "Universal functions (ufunc) C-API"; ``numpy/__ufunc_api.h``,
``numpy/ufuncobject.h``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from asm_libcalls.emitter import libc

_FROM_FUNC_AND_DATA = 1  # the entry's index in the table
_NO_IDENTITY = -1  # PyUFunc_None: an empty reduction without `initial` is an error

_api: list[Any] = []


class Loop:
    """An inner loop."""

    __slots__ = ("address", "data", "dtypes")

    def __init__(self, dtypes: Sequence[Any], address: int, data: int = 0) -> None:
        # the types of the inputs, then of the output, in native byte order
        self.dtypes = tuple(np.dtype(dtype) for dtype in dtypes)
        # address of a function `(char **args, intp *n, intp *steps, void *data)`
        self.address = address
        self.data = data  # its last argument, an address


def _from_func_and_data() -> Any:
    if not _api:
        try:
            from numpy._core import _multiarray_umath as umath  # type: ignore[attr-defined]
        except ImportError:  # NumPy 1
            from numpy.core import _multiarray_umath as umath
        pointer_to = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
            ("PyCapsule_GetPointer", ctypes.pythonapi)
        )
        table = ctypes.cast(pointer_to(umath._UFUNC_API, None), ctypes.POINTER(ctypes.c_void_p))
        # PYFUNCTYPE keeps the GIL and raises the exception that the function sets.
        prototype = ctypes.PYFUNCTYPE(
            ctypes.py_object,
            ctypes.c_void_p,  # functions
            ctypes.c_void_p,  # data
            ctypes.c_void_p,  # types
            ctypes.c_int,  # number of loops
            ctypes.c_int,  # number of inputs
            ctypes.c_int,  # number of outputs
            ctypes.c_int,  # identity
            ctypes.c_char_p,  # name
            ctypes.c_char_p,  # doc
            ctypes.c_int,  # unused
        )
        address = table[_FROM_FUNC_AND_DATA]
        assert address is not None
        _api.append(prototype(address))
    return _api[0]


def make_ufunc(name: str, doc: str, loops: Sequence[Loop], module: str) -> np.ufunc:
    """Make a ufunc with one output.

    `name` is its ``__name__``, by which it is an attribute of `module`. NumPy prepends a line with
    the signature to its `doc`, and tries to cast arguments to the types of the loops in their
    order. ``__module__`` is set if NumPy allows it (2.2 and later).
    """
    count, operands = len(loops), len(loops[0].dtypes)
    functions = (ctypes.c_void_p * count)(*(loop.address for loop in loops))
    data = (ctypes.c_void_p * count)(*(loop.data for loop in loops))
    numbers = [dtype.num for loop in loops for dtype in loop.dtypes]
    types = (ctypes.c_char * len(numbers))(*numbers)
    names = name.encode(), doc.encode()
    libc.never_free((functions, data, types, names))
    ufunc: np.ufunc = _from_func_and_data()(
        ctypes.addressof(functions),
        ctypes.addressof(data),
        ctypes.addressof(types),
        count,
        operands - 1,
        1,
        _NO_IDENTITY,
        *names,
        0,
    )
    libc.never_free(ufunc)
    if hasattr(ufunc, "__dict__"):
        ufunc.__dict__.update(__module__=module, __qualname__=name)
    return ufunc


_BOOL, _INTEGERS = "?", "bBhHiIlLqQ"
_ORDER = _BOOL + _INTEGERS + "efdgFDGO"  # of NumPy's own ufuncs, which decides about casts

# NumPy's ufuncs whose loops serve the other types. Integers stay as they are, as in NumPy from 2.1
# on, except in rint, where large ones would lose bits.
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
    """The public fields of ``PyUFuncObject``, after the object's header."""

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
    """Return the loops of a ufunc, and after them NumPy's loops for other types.

    NumPy searches the loops in this order at each call.
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
