"""Checks whether machine code can run here: CPU and operating system."""

from __future__ import annotations

import os
import sys


class Unavailable(Exception):
    """The backend, or one family of it, cannot serve on this machine; the message says why."""


def check_machine() -> None:
    """Raise Unavailable unless this is an x86-64 CPU and a system where code can be loaded."""
    machine = os.uname().machine if hasattr(os, "uname") else sys.platform
    if machine not in ("x86_64", "amd64") or sys.maxsize <= 2**32:
        bits = "64" if sys.maxsize > 2**32 else "32"
        raise Unavailable(f"this Python runs on {machine} ({bits} bits), not on x86-64")
    if sys.platform != "linux":
        raise Unavailable(f"the system is {sys.platform}; machine code is loaded on Linux only")


_warned: list[str] = []


def warn(text: str) -> None:
    """Tell the user, by one RuntimeWarning in a process, why its start or its calls are slow."""
    if _warned:
        return
    _warned.append(text)
    import warnings
    from contextlib import suppress

    # A package that works can be imported where warnings are errors too.
    with suppress(RuntimeWarning):
        warnings.warn(f"asm_libcalls {text}", RuntimeWarning, stacklevel=2)
