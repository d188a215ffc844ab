"""Loads an image's file by the dynamic linker, so that debuggers and unwinders know its code.

``backtrace``, debuggers, C++ exceptions and ``dladdr`` find what the dynamic linker has loaded:
they walk through its frames and name its routines. A process has such a library once, with one set
of slots. So only the first image that asks for a file gets it.

The linker opens the file by its path. The caller ensures that no other user can replace the file.
Loading runs no code of the file, which has no initializers. Before any of it runs, its code in
memory is compared with the bytes that were checked (``open_file.py``).

Source: ``dlopen(3)``, ``dlinfo(3)``; ``<link.h>`` of glibc and musl (``struct link_map``).
"""

from __future__ import annotations

import os

from asm_libcalls.emitter import libc
from asm_libcalls.emitter.open_file import OpenFile, check_mapped
from asm_libcalls.signatures import c_types

CLAIM_SIZE = 40
"""Bytes of a ``pthread_mutex_t``, all zeros initially. It follows the slots."""

_RTLD_DI_LINKMAP = 2


def load(path: str, code_at: int, code: bytes, claim_at: int) -> int:
    """Load a shared object, given by its absolute path, and return the address of its code.

    `code` is expected at `code_at` in the file, and in memory from the first mapped byte on. The
    mutex at `claim_at` from there is locked by the image that owns the library.

    Raise OSError if the system or the dynamic linker refuses, another image in this process owns
    the library, or the file has changed since it was checked.
    """
    handle = libc.open_library(path, os.RTLD_NOW | os.RTLD_LOCAL)
    try:
        link_map = c_types.c_size_t()
        if _dlinfo(handle, _RTLD_DI_LINKMAP, c_types.addressof(link_map)):
            raise OSError("dlinfo: no link map")
        first = c_types.c_size_t.from_address(link_map.value)  # the load address
        address: int = first.value + code_at
        check_mapped(address, code, lambda: _read(path, code_at, len(code)))
        if _mutex_trylock(address + claim_at):
            raise OSError("this process has loaded the file for another image")
    except BaseException:
        _dlclose(handle)
        raise
    return address


def _read(path: str, at: int, size: int) -> bytes:
    file = OpenFile(os.open, path, os.O_RDONLY)
    try:
        return os.pread(file.number, size, at)
    finally:
        file.close()


_dlinfo = libc.prototype("dlinfo", c_types.c_int, c_types.c_void_p, c_types.c_int, c_types.c_void_p)
_dlclose = libc.prototype("dlclose", c_types.c_int, c_types.c_void_p)
_mutex_trylock = libc.prototype("pthread_mutex_trylock", c_types.c_int, c_types.c_void_p)
