"""``__buffer__`` for CPython before 3.12, where Python classes have no buffer protocol.

CPython 3.12 calls a class's ``__buffer__`` from the type's buffer slot (PEP 688). This module fills
the same slot of one class, and the slot of its ``__release_buffer__``. The memoryview that
``__buffer__`` returns exports the buffer, and the new view keeps it alive. The layout of
``PyTypeObject`` up to that slot has been the same since Python 3.0, and is checked before the
write.
"""

from __future__ import annotations

import ctypes
import sys

from asm_libcalls.emitter import libc
from asm_libcalls.native import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_POINTER = ctypes.sizeof(ctypes.c_void_p)
_NAME_SLOT = 3  # in pointers: after ob_refcnt, ob_type and ob_size
_AS_BUFFER_SLOT = 20

_GET_BUFFER = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)


def install(cls: type) -> None:
    """Make instances of `cls` buffers, by their ``__buffer__``."""
    address = id(cls)
    name = ctypes.c_char_p.from_address(address + _NAME_SLOT * _POINTER).value
    as_buffer = ctypes.c_size_t.from_address(address + _AS_BUFFER_SLOT * _POINTER).value
    # The PyBufferProcs of a class are inside its own object.
    if name != cls.__name__.encode() or not address < as_buffer < address + sys.getsizeof(cls):
        return
    slots = (ctypes.c_size_t * 2).from_address(as_buffer)  # bf_getbuffer and bf_releasebuffer
    slots[0] = _get_buffer_address()
    # CPython never calls the second: the object of a view is the exported memoryview. NumPy checks
    # that it is not null.
    slots[1] = libc.function_address("PyErr_Occurred")


def _get_buffer_address() -> int:
    if process.image is not None:
        from asm_libcalls.x86_64.python_functions.get_buffer import GET_BUFFER

        return process.image.routine(GET_BUFFER)

    get_buffer = ctypes.pythonapi["PyObject_GetBuffer"]
    get_buffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    get_buffer.restype = ctypes.c_int

    def export(exporting: Any, view: int, flags: int) -> int:
        try:
            exporter = exporting._get_buffer(flags)
        except Exception:
            # A ctypes callback cannot raise. So the failure of a closed object, or of a __buffer__
            # of a user's class, is a SystemError in the caller, without the reason.
            return -1
        result: int = get_buffer(exporter, view, flags)
        return result

    callback = _GET_BUFFER(export)
    libc.never_free(callback)
    return ctypes.cast(callback, ctypes.c_void_p).value or 0
