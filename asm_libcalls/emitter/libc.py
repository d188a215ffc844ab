"""Functions of the C library for memory, and of CPython, with their prototypes. No policy here.

Python's ``mmap`` objects unmap at shutdown, while code in them may still be called. So mappings
are made with the C library's functions.
"""

from __future__ import annotations

import os
import sys
from _ctypes import FUNCFLAG_CDECL, FUNCFLAG_PYTHONAPI, FUNCFLAG_USE_ERRNO, CFuncPtr, get_errno
from _ctypes import dlopen as _dlopen
from _ctypes import dlsym as _dlsym
from itertools import starmap

from asm_libcalls.signatures.c_types import c_int, c_size_t, c_ssize_t, c_void_p, py_object

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# POSIX defines the names; the numbers are those of Linux on x86-64, arm64 and s390x alike.
PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_NORESERVE = 0x01, 0x02, 0x10, 0x20, 0x4000

_MAP_FAILED = c_size_t(-1).value


class _Function(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_USE_ERRNO
    _restype_ = c_int


class _PythonFunction(CFuncPtr):
    _flags_ = FUNCFLAG_CDECL | FUNCFLAG_PYTHONAPI
    _restype_ = c_int


def open_library(path: str | None, mode: int = 0) -> int:
    """Return the dynamic linker's handle of a library, or of this process; raise OSError."""
    return _dlopen(path, mode)  # type: ignore[arg-type]


class _Process:
    _handle = open_library(None)


_process: Any = _Process()


def _typed(function: Any, result: Any, parameters: tuple[Any, ...]) -> Any:
    function.restype = result
    function.argtypes = parameters
    return function


def function_at(address: int, result: Any, *parameters: Any) -> Any:
    """Return a function of an address, called without the GIL."""
    return _typed(_Function(address), result, parameters)


def python_function_at(address: int, result: Any, *parameters: Any) -> Any:
    """Return a function of an address, called with the GIL held; it may raise."""
    return _typed(_PythonFunction(address), result, parameters)


def prototype(name: str, result: Any, *parameters: Any) -> Any:
    """Return a function of this process, called without the GIL."""
    return _typed(_Function((name, _process)), result, parameters)


_python_api: dict[tuple[Any, ...], Any] = {}


def python_api(name: str, result: Any, *parameters: Any) -> Any:
    """Return a function of CPython's C API, called with the GIL held; it may raise."""
    key = (name, result, *parameters)
    # Not by `get`, which locks the dict without the GIL: a child of fork may find it locked.
    try:
        return _python_api[key]
    except KeyError:
        made = _typed(_PythonFunction((name, _process)), result, parameters)
        return _python_api.setdefault(key, made)


_never_freed: list[object] = []


def string_at(address: int, size: int) -> bytes:
    """Return a copy of memory."""
    content: bytes = python_api("PyBytes_FromStringAndSize", py_object, c_void_p, c_ssize_t)(
        address, size
    )
    return content


def never_free(thing: object) -> None:
    """Keep what native code refers to, also when Python ends.

    Python clears the modules then, and destructors of other objects may still call native code.
    """
    if sys.implementation.name == "cpython":
        python_api("Py_IncRef", None, py_object)(thing)
    else:
        _never_freed.append(thing)


_mmap = prototype("mmap", c_size_t, c_void_p, c_size_t, c_int, c_int, c_int, c_ssize_t)
_mprotect = prototype("mprotect", c_int, c_void_p, c_size_t, c_int)
_munmap = prototype("munmap", c_int, c_void_p, c_size_t)
memmove = prototype("memmove", c_void_p, c_void_p, c_void_p, c_size_t)
_malloc = prototype("malloc", c_void_p, c_size_t)
free = prototype("free", None, c_void_p)  # of what malloc() returned

PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
CACHE_LINE = 64  # bytes, on x86-64


def _error(what: str) -> OSError:
    number = get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


def mmap(
    length: int,
    protection: int,
    *,
    address: int = 0,
    flags: int = MAP_PRIVATE | MAP_ANONYMOUS,
    file: int = -1,
    offset: int = 0,
    into: list[tuple[int, int]] | None = None,
) -> int:
    """Map `length` bytes and return the address; raise OSError if the system refuses.

    The address and the length are added to the list `into`, which is empty before. One call of C
    code does both, so no signal handler can raise in between.
    """
    mapping: list[tuple[int, int]] = [] if into is None else into
    given = (address, length, protection, flags, file, offset)
    mapped = filter(_MAP_FAILED.__ne__, starmap(_mmap, (given,)))
    mapping.extend(zip(mapped, (length,)))  # noqa: B905 (the first is empty where mmap failed)
    if not mapping:
        raise _error(f"mmap of {length} bytes with protection {protection}")
    return mapping[0][0]


def mprotect(address: int, length: int, protection: int) -> None:
    """Change the protection of whole pages; raise OSError if the system refuses."""
    if _mprotect(address, length, protection):
        raise _error(f"mprotect of {length} bytes to protection {protection}")


def malloc(content: bytes) -> int:
    """Copy bytes to memory that lasts until it is freed, even beyond Python's finalization."""
    address: int = _malloc(len(content)) or 0
    if not address:
        raise MemoryError(f"malloc of {len(content)} bytes")
    memmove(address, content, len(content))
    return address


def malloc_lines(count: int) -> int:
    """Return the address of `count` cache lines of zeros, which are never freed."""
    return -(-malloc(bytes((count + 1) * CACHE_LINE)) // CACHE_LINE) * CACHE_LINE


def munmap(ranges: list[tuple[int, int]]) -> None:
    """Unmap whole pages: ranges of an address and a length, which are removed from the list.

    If a signal handler's exception ends the call, the list has what is still mapped.
    """
    size = sum(length for _, length in ranges)
    # Near the recursion limit this raises, before a range is removed from the list.
    any(starmap(_munmap, ((0, 0),)))
    try:
        # One call of C code, so no handler runs between a range's removal and its munmap.
        failed = any(starmap(_munmap, iter(ranges.pop, None)))
    except IndexError:  # the list is empty
        return
    if failed:
        raise _error(f"munmap of {size} bytes")


def function_address(name: str) -> int:
    """Return the address of a function of this process, for example ``memmove``.

    Raise AttributeError if it has none of this name.
    """
    try:
        return _dlsym(_Process._handle, name)
    except OSError as error:
        raise AttributeError(str(error)) from None
