"""Names and frames for gdb, of machine code that is in no file.

gdb reads cached code from its file. Code made at run time (function objects, adapters, compiled
modules of toy_jit) is registered through gdb's JIT interface after :func:`enable`, or with
``ASM_LIBCALLS_GDB=1`` in the environment from the start of the program. A gdb that runs the program
reads each registration at once; one that is attached later (``gdb -p``) finds all of them.

Registration costs memory for each module, and a gdb that runs the program stops it at each
registration. So it is off by default.

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
    """Registers code with gdb, through two symbols that gdb looks for in every library."""

    def __init__(self) -> None:
        super().__init__()
        library = _library()
        self._descriptor = _Descriptor.in_dll(library, _DESCRIPTOR)
        self._hook = library[_HOOK]  # gdb stops there
        self._hook.restype, self._hook.argtypes = None, []

    def register(self, address: int, functions: list[tuple[int, int, str, bytes]]) -> None:
        from asm_libcalls.emitter.elf_object import write_symbols

        # In malloc's memory: gdb may read it at any time, even after Python's finalization.
        content = write_symbols(functions)
        first = self._descriptor.first
        entry = _Entry(first, 0, libc.malloc(content), len(content))
        token = libc.malloc(bytes(entry))
        following = _entry(first)
        # No call until all of it is written: a signal handler may raise after one.
        following.previous = token
        self._descriptor.first = token
        self._registered[address] = token
        self._tell(_REGISTER, token)

    def unregister(self, address: int) -> None:
        token = self._registered[address]
        entry = _entry(token)
        previous, following = _entry(entry.previous), _entry(entry.next)
        # No call until all of it is written, as above.
        if entry.previous:
            previous.next = entry.next
        else:
            self._descriptor.first = entry.next
        following.previous = entry.previous
        del self._registered[address]
        self._tell(_UNREGISTER, token)
        libc.free(entry.symbols)
        libc.free(token)

    def _tell(self, action: int, token: int) -> None:
        self._descriptor.relevant = token
        self._descriptor.action = action
        self._hook()


def _entry(address: int) -> _Entry:
    """Return the entry at an address; one that is not used for address 0."""
    return _Entry.from_address(address) if address else _Entry()


_enabled: list[_Debugger] = []


def is_enabled() -> bool:
    """Return whether :func:`enable` was called."""
    return bool(_enabled)


def enable() -> None:
    """Register all machine code that is in no file, loaded now or later, with gdb.

    The names are those of :mod:`asm_libcalls.integrations.perf`. Calling it again changes nothing.

    Raises
    ------
    OSError
        The system is not x86-64 Linux, or refuses executable memory, a memfd or ``/proc``.
    """
    if not _enabled:
        _enabled.append(_Debugger())
    _enabled[0].observe()


def enable_or_warn() -> None:
    """Call :func:`enable` for the environment variable; report an error as a RuntimeWarning."""
    code_names.enable_or_warn(enable, "no names for gdb")


def _library() -> ctypes.CDLL:
    """Return what has the two symbols: the program, or a library made for them."""
    from asm_libcalls.emitter.load_code import check_system

    check_system("gdb")
    return _program() or _load_library()


def _program() -> ctypes.CDLL | None:
    """Return the program if it has the two symbols, as CPython 3.15 does.

    gdb then reads the program's descriptor only, because a program may have copies of a library's
    data (copy relocations).
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
    from asm_libcalls.emitter.elf_object import Symbol
    from asm_libcalls.emitter.image import CODE_PAGE

    code, data = b"\xc3", bytes(_Descriptor(_VERSION, 0, 0, 0))  # ret
    symbols = [
        Symbol(_HOOK, 0, len(code), is_function=True, is_exported=True),
        Symbol(_DESCRIPTOR, CODE_PAGE, len(data), is_function=False, is_exported=True),
    ]
    written = elf_object.write(
        code.ljust(CODE_PAGE, b"\xcc"), data, symbols, [(0, len(code), b"")],
        identity_size=0, contents=b"", level=1,
    )  # fmt: skip
    file = pages.memfd(written.content)
    # By the process's number, and the file stays open: gdb opens the library by its load name.
    library = ctypes.CDLL(f"/proc/{os.getpid()}/fd/{file.number}")
    file.keep()
    return library
