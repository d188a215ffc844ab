"""Linear memory: one reservation at a stable address, made readable and writable as it grows.

All that it may grow to is reserved at once, without access and without swap. So growing is one
``mprotect``, the base never moves, and an access past the size faults. In Python a memory is a
writable buffer. A view keeps the reservation, so it stays valid after the Memory is closed.

Source: WebAssembly 2.0, 4.2.8 (memory instances) and 4.5.3.9 (growing memories).
"""

from __future__ import annotations

import ctypes
import sys

from asm_libcalls.runtime.growable import Growable
from asm_libcalls.runtime.reservation import Reservation
from asm_libcalls.runtime.store_entries import inside_or_later
from asm_libcalls.signatures import MEMORY_POINTERS
from asm_libcalls.signatures.arguments import counted, describe, integer, refuse_closed
from asm_libcalls.steps import step
from asm_libcalls.traps import HeapOutOfBounds
from asm_libcalls.vmcontext import (
    MAXIMUM_PAGES,
    WASM_PAGE_SIZE,
    VMMemoryDefinition,
    VMMemoryState,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Memory(Growable):
    """A WebAssembly linear memory.

    It is a writable buffer: ``memoryview(memory)``, ``numpy.frombuffer(memory, "u1")``. A view
    has the size at its creation, and stays valid after a grow or a close.

    Parameters
    ----------
    minimum : int
        The initial size, in pages of 64 KiB.
    maximum : int, optional
        The most pages that it may grow to, up to 65536.
    limiter : callable, optional
        ``limiter(current, desired, maximum)`` is called before each grow, in pages (maximum None if
        there is none), as Wasmtime's ``ResourceLimiter``. A false result refuses the grow. An
        exception is raised by the grow. If the limiter itself has grown this memory, it is called
        again.
    reserve : int, optional
        The pages to reserve, if less than the maximum. The memory grows no further.

    Raises
    ------
    TypeError, ValueError
        A size is not an integer, or beyond the limits.
    MemoryError
        The system has no address space for it.
    """

    _relied_on: tuple[str, ...] = "base", "place"
    __slots__ = ("_pages",)  # the reservation, for machine code; None once it is closed
    # See Instance._readable_member.
    _readable_member = ("kept pointer", "_pages", Reservation, "address")
    _closes_when_dropped = False  # running code may use the definition; the pages are a Resource
    _unit, _largest = "pages of 64 KiB", MAXIMUM_PAGES
    _state_units = WASM_PAGE_SIZE

    def __init__(
        self,
        minimum: int,
        maximum: int | None = None,
        *,
        limiter: Callable[[int, int, int | None], object] | None = None,
        reserve: int | None = None,
    ) -> None:
        self._begin()
        super().__init__(minimum, maximum, limiter)
        self._limit = self._reserved(reserve, MAXIMUM_PAGES)
        reservation = Reservation(self._limit * WASM_PAGE_SIZE, f"a memory of {self._limit} pages")
        length = self.minimum * WASM_PAGE_SIZE
        if not reservation.make_accessible(length):
            raise MemoryError(f"no memory for {self.minimum} pages")
        self._definition = VMMemoryDefinition(reservation.address, length)
        self._reservation = reservation
        self._pages: Reservation | None = reservation
        self.state = VMMemoryState()
        self._finish()
        self._tell_machine_code()

    def __repr__(self) -> str:
        if self.closed:
            return "<Memory closed>"
        return f"<Memory of {counted(self.current_size(), 'page')}, maximum {self.maximum}>"

    def __len__(self) -> int:
        """Return the size in bytes."""
        self._check_open()
        return int(self._definition.current_length)

    @property
    def size(self) -> int:
        """The size in pages of 64 KiB."""
        self._check_open()
        return self.current_size()

    def current_size(self) -> int:
        """Return the size, without any override of a user's class."""
        return int(self._definition.current_length) // WASM_PAGE_SIZE

    @property
    def base(self) -> int:
        """The address of the first byte; it never changes."""
        self._check_open()
        return int(self._definition.base)

    def read(self, offset: int, size: int) -> bytes:
        """Return a copy of bytes.

        Raises
        ------
        TypeError, ValueError
            `offset` or `size` is no integer, or is negative.
        HeapOutOfBounds
            The range is not within the memory (also an IndexError).
        """
        count = integer(size, "Memory.read(): size")
        start = integer(offset, "Memory.read(): offset")
        address, _pages = Memory.place(self, start, count)
        return ctypes.string_at(address, count)

    def write(self, offset: int, data: Any) -> None:
        """Copy the bytes of a buffer into the memory.

        Raises
        ------
        TypeError, ValueError
            `offset` is no integer, or is negative; `data` is no contiguous buffer.
        HeapOutOfBounds
            The range is not within the memory (also an IndexError). Nothing is written.
        """
        start = integer(offset, "Memory.write(): offset")
        refuse_closed(data, "Memory.write(): data")
        try:
            with memoryview(data) as view, view.cast("B") as content:
                address, _pages = Memory.place(self, start, len(content))
                target = (ctypes.c_char * len(content)).from_address(address)
                memoryview(target).cast("B")[:] = content
        except TypeError:
            raise TypeError(
                f"Memory.write(): data must be a contiguous buffer of bytes, got {describe(data)}"
            ) from None

    def grow(self, delta: int) -> int:
        """Grow by `delta` pages.

        Returns
        -------
        int
            The previous size in pages, or -1 where the maximum, the limiter or the system does
            not allow it.
        """
        self._check_open()
        return self._grow(self._checked(delta, "Memory.grow(): delta"))

    def place(self, start: int, count: int) -> tuple[int, object]:
        """Return the address of a range, and the owner of its pages, for the caller to hold.

        Raises HeapOutOfBounds unless ``start + count``, not wrapped, is within the memory.
        """
        reservation = self._open_reservation()
        if start + count > self._definition.current_length:
            self._check_open()
            raise HeapOutOfBounds
        return reservation.address + start, reservation

    @inside_or_later
    def _release(self) -> None:
        self.state.grows_below = 0
        # Views and running calls hold the reservation too; for them the length becomes 0 first.
        self._definition.current_length = 0
        self._definition.base = 0
        self._reservation = self._pages = None

    def __native_address__(self, kind: str) -> Any:
        """Return the first byte's address, and the owner of the pages, for the caller to hold."""
        if kind not in MEMORY_POINTERS:
            return NotImplemented
        reservation = self._open_reservation()
        return reservation.address, reservation

    def __buffer__(self, flags: int) -> memoryview:
        reservation = self._open_reservation()
        length = int(self._definition.current_length)  # not len(): a subclass may override it
        exporter = (ctypes.c_uint8 * length).from_address(reservation.address)
        exporter._reservation = reservation  # type: ignore[attr-defined]
        return memoryview(exporter).cast("B")  # ctypes has formats that memoryview cannot index

    def __release_buffer__(self, view: memoryview) -> None:
        # Without this method ``numpy.frombuffer`` would keep this object instead of the view, and
        # use the pages after the memory was closed.
        pass

    def _get_buffer(self, flags: int) -> memoryview:
        """Call ``__buffer__`` as CPython 3.12 does, for earlier ones."""
        view = self.__buffer__(flags)
        if type(view) is not memoryview:
            raise TypeError("__buffer__ returned non-memoryview object")
        return view

    def _prepare(self, current: int, desired: int, fill: None) -> Reservation | None:
        reservation = self._open_reservation()
        return reservation if reservation.make_accessible(desired * WASM_PAGE_SIZE) else None

    @step
    def _commit(self, prepared: Reservation, current: int, desired: int) -> bool:
        before, after = current * WASM_PAGE_SIZE, desired * WASM_PAGE_SIZE
        # No call from here on: see growable.py.
        if self._reservation is prepared and self._definition.current_length == before:
            self._definition.current_length = after
            return True
        return False


if sys.version_info < (3, 12) and sys.implementation.name == "cpython":
    from asm_libcalls.runtime.buffer_protocol import install

    install(Memory)
