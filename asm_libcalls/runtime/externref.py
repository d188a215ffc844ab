r"""``VMExternRef``: a counted reference to a Python object, as native code holds it.

The object is in a box at a stable address, the ``VMExternData``::

    VMExternRef (Python) ----\
    table, global, segment ---+-->  VMExternData  { ref_count, value } --> any Python object
    activations table --------/

Host code counts references: each stored address owns one count. Compiled code does not: the
activations table (:mod:`asm_libcalls.runtime.activations`) keeps alive what its frames hold. When
the count reaches 0, :func:`drop_and_dealloc` drops the Python object and frees the box.

A signal handler may raise at the first instruction of any Python function, and after any call. So
a count that Python code owns is in a :class:`Counts` list from the instruction that counts it. What
is in the list when an exception drops it is given back by the next call that gives something back.

References are equal when they point to the same box; the values are not compared. A dropped one
points to none, and equals only itself.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22.
"""

from __future__ import annotations

import ctypes
import operator
from functools import partial

from asm_libcalls.native.unraisable import hear, raise_first
from asm_libcalls.owned import NotCopied, refuse_again
from asm_libcalls.steps import step
from asm_libcalls.vmcontext import VMExternData

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["VMExternRef"]

_BOXES_PER_BLOCK = 256

_blocks: list[Any] = []  # never freed: native code may hold a dangling address, and read it
_free: list[int] = []
_counters: dict[int, Any] = {}  # address -> the count as a ctypes integer
_boxes: dict[int, tuple[Any, Any]] = {}  # address of a live box -> the count, the value


_lost: list[int] = []
"""What was in lists of :class:`Counts` when they were dropped."""

_lost_dead: list[Any] = []
"""What was in lists of :class:`_Dead`."""

_EVERYTHING, _FRONT = slice(None), slice(0, 0)


class Counts(list[int]):
    """Addresses of boxes, or null, each with a count that Python code owns.

    What is taken out of the list has another owner then.
    """

    __slots__ = ()

    # Python code could be prevented by a signal handler. Deallocation reads this attribute, calls
    # what it gets, partial(_lost.extend, self), and all that is in C.
    __del__: Any = property(partial(partial, _lost.extend))

    def give_back(self) -> None:
        """Count one owner less of each box, and drop values without owners.

        Raises
        ------
        BaseException
            The first exception of a destructor; the others are given back all the same.
        """
        _find_lost(self)
        errors: list[BaseException] = []
        while _lost_dead:
            dead = _Dead()
            _find_dead(dead)
            dead.drop(errors)
        while self:
            if not _count_down(self):
                dead = _Dead((0, [None]))
                _take_last(self, dead)
                dead.drop(errors)
        raise_first(errors)


@step
def _find_lost(counts: Counts) -> None:
    if _lost:
        counts[_FRONT] = _lost
        del _lost[_EVERYTHING]


@step
def _find_dead(dead: _Dead) -> None:
    if _lost_dead:
        pair = _lost_dead[-2:]
        dead[_EVERYTHING] = pair
        del _lost_dead[-2:]


class _Dead(list):  # type: ignore[type-arg]
    """The address of a box without owners, and a list of its value, which must be dropped.

    Then the list is empty. What is in it when an exception drops it is not lost, as in Counts.
    """

    __slots__ = ()

    __del__: Any = property(partial(partial, _lost_dead.extend))

    def drop(self, errors: list[BaseException]) -> None:
        """Drop the value and free the box; exceptions of destructors are appended to `errors`."""
        if self:
            address, value = self
            hear(value.clear, errors)  # this may drop the value's last reference
            if address:
                VMExternData.from_address(address).value = 0
            _free_box(self)


def _free_box(dead: _Dead) -> None:
    address: int = dead[0]
    # No call between these: the box is in one of the lists.
    del dead[_EVERYTHING]
    if address:
        _free.append(address)


def new_box(value: object) -> Counts:
    """Make a box, with one count."""
    counts = Counts((0,))
    while not _make_box(counts, value):
        if not _free:
            _add_boxes()
    VMExternData.from_address(counts[0]).value = id(value)
    return counts


def _add_boxes() -> None:
    block = (VMExternData * _BOXES_PER_BLOCK)()
    _blocks.append(block)
    start = ctypes.addressof(block)
    size = ctypes.sizeof(VMExternData)
    addresses = range(start, start + size * _BOXES_PER_BLOCK, size)
    _counters.update({each: ctypes.c_size_t.from_address(each) for each in addresses})
    _free.extend(addresses)


@step
def _make_box(counts: Counts, value: object) -> bool:
    """Put a new box into `counts`; False if there is none free, or other code took it."""
    if not _free:
        return False
    address = _free[-1]
    counter = _counters[address]
    entry = counter, value  # a collection may run
    if not _free or _free[-1] != address:
        return False
    del _free[-1]
    counter.value = 1
    _boxes[address] = entry
    counts[0] = address
    return True


def is_live(address: int) -> bool:
    """Return whether an address is that of a live box."""
    return address in _boxes


@step
def value_of(address: int) -> Any:
    """Return the Python object in a live box."""
    return _boxes[address][1]


def strong_count(address: int) -> int:
    """Return how many owners a live box has."""
    return int(_boxes[address][0].value)


def hold(address: int) -> Counts:
    """Count one more owner of a live box; null (0) is held as it is.

    Raises
    ------
    ValueError
        No box at this address is live.
    """
    counts = Counts((0,))
    hold_into(counts, 0, address)
    return counts


@step
def hold_into(counts: Counts, at: int, address: int) -> None:
    """Count one more owner of a live box, for `counts`, whose item `at` is null."""
    if address:
        try:
            counter = _boxes[address][0]
        except KeyError:
            raise ValueError(f"no live externref at address {address:#x}") from None
        counter.value += 1
        counts[at] = address


def retain(address: int) -> int:
    """Count one more owner of a live box, and return its address; null is returned as it is.

    The caller owns the count, also where it is interrupted.
    """
    hold(address).clear()
    return address


def counter(address: int) -> Any:
    """Return the count of a live box, as a ctypes integer."""
    return _boxes[address][0]


# Any Python code may replace and drop a reference in an array (of ctypes, or a list). So it is read
# and counted in one step: without a call, a backward jump, or a new object that the collector
# tracks.


@step
def value_at(cells: Any, index: int) -> Any:
    """Return the Python object of the reference in an array; None for null."""
    address = cells[index]
    return _boxes[address][1] if address else None


@step
def hold_at(counts: Counts, at: int, cells: Any, index: int) -> None:
    """Count one more owner of the reference in an array, for `counts`, whose item `at` is null."""
    address: int = cells[index]
    if address:
        _boxes[address][0].value += 1
        counts[at] = address


@step
def take_range(counts: Counts, cells: Any, where: slice, nulls: list[int]) -> None:
    """Move the references in a range of an array into `counts`, which is empty."""
    taken: list[int] = cells[where]
    cells[where] = nulls
    counts[_EVERYTHING] = taken


_BLOCK = 1024


def take_all(cells: Any, count: int, errors: list[BaseException]) -> None:
    """Make `count` references in an array null, and give their counts back.

    Each is made null first, so no reader of the array finds a dropped reference. If it is
    interrupted, the rest is still in the array. Exceptions of destructors are appended to `errors`.
    """
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        counts = Counts()
        take_range(counts, cells, slice(start, start + size), [0] * size)
        try:
            counts.give_back()
        except BaseException as error:
            errors.append(error)


def hold_range(cells: Any, start: int, count: int) -> Counts:
    """Count one more owner of each of `count` references in an array."""
    counts = Counts([0] * count)
    for i in range(count):
        hold_at(counts, i, cells, start + i)
    return counts


def release(address: int) -> None:
    """Count one owner less, which the caller owned; the last one drops the value."""
    Counts((address,)).give_back()


@step
def _count_down(counts: Counts) -> bool:
    """Give back the last count, unless it is the box's last one; return whether it was done."""
    address = counts[-1]
    if address:
        try:
            counter = _boxes[address][0]
        except KeyError:
            del counts[-1]
            raise ValueError(f"no live externref at address {address:#x}") from None
        if counter.value == 1:
            return False
        counter.value -= 1
    del counts[-1]
    return True


@step
def _take_last(counts: Counts, dead: _Dead) -> None:
    """Make a box dead if the last item of `counts` is still its last count."""
    address = counts[-1]
    counter, value = _boxes[address]
    holder = dead[1]
    # No call from here on.
    if counter.value == 1:
        counter.value = 0
        del counts[-1]
        del _boxes[address]
        holder[0] = value
        dead[0] = address


def drop_and_dealloc(address: int) -> None:
    """Drop the value of a box whose count has reached 0, and free the box.

    Raises
    ------
    BaseException
        An exception of the value's destructor (``__del__``, a weakref callback). Python would only
        print it; the drop is a libcall, which raises it for its caller.
    """
    dead = _Dead((0, [None]))
    if not _take_dead(address, dead):
        raise ValueError(f"no live externref at address {address:#x}")
    errors: list[BaseException] = []
    dead.drop(errors)
    raise_first(errors)


@step
def _take_dead(address: int, dead: _Dead) -> bool:
    if address not in _boxes:
        return False
    counter, value = _boxes[address]
    holder = dead[1]
    # No call from here on.
    counter.value = 0
    del _boxes[address]
    holder[0] = value
    dead[0] = address
    return True


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

    __slots__ = ("__weakref__", "_address", "_counts", "_hash")

    def __init__(self, value: object) -> None:
        if hasattr(self, "_address"):
            refuse_again(self)
        self._counts = new_box(value)
        self._address = self._counts[0]
        self._hash = hash(self._address)  # also after a drop

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
        try:
            address = operator.index(address)
        except TypeError:
            raise TypeError(
                f"clone_from_raw(): address must be an int, got {type(address).__name__}"
            ) from None
        if not is_live(address):
            raise ValueError(f"clone_from_raw(): no live externref at address {address:#x}")
        self = cls.__new__(cls)
        self._counts = hold(address)
        self._address = address
        self._hash = hash(address)
        return self

    @property
    def value(self) -> Any:
        """The Python object."""
        return value_of(self.as_raw())

    def clone(self) -> VMExternRef:
        """Return another reference to the same box."""
        return self.clone_from_raw(self.as_raw())

    def as_raw(self) -> int:
        """Return the address of the ``VMExternData``; it counts no owner."""
        if not self._address:
            raise ValueError("the VMExternRef was dropped")
        return self._address

    def __native_address__(self, kind: str) -> Any:
        """Return the raw pointer, and a clone that the caller keeps until the call has ended."""
        if kind not in ("externref", "reference"):
            return NotImplemented
        clone = self.clone()
        return clone.as_raw(), clone

    def strong_count(self) -> int:
        """Return how many owners the box has."""
        return strong_count(self.as_raw())

    def drop(self) -> None:
        """Drop this reference; the last one of a box drops the value. Twice is a no-op.

        Raises
        ------
        BaseException
            An exception of the value's destructor.
        """
        self._address = 0
        self._counts.give_back()

    close = drop

    @property
    def closed(self) -> bool:
        """Whether it was dropped."""
        return not self._address

    def __enter__(self) -> VMExternRef:
        return self

    def __exit__(self, *exception: object) -> None:
        self.drop()

    def __del__(self) -> None:
        # Where a signal handler prevents this, _counts.__del__ remains. At interpreter exit the
        # module may be cleared already.
        if getattr(self, "_address", 0) and _boxes is not None:
            self.drop()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, VMExternRef):
            return self is other or 0 != self._address == other._address
        return NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        if not self._address:
            return "<VMExternRef dropped>"
        return f"<VMExternRef to {self.value!r}, {self.strong_count()} owners>"
