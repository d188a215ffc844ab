"""A linear memory: one reservation at a stable address, made readable and writable as it grows.

The whole of the maximum is reserved at once with no access (and no swap), so growing is one
``mprotect``, the base never moves, and what lies behind the size faults instead of being somebody
else's. Python sees the bytes as a writable buffer; a view keeps the reservation alive, so it never
dangles, whatever happens to the Memory.

Source: WebAssembly 2.0, 4.2.8 (memory instances) and 4.5.3.9 (growing memories).
"""

from __future__ import annotations

import ctypes
import sys
from functools import partial

from asm_libcalls.emitter import libc
from asm_libcalls.owned import Resource
from asm_libcalls.runtime.growable import Growable
from asm_libcalls.vmcontext import VMMemoryDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAXIMUM_PAGES", "WASM_PAGE_SIZE", "Memory"]

WASM_PAGE_SIZE = 65536
"""Bytes of a page."""

MAXIMUM_PAGES = 65536
"""The most pages that a 32-bit memory can have: 4 GiB."""

_READ_WRITE = libc.PROT_READ | libc.PROT_WRITE


class _Reservation(Resource):
    """The address range of one memory. It is unmapped when nothing refers to it any more."""

    __slots__ = ("address",)

    def __init__(self, pages: int) -> None:
        # A page more on either side, never accessible: an access just outside of it faults.
        length = pages * WASM_PAGE_SIZE + 2 * libc.PAGE_SIZE
        try:
            start = libc.mmap(
                length,
                libc.PROT_NONE,
                flags=libc.MAP_PRIVATE | libc.MAP_ANONYMOUS | libc.MAP_NORESERVE,
            )
        except OSError as error:
            raise MemoryError(f"no address space for a memory of {pages} pages: {error}") from error
        self.address = start + libc.PAGE_SIZE
        super().__init__(partial(libc.munmap, start, length))


class Memory(Growable):
    """A WebAssembly linear memory.

    It is a writable buffer: ``memoryview(memory)``, ``numpy.frombuffer(memory, "u1")``. A view
    shows the size at the time that it was made, and stays valid after a grow or a close.

    Parameters
    ----------
    minimum : int
        The size at first, in pages of 64 KiB.
    maximum : int, optional
        The most pages that it may grow to, up to 65536.
    limiter : callable, optional
        ``limiter(current, desired, maximum)`` is asked before each grow, in pages (maximum None
        if there is none), as Wasmtime's ``ResourceLimiter``: a false result refuses the grow, an
        exception goes to whoever grows. It is asked again if it has grown this memory itself.

    Raises
    ------
    TypeError, ValueError
        A size is not an integer, or beyond the limits.
    MemoryError
        The system has no address space for it.
    """

    _unit, _unit_in_full, _largest = "pages", "pages of 64 KiB", MAXIMUM_PAGES

    def __init__(
        self,
        minimum: int,
        maximum: int | None = None,
        *,
        limiter: Callable[[int, int, int | None], object] | None = None,
    ) -> None:
        super().__init__(minimum, maximum, limiter)
        self._limit = MAXIMUM_PAGES if self.maximum is None else self.maximum
        self._reservation: _Reservation | None = _Reservation(self._limit)
        self._definition = VMMemoryDefinition(self._reservation.address, 0)
        if not self._commit(self.minimum):
            raise MemoryError(f"no memory for {self.minimum} pages")

    def __repr__(self) -> str:
        if self._reservation is None:
            return "<Memory closed>"
        return f"<Memory of {self.size} pages, maximum {self.maximum}>"

    def __len__(self) -> int:
        """Return the size in bytes."""
        return int(self._definition.current_length)

    @property
    def size(self) -> int:
        """The size in pages of 64 KiB."""
        return len(self) // WASM_PAGE_SIZE

    def _size(self) -> int:
        return self.size

    @property
    def base(self) -> int:
        """The address of the first byte; it never changes."""
        self._check_open()
        return int(self._definition.base)

    def grow(self, delta: int) -> int:
        """Grow by `delta` pages.

        Returns
        -------
        int
            The previous size in pages, or -1 where the maximum, the limiter or the system does
            not allow it.
        """
        self._check_open()
        sizes = self._allowed_growth(self._checked(delta, "Memory.grow(): delta"), self._limit)
        return sizes[0] if sizes and self._commit(sizes[1]) else -1

    @property
    def reservation(self) -> object:
        """What keeps its pages in place while somebody holds it, whoever closes the memory."""
        return self._open_reservation()

    def close(self) -> None:
        """Give the memory up. Views of it stay valid; generated code must not use it any more."""
        if self._reservation is not None:
            self._definition.current_length = 0
            self._definition.base = 0
            self._reservation = None

    def __buffer__(self, flags: int) -> memoryview:
        reservation = self._open_reservation()
        exporter = (ctypes.c_uint8 * len(self)).from_address(reservation.address)
        exporter._reservation = reservation  # type: ignore[attr-defined]
        return memoryview(exporter).cast("B")  # ctypes has formats that memoryview can not index

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._reservation is None

    def _open_reservation(self) -> _Reservation:
        self._check_open()
        assert self._reservation is not None
        return self._reservation

    def _commit(self, pages: int) -> bool:
        length = pages * WASM_PAGE_SIZE
        reservation = self._open_reservation()
        if length:
            try:
                libc.mprotect(reservation.address, length, _READ_WRITE)
            except OSError:
                return False
        self._definition.current_length = length
        return True


if sys.version_info < (3, 12) and sys.implementation.name == "cpython":
    from asm_libcalls.runtime.buffer_protocol import install

    install(Memory)
