"""Names and frames for gdb: of the machine code of this process that is in no file.

gdb knows cached code from its file. Of what is put together at run time (function objects, adapters
and all that toy_jit compiles) it is told by its JIT interface: :func:`enable`, or
``ASM_LIBCALLS_GDB=1`` in the environment from the start of the program. A gdb that runs the program
is told at once, one that is attached later (``gdb -p``) finds all that was noted down until then.

A program pays for it: memory for each module, and a gdb that runs the program stops it each time
to read what is new. So it is not on unless asked for.

Source: Debugging with GDB, "JIT Compilation Interface".
"""

from __future__ import annotations

import ctypes
import os

from asm_libcalls.emitter import code_names, libc
from asm_libcalls.emitter.code_registration import Registry

__all__ = ["enable", "enable_or_warn", "is_enabled"]

_HOOK, _DESCRIPTOR = "__jit_debug_register_code", "__jit_debug_descriptor"
_VERSION = 1
_REGISTER, _UNREGISTER = 1, 2


class _Descriptor(ctypes.Structure):
    _fields_ = [
        ("version", ctypes.c_uint32),
        ("action", ctypes.c_uint32),
        ("relevant", ctypes.c_uint64),
        ("first", ctypes.c_uint64),
    ]


class _Entry(ctypes.Structure):
    _fields_ = [
        ("next", ctypes.c_uint64),
        ("previous", ctypes.c_uint64),
        ("symbols", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    ]


class _Debugger(Registry):
    """What gdb is told, through two symbols that it looks for in every library."""

    def __init__(self) -> None:
        super().__init__()
        library = _library()
        self._descriptor = _Descriptor.in_dll(library, _DESCRIPTOR)
        self._hook = library[_HOOK]  # gdb stops there
        self._hook.restype, self._hook.argtypes = None, []

    def register(self, functions: list[tuple[int, int, str, bytes]]) -> int:
        from asm_libcalls.emitter.elf_object import write_symbols

        # Of the C library's memory: gdb may look at any time, also when Python has gone.
        content = write_symbols(functions)
        first = self._descriptor.first
        entry = _Entry(first, 0, libc.malloc(content), len(content))
        token = libc.malloc(bytes(entry))
        if first:
            _Entry.from_address(first).previous = token
        self._descriptor.first = token
        self._tell(_REGISTER, token)
        return token

    def unregister(self, token: int) -> None:
        entry = _Entry.from_address(token)
        if entry.previous:
            _Entry.from_address(entry.previous).next = entry.next
        else:
            self._descriptor.first = entry.next
        if entry.next:
            _Entry.from_address(entry.next).previous = entry.previous
        self._tell(_UNREGISTER, token)
        libc.free(entry.symbols)
        libc.free(token)

    def _tell(self, action: int, token: int) -> None:
        self._descriptor.relevant = token
        self._descriptor.action = action
        self._hook()


_enabled: list[_Debugger] = []


def is_enabled() -> bool:
    """Return whether :func:`enable` was called."""
    return bool(_enabled)


def enable() -> None:
    """Tell gdb of all our machine code that is in no file, and from now on of what is loaded.

    The names are those of :mod:`asm_libcalls.integrations.perf`. Calling it again changes nothing.

    Raises
    ------
    OSError
        This is no x86-64 Linux, or the system refuses what is needed: executable memory, a memfd,
        ``/proc``.
    """
    if not _enabled:
        _enabled.append(_Debugger())
        _enabled[0].observe()


def enable_or_warn() -> None:
    """Call :func:`enable` for a program that did not ask: what goes wrong is a RuntimeWarning."""
    code_names.enable_or_warn(enable, "no names for gdb")


def _library() -> ctypes.CDLL:
    """Return what has the two symbols: the program, or a library that is made for it."""
    from asm_libcalls.x86_64 import backend

    try:
        backend.check_machine()
    except backend.Unavailable as reason:
        raise OSError(f"gdb: {reason}") from None
    return _program() or _load_library()


def _program() -> ctypes.CDLL | None:
    """Return the program, if it has the two symbols, as that of CPython 3.15 does.

    gdb then looks nowhere else for the descriptor's data, since a program may have copies of the
    data of libraries.
    """
    program = ctypes.CDLL(None)
    try:
        _Descriptor.in_dll(program, _DESCRIPTOR)
        program[_HOOK]
    except (AttributeError, ValueError):
        return None
    return program


def _load_library() -> ctypes.CDLL:
    """Load a shared object with the two symbols."""
    from asm_libcalls.emitter import elf_object, pages
    from asm_libcalls.emitter.elf_object import PAGE, Symbol

    code, data = b"\xc3", bytes(_Descriptor(_VERSION, 0, 0, 0))  # ret
    symbols = [
        Symbol(_HOOK, 0, len(code), is_function=True, is_exported=True),
        Symbol(_DESCRIPTOR, PAGE, len(data), is_function=False, is_exported=True),
    ]
    written = elf_object.write(
        code.ljust(PAGE, b"\xcc"), data, symbols, [(0, len(code), b"")],
        identity_size=0, contents=b"", level=1,
    )  # fmt: skip
    file = pages.memfd(written.content)
    try:
        # By the process's number: gdb opens the library by the name that it was loaded by. So the
        # file stays open.
        return ctypes.CDLL(f"/proc/{os.getpid()}/fd/{file}")
    except OSError:
        os.close(file)
        raise
