"""Registers unwind information of code that is in no file with libgcc's unwinder.

``backtrace``, crash handlers and C++ exceptions use libgcc's unwinder to walk the stack. It finds
code that the dynamic linker has loaded. Code that was composed or assembled in this process has to
be registered. Debuggers do not use it: see ``integrations/gdb.py``.

Before the first callback into Python or compiled module, no stack walk reaches frames of this
package. So registration starts then (:func:`start`), not when the package is imported.

Source: Linux Standard Base 5.0, 10.6 (exception frames); libgcc's ``unwind-dw2-fde.c``.
"""

from __future__ import annotations

import ctypes
from itertools import filterfalse

from asm_libcalls.emitter import libc
from asm_libcalls.emitter.code_registration import Registry


class _Unwinder(Registry):
    def __init__(self) -> None:
        super().__init__()
        # With the GIL held: libgcc's lock must not be taken while another thread forks.
        library = ctypes.PyDLL("libgcc_s.so.1")
        self._add = library["__register_frame"]
        self._remove = library["__deregister_frame"]
        for function in (self._add, self._remove):
            function.restype, function.argtypes = None, [ctypes.c_void_p]

    def register(self, address: int, functions: list[tuple[int, int, str, bytes]]) -> None:
        from asm_libcalls.emitter.eh_frame import encode_anywhere

        # In malloc's memory: the unwinder reads it until the process ends, when Python's objects
        # are gone.
        content = encode_anywhere((at, size, frames) for at, size, _, frames in functions)
        token = libc.malloc(content)
        # One call of C code, so that no signal handler comes in between: `_add` returns None, and
        # so its argument passes the filter.
        self._registered.update(zip((address,), filterfalse(self._add, (token,)), strict=False))

    def unregister(self, address: int) -> None:
        token = self._registered[address]
        any(map(self._remove, map(self._registered.pop, (address,))))  # one call, as above
        libc.free(token)


_started: list[_Unwinder | str] = []  # the unwinder, or why it cannot be used


def start() -> None:
    """Register all code, loaded now or later; without libgcc do nothing."""
    if not _started:
        try:
            _started.append(_Unwinder())
        except (OSError, AttributeError) as error:
            _started.append(str(error))
    if isinstance(_started[0], _Unwinder):
        _started[0].observe()


def state() -> str:
    """Return the state of the registration, for the backend report."""
    if not _started:
        return "code made at run time is registered from the first callback on"
    refusal = f"not registered: {_started[0]}" if isinstance(_started[0], str) else "registered"
    return f"code made at run time is {refusal}"
