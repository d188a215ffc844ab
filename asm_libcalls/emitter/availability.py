"""Checks whether machine code can be made and run: CPU, operating system, assembler."""

from __future__ import annotations

import os
import sys

__all__ = ["Unavailable", "check_assembler", "check_machine"]


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


def check_assembler() -> str:
    """Import PeachPy and return its name and version, or raise Unavailable."""
    import warnings

    try:
        # Without .pyc files, PeachPy's invalid escape sequences are warnings. A program that turns
        # warnings into errors does not mean PeachPy's.
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
