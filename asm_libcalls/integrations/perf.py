"""Names for Linux perf, of functions in the machine code of this process.

perf reads the functions of code that is in no file from a *map*: a text file named after the
process's number, with a line for each function: its address and size in hexadecimal, its name.
:func:`enable` writes our lines. With ``ASM_LIBCALLS_PERF_MAP=1`` in the environment, ``import
asm_libcalls`` calls it, so a program can be profiled unchanged.

CPython's ``-X perf`` writes the same file. So every line goes through CPython's writer
(``PyUnstable_WritePerfMapEntry``, 3.12 and later); on older versions it is appended in one
``write``. The file is never deleted, so it is written on request only.

perf uses the map for anonymous memory only. So with the variable, all our code is loaded to
anonymous memory, code of the code cache too. Without it, perf reads names of cached code from the
file. Code in a memfd (if the system denies anonymous executable memory) has no names. A line cannot
be removed: if code is unmapped and other code is mapped at its address, perf may show either name.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys

from asm_libcalls.emitter import code_names
from asm_libcalls.emitter.open_file import OpenFile
from asm_libcalls.signatures.arguments import integer, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.emitter.code_names import Source

__all__ = ["enable", "enable_or_warn", "is_enabled", "map_file", "write_entry"]

_FOLDER = "/tmp"  # where perf looks, whatever TMPDIR says

_enabled_in: list[int] = []  # the process that enabled it, if any


def map_file() -> str:
    """Return the path of the map that perf reads for this process."""
    return f"{_FOLDER}/perf-{os.getpid()}.map"


def is_enabled() -> bool:
    """Return whether :func:`enable` was called."""
    return bool(_enabled_in)


def enable() -> str:
    """Write the names of all our machine code, loaded now or later, to the map.

    Libcalls and other routines are named by their symbols, routines without a symbol
    ``asm_libcalls::name``, and functions that toy_jit compiles ``wasm::module::name``. A child of
    ``fork`` gets its own map. Calling it again changes nothing.

    Returns
    -------
    str
        The path of the map.

    Raises
    ------
    OSError
        The system is not Linux, or the map cannot be written: it is another user's, for example.
    """
    if not _enabled_in:
        _check_system()
        written = list(code_names.sources.values())
        for source in written:
            _write_all(source)
        # All names could be written, so code that is loaded later is worth observing.
        _enabled_in.append(os.getpid())
        code_names.observe(_Observer())
        os.register_at_fork(after_in_child=_after_fork)
        for source in list(code_names.sources.values()):
            if source not in written:  # another thread has loaded code meanwhile
                _write_new(source)
    return map_file()


def enable_or_warn() -> None:
    """Call :func:`enable` for the environment variable; report an error as a RuntimeWarning."""
    code_names.enable_or_warn(enable, "no perf map")


def write_entry(address: int, size: int, name: str) -> None:
    """Name a function of your own in the map, for example one that a JIT compiled.

    Traces of traps name it too, unless its code has names from ``load_code`` or ``Code``.

    Parameters
    ----------
    address : int
    size : int
        In bytes.
    name : str
        The name that perf shows. Characters that would end the line become spaces.

    Raises
    ------
    TypeError, ValueError
        An argument is not as described.
    OSError
        The system is not Linux, or the map cannot be written.
    """
    for value, what in ((address, "address"), (size, "size")):
        integer(value, f"write_entry(): {what}", "an int", 1, 2**64 - 1)
    if not isinstance(name, str):
        raise TypeError(f"write_entry(): name must be a str, got {type(name).__name__}")
    if not name.strip():
        raise ValueError("write_entry(): name must not be empty")
    _check_system()
    _write(address, size, name)
    code_names.name_in_traces(address, size, name)


def _check_system() -> None:
    if sys.platform != "linux":
        raise OSError(f"perf maps are for Linux, and the system is {sys.platform}")


def _write_all(source: Source) -> None:
    for address, size, name, _ in source():
        _write(address, size, name)


class _Observer:
    needs_anonymous_memory = True

    def loaded(self, address: int, source: Source) -> None:
        _write_new(source)

    def unloaded(self, address: int) -> None:
        pass  # a line cannot be removed


def _write_new(source: Source) -> None:
    # A failed write, on a full disk for example, must not make compiling or forking fail.
    with contextlib.suppress(OSError):
        _write_all(source)


def _write(address: int, size: int, name: str) -> None:
    line = printable(name).encode("utf-8", "replace")
    if _native_write is None:
        _append(b"%x %x %s\n" % (address, size, line))
    else:
        status = _native_write(address, min(size, 2**32 - 1), line)
        if status:
            raise OSError(f"CPython could not write {map_file()} (status {status})")


def _append(line: bytes) -> None:
    # As CPython's.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file = OpenFile(os.open, map_file(), flags, 0o600)
    try:
        status = os.fstat(file.number)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise OSError(f"{map_file()} is not a file of this user")
        os.write(file.number, line)
    finally:
        file.close()


def _after_fork() -> None:
    if _native_finish is not None:
        _native_finish()  # CPython still has the parent's file open
    for source in list(code_names.sources.values()):
        _write_new(source)


def _native(name: str, result: Any, *parameters: Any) -> Any:
    try:
        function = ctypes.pythonapi[name]
    except (AttributeError, KeyError):
        return None
    function.restype = result
    function.argtypes = parameters
    return function


# The size is an unsigned int up to 3.15 and a size_t from 3.16 on; a register holds either.
_native_write = _native(
    "PyUnstable_WritePerfMapEntry", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
)
_native_finish = _native("PyUnstable_PerfMapState_Fini", None)
