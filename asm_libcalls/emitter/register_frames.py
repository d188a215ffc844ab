"""The C library's unwinder is told of the frames of code that it does not know from a file.

``backtrace``, crash handlers and C++ exceptions walk the stack by libgcc's unwinder. What the
dynamic linker has loaded it finds by itself; what was put together at run time, or assembled in
this process, is registered with it. Debuggers do not look here: see ``integrations/gdb.py``.

Nobody walks through our frames before there is a callback into Python, or a compiled module; so it
starts there (:func:`start`), and not when the package is imported.

Source: Linux Standard Base 5.0, 10.6 (exception frames); libgcc's ``unwind-dw2-fde.c``.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.emitter import libc
from asm_libcalls.emitter.code_registration import Registry

__all__ = ["start", "state"]


class _Unwinder(Registry):
    def __init__(self) -> None:
        super().__init__()
        # With the GIL: libgcc has a lock, which a fork in another thread must not find taken.
        library = ctypes.PyDLL("libgcc_s.so.1")
        self._add = library["__register_frame"]
        self._remove = library["__deregister_frame"]
        for function in (self._add, self._remove):
            function.restype, function.argtypes = None, [ctypes.c_void_p]

    def register(self, functions: list[tuple[int, int, str, bytes]]) -> int:
        from asm_libcalls.emitter.eh_frame import encode_anywhere

        # Of the C library's memory: it is looked at until the very end of the process, when
        # Python's objects are gone.
        content = encode_anywhere((at, size, frames) for at, size, _, frames in functions)
        token = libc.malloc(content)
        self._add(token)
        return token

    def unregister(self, token: int) -> None:
        self._remove(token)
        libc.free(token)


_started: list[_Unwinder | str] = []  # one, or why there is none


def start() -> None:
    """Register all code, and from now on what is loaded; without libgcc there is nothing to do."""
    if not _started:
        try:
            unwinder = _Unwinder()
        except (OSError, AttributeError) as error:
            _started.append(str(error))
        else:
            _started.append(unwinder)
            unwinder.observe()


def state() -> str:
    """Return whether it was started, and why it could not be, for the backend report."""
    if not _started:
        return "told when there is a callback"
    refusal = _started[0] if isinstance(_started[0], str) else ""
    told = "told of code made at run time"
    return f"not {told}: {refusal}" if refusal else told
