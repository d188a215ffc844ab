"""Address ranges of memories and tables, reserved as a whole and made accessible as they grow.

A range begins without access (``PROT_NONE``) and without swap. Growing is one ``mprotect``, so the
base never moves, and an access past the size faults.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.emitter import libc
from asm_libcalls.owned.objects import Resource

_READ_WRITE = libc.PROT_READ | libc.PROT_WRITE


class Reservation(Resource):
    """One address range, unmapped when this object has no more references.

    Without address space for it, MemoryError is raised; `what` is its use, for the message.
    """

    __slots__ = ("address",)

    def __init__(self, size: int, what: str) -> None:
        # A guard page on either side, never accessible: an access just outside faults.
        length = _whole_pages(size) + 2 * libc.PAGE_SIZE
        mapping: list[tuple[int, int]] = []
        super().__init__(partial(libc.munmap, mapping))
        try:
            start = libc.mmap(
                length,
                libc.PROT_NONE,
                flags=libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE,
                into=mapping,
            )
        except OSError as error:
            raise MemoryError(f"no address space for {what}: {error}") from error
        self.address = start + libc.PAGE_SIZE  # the first byte, on a page boundary

    def make_accessible(self, size: int) -> bool:
        """Make the first `size` bytes readable and writable; return whether the system allows it.

        New bytes are 0. Accessible bytes stay accessible, also if threads grow at the same time.
        """
        if size:
            try:
                libc.mprotect(self.address, _whole_pages(size), _READ_WRITE)
            except OSError:
                return False
        return True


def _whole_pages(size: int) -> int:
    return -(-size // libc.PAGE_SIZE) * libc.PAGE_SIZE
