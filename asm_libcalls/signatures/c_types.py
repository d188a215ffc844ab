"""The part of :mod:`ctypes` that start-up needs, made from ``_ctypes`` as ctypes makes its own.

Importing ctypes takes 2 ms, since it makes many more types, and prototypes of functions. Modules
that a program with numeric libcalls does not import use ctypes itself; its objects and these can be
mixed.
"""

from __future__ import annotations

from _ctypes import Structure, addressof, byref, sizeof

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctypes import c_int, c_size_t, c_ssize_t, c_uint32, c_uint64, c_void_p, py_object
else:
    from _ctypes import _SimpleCData

    def _simple(name: str, code: str) -> type:
        return type(_SimpleCData)(name, (_SimpleCData,), {"_type_": code, "__module__": __name__})

    c_int, c_uint32 = _simple("c_int", "i"), _simple("c_uint32", "I")
    c_ssize_t, c_size_t = _simple("c_ssize_t", "l"), _simple("c_size_t", "L")
    c_uint64 = c_size_t if sizeof(c_size_t) == 8 else _simple("c_uint64", "Q")
    c_void_p, py_object = _simple("c_void_p", "P"), _simple("py_object", "O")

__all__ = [
    "Structure",
    "addressof",
    "byref",
    "c_int",
    "c_size_t",
    "c_ssize_t",
    "c_uint32",
    "c_uint64",
    "c_void_p",
    "py_object",
    "sizeof",
]
