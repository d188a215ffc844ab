"""Waits for threads that are reading a host call record, in builds without the GIL.

A thunk loads the address of its record, and takes references to the objects that the record
borrows. Another thread may close the host function in between and free both. So a thunk counts
itself meanwhile, in one of several counts in C memory. What closes a host function replaces the
record, and then waits until it has seen each count at 0. A thunk runs no Python code between, so
this takes a moment only.
"""

from __future__ import annotations

import ctypes
import os
import time
from _thread import allocate_lock

from asm_libcalls.emitter import libc
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.trampolines import READER_COUNT_SIZE, READER_COUNTS, RECORD_READERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage

_made: list[_Counts] = []
"""The first one serves; threads that make thunks at once may add more."""


class _Counts:
    """The counts, each on a cache line of its own."""

    def __init__(self) -> None:
        self.address = libc.malloc_lines(READER_COUNTS)
        words = READER_COUNTS * READER_COUNT_SIZE // 8
        self.words = (ctypes.c_uint64 * words).from_address(self.address)

    def wait(self) -> None:
        """Wait until no thread reads what it had loaded before this call."""
        # Taking a lock is a locked instruction. So a thread whose count comes after the look below
        # sees what was stored before (Intel SDM, volume 3, 9.2).
        allocate_lock().acquire()
        for index in range(0, len(self.words), READER_COUNT_SIZE // 8):
            while self.words[index]:
                time.sleep(0)

    def renew(self) -> None:
        """Forget the threads that a fork has ended."""
        ctypes.memset(self.address, 0, ctypes.sizeof(self.words))


def share(loaded: LoadedImage) -> None:
    """Have the image's thunks count themselves from now on, in a build without the GIL."""
    if not HAS_GIL and not loaded.slot(RECORD_READERS):
        counts = _Counts()
        os.register_at_fork(after_in_child=counts.renew)
        _made.append(counts)
        loaded.set_slot(RECORD_READERS, _made[0].address)


def wait() -> None:
    """Wait until no thread reads a record that was replaced before this call."""
    if _made:
        _made[0].wait()
