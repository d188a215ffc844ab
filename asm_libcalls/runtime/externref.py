"""``VMExternRef``: a counted reference to a Python object that native code can hold.

The object is in a box at a stable address (:mod:`asm_libcalls.runtime.externref_boxes`). References
are equal if they point to the same box. Their values are not compared. A dropped reference points
to no box, and equals only itself.
"""

from __future__ import annotations

from _thread import get_ident

from asm_libcalls.owned import NotCopied, not_made, refuse_again
from asm_libcalls.runtime import externref_arrays, releasing
from asm_libcalls.runtime import externref_boxes as boxes
from asm_libcalls.signatures.arguments import address_from, counted, shown_address
from asm_libcalls.steps import HAS_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class VMExternRef(NotCopied):
    """A reference to a Python object that native code can hold.

    Each ``VMExternRef`` owns one count of its box, until :meth:`drop`.

    Parameters
    ----------
    value : object
        Any Python object, None included (the null reference is no ``VMExternRef``).

    Examples
    --------
    >>> a = VMExternRef("hello")
    >>> b = VMExternRef.clone_from_raw(a.as_raw())
    >>> b.value, a == b, a.strong_count()
    ('hello', True, 2)
    """

    __slots__ = ("__weakref__", "_address", "_counts", "_hash", "_thread")

    def __init__(self, value: object) -> None:
        refuse_again(self, "_address")
        self._thread = get_ident()  # first: the finalizer of a made object reads it
        self._counts = boxes.new_box(value)
        self._address = self._counts[0]
        # The hash stays after a drop. Without the GIL this also keeps the int object at `_address`,
        # which machine code may be reading.
        self._hash = self._address

    @classmethod
    def clone_from_raw(cls, address: int) -> VMExternRef:
        """Make a reference from a raw pointer, counting one more owner.

        Call it before anything that might GC (the third rule of a libcall): a pointer alone keeps
        nothing alive.

        Raises
        ------
        TypeError, ValueError
            `address` is not that of a live ``VMExternData``.
        """
        address = address_from(address, "clone_from_raw(): address")
        if not boxes.is_live(address):
            raise ValueError(
                f"clone_from_raw(): no live externref at address {shown_address(address)}"
            )
        return cls.__new__(cls)._own(boxes.hold(address))

    def _own(self, counts: boxes.Counts) -> VMExternRef:
        # Made after this object: the collector calls the finalizers of a cycle in that order. The
        # finalizer of this object gives the counts back, and that of `counts` finds none.
        self._counts = counts
        self._thread = get_ident()
        self._address = counts[0]
        self._hash = self._address
        return self

    @property
    def value(self) -> Any:
        """The Python object."""
        VMExternRef.as_raw(self)
        try:
            return externref_arrays.value_at(self._counts, 0)
        except IndexError:
            raise _dropped() from None

    def clone(self) -> VMExternRef:
        """Return another reference to the same box."""
        return type(self)._clone_of(self)

    @classmethod
    def _clone_of(cls, reference: VMExternRef) -> VMExternRef:
        """Clone a reference as one of this class, whatever its own class overrides."""
        return cls.__new__(cls)._own(VMExternRef._held(reference))

    def _held(self) -> boxes.Counts:
        """Count one more owner of the box, for the caller."""
        VMExternRef.as_raw(self)
        counts = boxes.Counts((0,))
        try:
            # Not by the address: another thread may drop this reference, and the box be used again.
            externref_arrays.hold_at(counts, 0, self._counts, 0)
        except IndexError:
            raise _dropped() from None
        return counts

    def as_raw(self) -> int:
        """Return the address of the ``VMExternData``; it counts no owner."""
        try:
            address = self._address
        except AttributeError:
            raise not_made(self) from None
        if not address:
            raise _dropped()
        return address

    _readable_member = ("externref", "_address", boxes.release)  # see Instance._readable_member

    def __native_address__(self, kind: str) -> Any:
        """Return the raw pointer, and a clone that the caller keeps until the call has ended."""
        if kind not in ("externref", "reference"):
            return NotImplemented
        clone = self.clone()
        return clone.as_raw(), clone

    def strong_count(self) -> int:
        """Return the number of owners of the box."""
        return boxes.strong_count(self.as_raw())

    def drop(self) -> None:
        """Drop this reference; the last one of a box drops the value. Twice is a no-op.

        Raises
        ------
        BaseException
            An exception of the value's destructor.
        """
        self._address = 0
        try:
            counts = self._counts
        except AttributeError:  # it was not made
            return
        counts.give_back()

    close = drop

    @property
    def closed(self) -> bool:
        """Whether it was dropped."""
        try:
            return not self._address
        except AttributeError:  # it was not made
            return True

    def __enter__(self) -> VMExternRef:
        return self

    def __exit__(self, *exception: object) -> None:
        self.drop()

    def __del__(self) -> None:
        # If a signal handler prevents this, _counts.__del__ gives the count back.
        try:
            address = object.__getattribute__(self, "_address")
        except AttributeError:  # __init__ did not end; a user's __getattr__ is not called
            return
        # At interpreter exit the modules may be cleared already.
        if not address or getattr(boxes, "value_cells", None) is None:
            return
        if HAS_GIL and self._thread != get_ident():
            self._address = 0
            releasing.give_back_outside(self._thread, self._counts)
        else:
            self.drop()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, VMExternRef):
            return self is other or 0 != self._address == other._address
        return NotImplemented

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            raise not_made(self) from None

    def __repr__(self) -> str:
        if self.closed:
            return "<VMExternRef dropped>"
        return f"<VMExternRef to {self.value!r}, {counted(self.strong_count(), 'owner')}>"


def _dropped() -> ValueError:
    return ValueError("the VMExternRef was dropped")
