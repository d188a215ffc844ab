"""The C structures of locks in builds without the GIL. Machine code and Python both read them."""

from __future__ import annotations

from asm_libcalls.signatures import c_types


class StoreLock(c_types.Structure):
    """The lock of a store, in builds without the GIL; ``store_locks.py`` describes its use."""

    _fields_ = (
        # the thread pointer of the thread inside, or 0, and the bits below
        ("owner", c_types.c_uint64),
        ("depth", c_types.c_uint64),  # how often that thread has entered and not left
        ("entered", c_types.c_uint64),  # its stack pointer at its first entry
    )

    WAITED_FOR = 1
    """A bit of `owner`: threads wait, so the thread that leaves wakes one."""

    HANDED_OVER = 2
    """A bit of `owner`: a thread has waited twice and could not enter. After the next leaving only
    a thread that has waited may enter."""

    BITS = WAITED_FOR | HANDED_OVER

    @property
    def thread(self) -> int:
        """The thread inside, or 0, as ``get_ident`` names it."""
        return int(self.owner) & ~self.BITS


class StepLock(c_types.Structure):
    """The lock of all steps, in builds without the GIL; ``step_lock.py`` describes its use."""

    _fields_ = (
        ("owner", c_types.c_uint64),  # the thread pointer of the thread that is in a step, or 0
        # how many steps that thread is in, if it runs Python; 0 if machine code has the lock
        ("depth", c_types.c_uint64),
        ("waiting", c_types.c_uint64),  # whether a step of Python has found it taken for long
    )
