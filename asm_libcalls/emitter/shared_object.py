"""An image's file loaded by the dynamic linker, so that everybody knows what its code is.

What the dynamic linker has loaded is found by ``backtrace``, debuggers, exceptions and ``dladdr``:
they walk through its frames and name its routines. Such a library is there once in a process, with
one set of slots, so only the first image that asks for a file gets it like this.

The linker opens the file by its path, so it must be one that nobody else can exchange; that is for
the caller to know. Loading runs no code of the file, since it has no initializers, and before
anything in it is run, its code in memory is compared with what was checked.

Source: ``dlopen(3)``, ``dlinfo(3)``; ``<link.h>`` of glibc and musl (``struct link_map``).
"""

from __future__ import annotations

import ctypes
import os

from asm_libcalls.emitter import libc

__all__ = ["CLAIM_SIZE", "load"]

CLAIM_SIZE = 40
"""Bytes of a ``pthread_mutex_t``; in its initial state they are zeros. It is behind the slots."""

_RTLD_DI_LINKMAP = 2


def load(path: str, code_at: int, code: bytes, claim_at: int) -> int:
    """Load a shared object and return the address of its code.

    Parameters
    ----------
    path : str
        Absolute.
    code_at : int
        Where the code begins in the file, and in memory from the first mapped byte on.
    code : bytes
        What must stand there.
    claim_at : int
        From the beginning of the code: the mutex, locked by whom the library belongs to.

    Raises
    ------
    OSError
        The system or the dynamic linker refuses; another image in this process has the library; or
        the file is not what it was when it was checked.
    """
    handle = ctypes.c_void_p(ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL)._handle)
    try:
        link_map = ctypes.POINTER(ctypes.c_size_t)()  # its first member is where the library is
        if _dlinfo(handle, _RTLD_DI_LINKMAP, ctypes.addressof(link_map)):
            raise OSError("dlinfo: no link map")
        address: int = link_map[0] + code_at
        if ctypes.string_at(address, len(code)) != code:
            raise OSError("the file changed between reading and loading it")
        if _mutex_trylock(address + claim_at):
            raise OSError("this process has loaded the file for another image")
    except OSError:
        _dlclose(handle)
        raise
    return address


_dlinfo = libc.prototype("dlinfo", ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
_dlclose = libc.prototype("dlclose", ctypes.c_int, ctypes.c_void_p)
_mutex_trylock = libc.prototype("pthread_mutex_trylock", ctypes.c_int, ctypes.c_void_p)
