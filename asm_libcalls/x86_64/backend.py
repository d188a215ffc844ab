"""The x86-64 backend, loaded: assembles what this CPU can run and puts it on executable pages."""

from __future__ import annotations

import ctypes
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.x86_64.cpu import Cpu
    from asm_libcalls.x86_64.pages import LoadedImage

__all__ = ["Backend", "Unavailable", "check_machine", "load"]


class Unavailable(Exception):
    """The backend can not serve here, or not one family of it; the message says why."""


class Backend:
    """What is loaded.

    Attributes
    ----------
    loaded : LoadedImage
        The routines of every family that this CPU can run, and the trap entry and exit.
    cpu : Cpu
    families : dict of str to str
        Each family, with "" if it is served and else the reason why not.
    assembler : str
        What made the code, for example ``"PeachPy 0.2.0"``.
    """

    __slots__ = ("assembler", "cpu", "families", "loaded")

    def __init__(
        self, loaded: LoadedImage, cpu: Cpu, families: dict[str, str], assembler: str
    ) -> None:
        self.loaded = loaded
        self.cpu = cpu
        self.families = families
        self.assembler = assembler


def load() -> Backend:
    """Load the backend.

    Raises
    ------
    Unavailable
        Another CPU or system, no assembler, no executable memory, or anything else that keeps
        machine code from being made: the fallback serves then, and the cause is chained.
    """
    check_machine()
    try:
        return _load(_check_assembler())
    except Unavailable:
        raise
    except Exception as error:  # an assembler of another version, a C library without pthreads, ...
        raise Unavailable(
            f"machine code could not be made: {type(error).__name__}: {error}"
        ) from error


def _load(assembler: str) -> Backend:
    from asm_libcalls.x86_64 import (
        buffers, builtins, cpu, entry, host_calls, integers, memories, pages, rounding,
    )  # fmt: skip
    from asm_libcalls.x86_64.image import link

    families = {"rounding": rounding, "integers": integers, "memories": memories}
    try:
        this_cpu = cpu.detect(pages.load(link(cpu.routines())))
        routines = [
            routine
            for part in (entry, host_calls, builtins, buffers)
            for routine in part.routines()
        ]
        reasons = {}
        for name, family in families.items():
            missing = family.REQUIRES - this_cpu.features
            reasons[name] = f"the CPU lacks {', '.join(sorted(missing))}" if missing else ""
            if not missing:
                routines += family.routines(this_cpu.features)
        loaded = pages.load(link(routines))
    except OSError as refusal:
        raise Unavailable(f"no executable memory: {refusal.strerror or refusal}") from refusal
    _fill_slots(loaded)
    return Backend(loaded, this_cpu, reasons, assembler)


def check_machine() -> None:
    """Raise Unavailable unless x86-64 code can be put on pages here: the CPU, then the system."""
    machine = os.uname().machine if hasattr(os, "uname") else sys.platform
    if machine not in ("x86_64", "amd64") or sys.maxsize <= 2**32:
        bits = "64" if sys.maxsize > 2**32 else "32"
        raise Unavailable(f"this Python runs on {machine} ({bits} bits), not on x86-64")
    if sys.platform != "linux":
        raise Unavailable(f"the system is {sys.platform}; machine code is loaded on Linux only")


def _check_assembler() -> str:
    import warnings

    try:
        # Where its .pyc files are missing, its escape sequences are warnings; a user who makes
        # warnings errors has done so for his own code.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import peachpy
            import peachpy.x86_64
            import peachpy.x86_64.function
    except ImportError as error:
        raise Unavailable(
            f"PeachPy is not installed, or not for this Python ({error}); "
            'install it with "make run", from Debian\'s python3-peachpy, or from its repository'
        ) from error
    except Exception as error:  # a broken assembler must not keep the fallback from serving
        raise Unavailable(f"PeachPy is broken: {type(error).__name__}: {error}") from error
    return f"PeachPy {getattr(peachpy, '__version__', '')}".strip()


def _fill_slots(loaded: LoadedImage) -> None:
    from asm_libcalls import libc

    # A slot bears the name of the C function (of libc or CPython) whose address it holds.
    for name in loaded.image.slots:
        if name != "activations_key":
            loaded.set_slot(name, libc.function_address(name))
    key = ctypes.c_uint()
    create = libc.prototype("pthread_key_create", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    error = create(ctypes.addressof(key), libc.function_address("free"))
    if error:
        raise Unavailable(f"no pthread key for the list of activations: {os.strerror(error)}")
    loaded.set_slot("activations_key", key.value)
