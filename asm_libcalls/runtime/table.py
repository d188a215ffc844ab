"""A table: an array of references that native code reads, with its size beside it.

Source: WebAssembly 2.0, 4.2.7 (table instances), 4.4.6 (table instructions), 4.5.3.8 (growing).
"""

from __future__ import annotations

import ctypes
import operator

from asm_libcalls.runtime import externref
from asm_libcalls.runtime.growable import Growable
from asm_libcalls.runtime.reference import check_reference_type, from_raw, owned_raw
from asm_libcalls.traps import TableOutOfBounds
from asm_libcalls.vmcontext import VMTableDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

__all__ = ["MAXIMUM_ELEMENTS", "Table"]

MAXIMUM_ELEMENTS = 10_000_000
"""The most elements that a table can grow to: a limit of the implementation, as engines have."""


class Table(Growable):
    """A WebAssembly table.

    ``table[i]`` reads and writes Python values: for externref any object (None is null; a
    VMExternRef is stored as the reference that it is), for funcref a FuncRef or None.

    Parameters
    ----------
    element_type : {"funcref", "externref"}
    minimum : int
        The size at first, in elements.
    maximum : int, optional
        The most elements that it may grow to.
    limiter : callable, optional
        ``limiter(current, desired, maximum)`` is asked before each grow, in elements, as
        Wasmtime's ``ResourceLimiter``.

    Raises
    ------
    TypeError, ValueError
        No reference type, or a size that is not an integer or beyond the limits.
    MemoryError
        More elements at first than the implementation allows.
    """

    _unit = _unit_in_full = "elements"

    def __init__(
        self,
        element_type: str,
        minimum: int,
        maximum: int | None = None,
        *,
        limiter: Callable[[int, int, int | None], object] | None = None,
    ) -> None:
        self._elements: Any = None  # None when closed; first, for __del__
        self.element_type = check_reference_type(element_type, "Table(): element_type")
        super().__init__(minimum, maximum, limiter)
        if self.minimum > MAXIMUM_ELEMENTS:
            raise MemoryError(f"a table of {self.minimum} elements; at most {MAXIMUM_ELEMENTS}")
        self._keepers: set[Any] = set()  # instances whose functions were ever put in
        self._definition = VMTableDefinition()
        self._resize(self.minimum)

    def __repr__(self) -> str:
        if self._elements is None:
            return "<Table closed>"
        return f"<Table of {len(self)} {self.element_type}, maximum {self.maximum}>"

    def __len__(self) -> int:
        return int(self._definition.current_elements)

    def _size(self) -> int:
        return len(self)

    def __getitem__(self, index: int) -> Any:
        return from_raw(self.element_type, self._elements[self._index(index)])

    def __setitem__(self, index: int, value: Any) -> None:
        at = self._index(index)
        raw, keeper = owned_raw(self.element_type, value, "table element")
        self.store(at, [raw], keeper)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def grow(self, delta: int, init_value: Any = None) -> int:
        """Grow by `delta` elements of one value; the previous size, or -1 where it may not."""
        self._check_open()
        raw, keeper = owned_raw(self.element_type, init_value, "Table.grow(): init_value")
        try:
            return self.grow_raw(self._checked(delta, "Table.grow(): delta"), raw, keeper)
        finally:
            self.release([raw])

    def close(self) -> None:
        """Drop every element; generated code must not use the table any more."""
        if self._elements is not None:
            dropped = self._elements  # not a copy: this must not need memory
            self._definition.current_elements = 0
            self._definition.base = 0
            self._elements = None
            self._keepers = set()
            self.release(dropped)

    def __del__(self) -> None:
        # At interpreter exit what modules name may be gone already.
        if getattr(self, "_elements", None) is not None and getattr(externref, "release_all", None):
            self.close()

    # Raw pointers: what the libcalls work with.

    def raw(self, start: int, count: int) -> list[int]:
        """Return pointers, without owning them; TableOutOfBounds past the end."""
        self._check_open()
        self.check_range(start, count)
        return list(self._elements[start : start + count])

    def check_range(self, start: int, count: int) -> None:
        """Raise TableOutOfBounds unless ``start + count``, not wrapped, is within the table."""
        if start + count > len(self):
            raise TableOutOfBounds

    def store(self, start: int, owned: Sequence[int], keeper: Any = None) -> None:
        """Put pointers in, each with a count that the caller owned; drop the ones before.

        The new ones are in place before a destructor of the old ones runs.
        """
        try:
            self._check_open()
            self.check_range(start, len(owned))
        except BaseException:
            self.release(owned)
            raise
        if keeper is not None:
            self._keepers.add(keeper)
        elements = self._elements
        before = elements[start : start + len(owned)]
        elements[start : start + len(owned)] = owned
        self.release(before)

    def grow_raw(self, delta: int, raw: int, keeper: Any = None) -> int:
        """Grow by `delta` copies of a pointer, each with a count of its own; or return -1."""
        limit = MAXIMUM_ELEMENTS if self.maximum is None else min(self.maximum, MAXIMUM_ELEMENTS)
        sizes = self._allowed_growth(delta, limit)
        if sizes is None:
            return -1
        current, desired = sizes
        counted = delta if raw and self.element_type == "externref" else 0
        if keeper is not None:
            self._keepers.add(keeper)
        # Counted first: what interrupts this may leave a count too many, never one too few.
        if counted:
            externref.retain_many(raw, counted)
        try:
            self._resize(desired, raw)
        except MemoryError:
            if counted:
                externref.retain_many(raw, -counted)
            return -1
        return current

    def keepers(self) -> set[Any]:
        """Return what the table's function references keep alive."""
        return self._keepers

    def keep(self, keepers: set[Any]) -> None:
        """Keep alive what another table's function references do."""
        self._keepers |= keepers

    def _resize(self, size: int, new: int = 0) -> None:
        elements = (ctypes.c_size_t * size)()
        if self._elements is not None:
            ctypes.memmove(elements, self._elements, len(self) * ctypes.sizeof(ctypes.c_size_t))
        if new:
            elements[len(self) :] = [new] * (size - len(self))
        # Code that reads the definition sees a size that its array has, at any moment.
        self._elements, before = elements, self._elements
        self._definition.base = ctypes.addressof(elements)
        self._definition.current_elements = size
        del before

    def _index(self, index: int) -> int:
        self._check_open()
        try:
            at = operator.index(index)
        except TypeError:
            raise TypeError(f"a table index must be an int, got {type(index).__name__}") from None
        if not 0 <= at < len(self):
            raise IndexError(f"table index {at} is not in 0 .. {len(self) - 1}")
        return at

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._elements is None

    def release(self, addresses: Sequence[int]) -> None:
        """Drop pointers whose counts the caller owned."""
        if self.element_type == "externref":
            externref.release_all(addresses)
