"""Tables: an array of references that native code reads, and its size.

The largest possible size is reserved at once, so the array never moves. Elements past the size are
null. ``externref_arrays.hold_at`` and similar functions read and count an element in one step.

Source: WebAssembly 2.0, 4.2.7 (table instances), 4.4.6 (table instructions), 4.5.3.8 (growing).
"""

from __future__ import annotations

import ctypes
import operator

from asm_libcalls.owned import raise_first
from asm_libcalls.owned.objects import unmade
from asm_libcalls.runtime import externref_arrays, kept_instances
from asm_libcalls.runtime.externref_boxes import SHIFT, ref_counts
from asm_libcalls.runtime.growable import Growable
from asm_libcalls.runtime.reference import REFERENCE_TYPES, from_raw, give_back, owned_raw
from asm_libcalls.runtime.releasing import release_when_unused
from asm_libcalls.runtime.reservation import Reservation
from asm_libcalls.runtime.store import link
from asm_libcalls.runtime.store_entries import inside, inside_or_later
from asm_libcalls.signatures.arguments import describe, one_of, shown
from asm_libcalls.steps import step
from asm_libcalls.traps import TableOutOfBounds
from asm_libcalls.vmcontext import VMElementSegment, VMTableDefinition, VMTableState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAXIMUM_ELEMENTS = 10_000_000
"""The most elements that a table can grow to, a limit of this implementation."""

_Elements = ctypes.c_size_t * MAXIMUM_ELEMENTS
"""The type of the ctypes array over a reservation: it checks no index against the table's size."""

_ELEMENT = ctypes.sizeof(ctypes.c_size_t)


class Table(Growable):
    """A WebAssembly table.

    ``table[i]`` reads and writes Python values: for externref any object (None is null; the
    reference of a VMExternRef is stored itself), for funcref a FuncRef or None.

    Parameters
    ----------
    element_type : {"funcref", "externref"}
    minimum : int
        The initial size, in elements.
    maximum : int, optional
        The most elements that it may grow to.
    limiter : callable, optional
        ``limiter(current, desired, maximum)`` is called before each grow, in elements, as
        Wasmtime's ``ResourceLimiter``.
    reserve : int, optional
        The elements to reserve, if less than the maximum. The table grows no further.

    Attributes
    ----------
    state : VMTableState
        What machine code reads in addition to the definition.

    Raises
    ------
    TypeError, ValueError
        No reference type, or a size that is not an integer or beyond the limits.
    MemoryError
        `minimum` is more than the implementation allows.
    """

    _relied_on: tuple[str, ...] = (
        "check_range", "element_type", "grow_raw", "keep", "keepers", "owned", "raw", "store",
    )  # fmt: skip
    _element_type: str = unmade()
    _keepers: dict[int, Any] = unmade()
    _closed_at = 0  # the number of elements that are still to be released
    _closed_reservation: Reservation | None = None  # of these elements
    _unit = "elements"

    def __init__(
        self,
        element_type: str,
        minimum: int,
        maximum: int | None = None,
        *,
        limiter: Callable[[int, int, int | None], object] | None = None,
        reserve: int | None = None,
    ) -> None:
        self._begin()
        self._element_type = one_of(element_type, REFERENCE_TYPES, "Table(): element_type")
        super().__init__(minimum, maximum, limiter)
        if self.minimum > MAXIMUM_ELEMENTS:
            raise MemoryError(f"a table of {self.minimum} elements; at most {MAXIMUM_ELEMENTS}")
        self._limit = self._reserved(reserve, MAXIMUM_ELEMENTS)
        self._keepers = {}  # by id: the keepers of all functions that were ever stored
        reservation = Reservation(self._limit * _ELEMENT, f"a table of {self._limit} elements")
        if not reservation.make_accessible(self.minimum * _ELEMENT):
            raise MemoryError(f"no memory for a table of {self.minimum} elements")
        self._definition = VMTableDefinition(reservation.address, self.minimum)
        is_externref = self._element_type == "externref"
        kind = VMElementSegment.EXTERNREF if is_externref else VMElementSegment.FUNCREF
        self.state = VMTableState(kind=kind)
        self._elements: Any = _Elements.from_address(reservation.address)
        self._reservation = reservation
        self._finish()
        self._tell_machine_code()

    @property
    def element_type(self) -> str:
        """``"funcref"`` or ``"externref"``."""
        return self._element_type

    def __repr__(self) -> str:
        if self.closed:
            return "<Table closed>"
        return f"<Table of {self.current_size()} {self._element_type}, maximum {self.maximum}>"

    def __len__(self) -> int:
        self._check_open()
        return self.current_size()

    def current_size(self) -> int:
        """Return the size, without any override of a user's class."""
        return int(self._definition.current_elements)

    @inside
    def __getitem__(self, index: int) -> Any:
        at, _kept = self._index(index)
        if self._element_type == "externref":
            return externref_arrays.value_at(self._elements, at)
        return from_raw(self._element_type, self._elements[at])

    def __setitem__(self, index: int, value: Any) -> None:
        at, _ = self._index(index)
        owned, keeper = owned_raw(self._element_type, value, "table element")
        self.store(at, owned, keeper)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def grow(self, delta: int, init_value: Any = None) -> int:
        """Grow by `delta` elements of one value; return the previous size, or -1 if refused."""
        self._check_open()
        owned, keeper = owned_raw(self._element_type, init_value, "Table.grow(): init_value")
        try:
            return self.grow_raw(self._checked(delta, "Table.grow(): delta"), owned[0], keeper)
        finally:
            give_back(owned)

    @inside_or_later
    def _release(self) -> None:
        # Instances that use the table hold the reservation and the keepers while they exist.
        _kept = self._empty({})
        release_when_unused(self, self._drop_elements)

    def _drop_elements(self) -> None:
        # The base stays: native code in another thread may have read the size already.
        errors: list[BaseException] = []
        if self._element_type == "externref":
            externref_arrays.take_all(self._elements, self._closed_at, errors)
        self._closed_at = 0
        self._closed_reservation = None
        raise_first(errors)

    @step
    def _empty(self, nothing: dict[int, Any]) -> dict[int, Any]:
        """Become empty for all readers, and return the keepers until now."""
        reservation = self._reservation
        if reservation is not None:
            self._closed_reservation = reservation
            self._closed_at = self._definition.current_elements
        self._reservation = None
        self.state.kind = 0  # closed, for machine code
        self._definition.current_elements = 0
        before = self._keepers
        self._keepers = nothing
        return before

    # Raw pointers, for the libcalls.

    @inside
    def raw(self, start: int, count: int) -> list[int]:
        """Return pointers, without owning them; TableOutOfBounds past the end."""
        _kept = self._open_reservation()
        self.check_range(start, count)
        return list(self._elements[start : start + count])

    @inside
    def owned(self, start: int, count: int) -> list[int]:
        """Return pointers, each with a count for the caller; TableOutOfBounds past the end."""
        _kept = self._open_reservation()
        self.check_range(start, count)
        if self._element_type != "externref":
            return list(self._elements[start : start + count])
        return externref_arrays.hold_range(self._elements, start, count)

    def check_range(self, start: int, count: int) -> None:
        """Raise TableOutOfBounds unless ``start + count``, not wrapped, is within the table."""
        if start + count > self.current_size():
            self._check_open()
            raise TableOutOfBounds

    def store(self, start: int, owned: list[int], keeper: Any = None) -> None:
        """Store pointers, with the count of each that `owned` has; drop the old ones.

        The new ones are stored before a destructor of the old ones runs.
        """
        try:
            if keeper is not None:
                link([self, keeper])  # here, and not while this thread is inside one of the stores
            self._store(start, owned, keeper)
        except BaseException:
            give_back(owned)
            raise

    @inside
    def _store(self, start: int, owned: list[int], keeper: Any) -> None:
        where = slice(start, start + len(owned))
        reservation = self._open_reservation()
        self.check_range(start, len(owned))
        if keeper is not None:
            self._keep(keeper)
        exchanged = self._exchange(where, owned, reservation, slice(None))
        give_back(owned)
        if not exchanged:
            self._check_open()

    @step
    def _exchange(
        self, where: slice, owned: list[int], reservation: Reservation, everything: slice
    ) -> bool:
        """Exchange the pointers with those in `owned`; False if the table has been closed."""
        elements = self._elements
        after = [*owned]
        before: list[int] = elements[where]
        # No code runs between the read and the write, so exactly the old pointers are dropped.
        if self._reservation is reservation:
            owned[everything] = before  # may find no memory; nothing has changed until then
            elements[where] = after
            return True
        return False

    def grow_raw(self, delta: int, raw: int, keeper: Any = None) -> int:
        """Grow by `delta` copies of a pointer, each with a count of its own; or return -1."""
        if keeper is not None:
            self._keep(keeper)
        return self._grow(delta, raw)

    def keepers(self) -> dict[int, Any]:
        """Return the instances that the table's function references keep alive, by id."""
        return self._keepers

    def keep(self, others: dict[int, Any], number: int) -> None:
        """Keep alive the instances of another table's, or a segment's, function references.

        `number` is the number of their set, read before `others` was.
        """
        for keeper in [*others.values()]:
            self._keep(keeper)
        self.state.kept_keepers = number

    def _keep(self, keeper: Any) -> None:
        link([self, keeper])
        state = self.state
        kept_instances.add(self._keepers, keeper, state)
        first, last = getattr(keeper, "function_range", (0, 0))
        state.functions_from, state.functions_to = first, last

    def _prepare(self, current: int, desired: int, fill: int) -> tuple[Any, ...] | None:
        reservation = self._open_reservation()
        try:
            accessible = reservation.make_accessible(desired * _ELEMENT)
            new = [fill] * (desired - current) if fill else []
        except MemoryError:
            return None
        if not accessible:
            return None
        counts = bool(fill) and self._element_type == "externref"
        # Elements past the size are null already.
        return reservation, slice(current, current + len(new)), new, fill if counts else 0

    @step
    def _commit(self, prepared: tuple[Any, ...], current: int, desired: int) -> bool:
        reservation, where, new, counted = prepared
        elements = self._elements
        # No call from here on: see growable.py.
        if self._reservation is reservation and self._definition.current_elements == current:
            if counted:
                ref_counts[counted >> SHIFT] += desired - current
            elements[where] = new
            self._definition.current_elements = desired
            return True
        return False

    def _index(self, index: int) -> tuple[int, Reservation]:
        """Return an index as an int, and the owner of the elements."""
        self._check_open()
        at = index
        if type(index) is not int:
            try:
                at = operator.index(index)
            except TypeError:
                raise TypeError(f"a table index must be an int, got {describe(index)}") from None
        reservation = self._open_reservation()
        size = self.current_size()
        if not 0 <= at < size:
            self._check_open()
            raise IndexError(f"table index {shown(at)} is not in 0 .. {size - 1}")
        return at, reservation
