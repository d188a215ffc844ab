"""Holds the buffers of Python objects while native code has their addresses.

A held buffer is a ``Py_buffer``: its exporter neither moves nor frees the memory, and a bytearray
refuses to be resized. The memory must be contiguous, in the order of C or Fortran. For a pointer
that C may write through, it must also be writable.

Source: CPython's "Buffer Protocol" (C API), and ``Include/pybuffer.h`` for the layout and flags.
"""

from __future__ import annotations

import ctypes
import itertools
import sys

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

WRITABLE, ANY_CONTIGUOUS = 0x0001, 0x0098
_INDIRECT = 0x0118  # any memory at all

known_types = (ctypes.c_uint64 * 8)()
"""Addresses of types, or 0: machine code holds the memory of their exact objects by itself.

Their buffer slots run no Python code. A type is kept while its address is here, so that no other
type has the address. The first place is for ``numpy.ndarray``; the latest types have the others.
"""

_kept: list[type | None] = [None] * len(known_types)
_places = itertools.cycle(range(1, len(known_types)))


class HeldBuffer(ctypes.Structure):
    """CPython's ``Py_buffer``. It is released by :meth:`release`, or with this object."""

    _fields_ = [
        ("address", ctypes.c_void_p),
        ("object", ctypes.c_void_p),
        ("size", ctypes.c_ssize_t),
        ("item_size", ctypes.c_ssize_t),
        ("is_readonly", ctypes.c_int),
        ("dimensions", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]

    def release(self) -> None:
        """Let the exporter move and free the memory again; twice is a no-op."""
        _release(ctypes.addressof(self))

    def __del__(self) -> None:
        if self.object:
            self.release()


def _api(name: str, *types: Any) -> Any:
    return ctypes.PYFUNCTYPE(*types)((name, ctypes.pythonapi))


_get = _api("PyObject_GetBuffer", ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)
_release = _api("PyBuffer_Release", None, ctypes.c_void_p)
_is_contiguous = _api("PyBuffer_IsContiguous", ctypes.c_int, ctypes.c_void_p, ctypes.c_char)
exports_buffers = _api("PyObject_CheckBuffer", ctypes.c_int, ctypes.py_object)
"""Returns whether an object has the buffer protocol."""


def hold(exporter: Any, is_const: bool, where: str, held: list[Any]) -> int:
    """Return the address of an object's memory, and append a :class:`HeldBuffer` to `held`.

    Memory that native code only reads (`is_const`) may be read-only. `where` names the argument.

    Raise TypeError if the memory is read-only, ValueError if it is not contiguous or the exporter
    has none any more, and what the exporter's own ``__buffer__`` raises.
    """
    buffer = HeldBuffer()
    held.append(buffer)  # first: a signal handler may raise after the next line
    try:
        _get(exporter, ctypes.addressof(buffer), ANY_CONTIGUOUS | (0 if is_const else WRITABLE))
    except (BufferError, ValueError) as error:
        raise _explained(exporter, is_const, where, error) from error
    if type(exporter) not in _kept:
        _learn(type(exporter))
    return buffer.address or 0


def _learn(type_: type) -> None:
    """Let machine code hold the memory of a type's objects, unless that runs Python code."""
    own = (vars(base)["__buffer__"] for base in type_.__mro__ if "__buffer__" in vars(base))
    if not all(isinstance(method, type(int.__add__)) for method in own):
        return
    is_array = type_ is getattr(sys.modules.get("numpy"), "ndarray", None)
    _keep(0 if is_array else next(_places), type_, id(type_))


@step
def _keep(place: int, type_: type, address: int) -> type | None:
    """Put a type into a place; return the one that was there, which may be freed now."""
    # No call: each place has the address of the type that is kept there.
    before = _kept[place]
    known_types[place] = address
    _kept[place] = type_
    return before


def _explained(exporter: Any, is_const: bool, where: str, error: Exception) -> Exception:
    """Return an exception that says why an object's memory cannot be used."""
    name = type(exporter).__name__
    probe = HeldBuffer()
    try:
        _get(exporter, ctypes.addressof(probe), _INDIRECT)
    except (BufferError, ValueError):
        return ValueError(f"{where}: {error}")
    try:
        if not _is_contiguous(ctypes.addressof(probe), b"A"):
            return ValueError(f"{where} must be contiguous memory, got {name} with gaps")
        if probe.is_readonly and not is_const:
            return TypeError(
                f"{where} must be writable memory, since C may write through a pointer, "
                f"got read-only {name} (a signature says const pointer where C only reads)"
            )
    finally:
        probe.release()
    return ValueError(f"{where}: {error}")
