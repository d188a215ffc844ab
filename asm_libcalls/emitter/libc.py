"""Functions of the C library for memory, and of CPython, with their prototypes. No policy here.

Python's ``mmap`` objects unmap at shutdown, while code in them may still be called. So mappings
are made with the C library's functions.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "MAP_ANONYMOUS",
    "MAP_FIXED",
    "MAP_NORESERVE",
    "MAP_PRIVATE",
    "MAP_SHARED",
    "PAGE_SIZE",
    "PROT_EXEC",
    "PROT_NONE",
    "PROT_READ",
    "PROT_WRITE",
    "free",
    "function_address",
    "malloc",
    "mmap",
    "mprotect",
    "munmap",
    "prototype",
    "python_api",
]

# POSIX defines the names; the numbers are those of Linux on x86-64, arm64 and s390x alike.
PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000

_MAP_FAILED = ctypes.c_size_t(-1).value

_process = ctypes.CDLL(None, use_errno=True)


def prototype(name: str, result: Any, *parameters: Any) -> Any:
    """Return a function of this process, called without the GIL."""
    function = _process[name]  # each look-up gives a new object: no other user's prototype changes
    function.restype = result
    function.argtypes = parameters
    return function


@cache
def python_api(name: str, result: Any, *parameters: Any) -> Any:
    """Return a function of CPython's C API, called with the GIL held; it may raise."""
    return ctypes.PYFUNCTYPE(result, *parameters)((name, ctypes.pythonapi))


_mmap = prototype(
    "mmap",
    ctypes.c_size_t,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
)
_mprotect = prototype("mprotect", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_munmap = prototype("munmap", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_malloc = prototype("malloc", ctypes.c_void_p, ctypes.c_size_t)
_free = prototype("free", None, ctypes.c_void_p)

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def mmap(
    length: int,
    protection: int,
    *,
    address: int = 0,
    flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
    file: int = -1,
    offset: int = 0,
) -> int:
    """Map `length` bytes and return the address; raise OSError if the system refuses."""
    result: int = _mmap(address, length, protection, flags, file, offset)
    if result == _MAP_FAILED:
        raise _error(f"mmap of {length} bytes with protection {protection}")
    return result


def mprotect(address: int, length: int, protection: int) -> None:
    """Change the protection of whole pages; raise OSError if the system refuses."""
    if _mprotect(address, length, protection):
        raise _error(f"mprotect of {length} bytes to protection {protection}")


def malloc(content: bytes) -> int:
    """Copy bytes to memory that lasts until it is freed, even beyond Python's finalization."""
    address: int = _malloc(len(content)) or 0
    if not address:
        raise MemoryError(f"malloc of {len(content)} bytes")
    ctypes.memmove(address, content, len(content))
    return address


def free(address: int) -> None:
    """Free what :func:`malloc` returned."""
    _free(address)


def munmap(address: int, length: int) -> None:
    """Unmap whole pages."""
    if _munmap(address, length):
        raise _error(f"munmap of {length} bytes")


def function_address(name: str) -> int:
    """Return the address of a function of this process, for example ``memmove``."""
    return ctypes.cast(_process[name], ctypes.c_void_p).value or 0
