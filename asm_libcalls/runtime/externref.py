r"""``VMExternRef``: a counted reference to a Python object, as native code holds it.

The object is in a box at a stable address, the ``VMExternData``::

    VMExternRef (Python) ----\
    table, global, segment ---+-->  VMExternData  { ref_count, value } --> any Python object
    activations table --------/

Host code counts references: each stored address owns one count. Compiled code does not: the
activations table (:mod:`asm_libcalls.runtime.activations`) keeps alive what its frames hold. When
the count reaches 0, :func:`drop_and_dealloc` drops the Python object and frees the box.

References are equal when they point to the same box; the values are not compared. A dropped one
points to none, and equals only itself.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22.
"""

from __future__ import annotations

import ctypes
import operator

from asm_libcalls.native.unraisable import hear, raise_first
from asm_libcalls.owned import NotCopied, refuse_again
from asm_libcalls.steps import step
from asm_libcalls.vmcontext import VMExternData

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = ["VMExternRef"]

_BOXES_PER_BLOCK = 256

_blocks: list[Any] = []  # never freed: native code may hold a dangling address, and read it
_free: list[int] = []
_boxes: dict[int, tuple[Any, Any]] = {}  # address -> the count as a ctypes integer, the value


def _new_box(value: object) -> int:
    while True:
        try:
            address = _free.pop()  # one operation: threads never get the same box
            break
        except IndexError:
            block = (VMExternData * _BOXES_PER_BLOCK)()
            _blocks.append(block)
            start = ctypes.addressof(block)
            size = ctypes.sizeof(VMExternData)
            _free.extend(range(start, start + size * _BOXES_PER_BLOCK, size))
    VMExternData.from_address(address).value = id(value)
    count = ctypes.c_size_t.from_address(address)
    count.value = 1
    _boxes[address] = (count, value)
    return address


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


@step
def retain(address: int) -> int:
    """Count one more owner of a live box, and return its address; null (0) is returned as it is."""
    if address:
        try:
            _boxes[address][0].value += 1
        except KeyError:
            raise ValueError(f"no live externref at address {address:#x}") from None
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
def retain_at(cells: Any, index: int) -> int:
    """Count one more owner of the reference in an array, and return its address."""
    address: int = cells[index]
    if address:
        _boxes[address][0].value += 1
    return address


@step
def take_at(cells: Any, index: int) -> int:
    """Make the reference in an array null, and return its address with the count that it had."""
    address: int = cells[index]
    cells[index] = 0
    return address


def retain_range(cells: Any, start: int, count: int) -> list[int]:
    """Count one more owner of each of `count` references in an array; return the addresses."""
    owned: list[int] = []
    try:
        for i in range(start, start + count):
            owned.append(retain_at(cells, i))  # noqa: PERF401 - kept if the next one fails
    except BaseException:
        release_all(owned)
        raise
    return owned


def release(address: int) -> None:
    """Count one owner less; the last one drops the value. Null (0) is ignored."""
    if not address or _boxes is None:  # at interpreter exit the module may be cleared
        return
    if not _count_down(address):
        drop_and_dealloc(address)


@step
def _count_down(address: int) -> int:
    """Count one owner less of a live box, and return how many are left."""
    try:
        count = _boxes[address][0]
    except KeyError:
        raise ValueError(f"no live externref at address {address:#x}") from None
    count.value -= 1
    return int(count.value)


def release_all(addresses: Iterable[int]) -> None:
    """Release every one of `addresses`, then raise the first exception of a destructor, if any."""
    errors: list[BaseException] = []
    for address in addresses:
        try:
            release(address)
        except BaseException as error:
            errors.append(error)
    raise_first(errors)


def drop_and_dealloc(address: int) -> None:
    """Drop the value of a box whose count has reached 0, and free the box.

    Raises
    ------
    BaseException
        An exception of the value's destructor (``__del__``, a weakref callback). Python would only
        print it; the drop is a libcall, which raises it for its caller.
    """
    try:
        holder = [_boxes.pop(address)[1]]
    except KeyError:
        raise ValueError(f"no live externref at address {address:#x}") from None
    box = VMExternData.from_address(address)
    box.value = 0
    box.ref_count = 0
    errors: list[BaseException] = []
    try:
        hear(holder.clear, errors)  # this may drop the value's last reference
    finally:
        _free.append(address)
    raise_first(errors)


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

    __slots__ = ("__weakref__", "_address", "_hash")

    def __init__(self, value: object) -> None:
        if hasattr(self, "_address"):
            refuse_again(self)
        self._address = _new_box(value)
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
        self._address = retain(address)
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
        address, self._address = self._address, 0
        release(address)

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
        # At interpreter exit the module may be cleared already.
        if getattr(self, "_address", 0) and release is not None:
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
