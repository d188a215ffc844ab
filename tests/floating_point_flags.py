"""The floating-point exception flags that a call raises, read as glibc has them for x86-64."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

FE_DIVBYZERO, FE_OVERFLOW, FE_INEXACT = 0x04, 0x08, 0x20
FE_ALL_EXCEPT = 0x3D

_TRIES = 10


def raised_by(call: Callable[[], object]) -> int:
    """Return the flags that a call raises each time that it is made.

    The interpreter does float arithmetic of its own in between, now and then: what listens to the
    garbage collector takes the time, for one. So a flag counts that no try is without.
    """
    libm = ctypes.CDLL(None)
    flags = FE_ALL_EXCEPT
    for _ in range(_TRIES):
        libm.feclearexcept(FE_ALL_EXCEPT)
        call()
        flags &= libm.fetestexcept(FE_ALL_EXCEPT)
        if not flags:
            break
    return flags
