r"""The boxes of externrefs: Python objects at stable C addresses, with counts of their owners.

A box is a ``VMExternBox``, which begins with Wasmtime's ``VMExternData``::

    VMExternRef (Python) ----\
    table, global, segment ---+-->  VMExternData  { ref_count, value } --> any Python object
    activations table --------/

Host code counts references: each stored address owns one count. Compiled code does not count. The
activations table (:mod:`asm_libcalls.runtime.activations_table`) keeps alive what its frames hold.
When the count reaches 0, :func:`drop_and_dealloc` drops the Python object and frees the box.

A signal handler may raise at the first instruction of any Python function, and after any call. So
a count that Python code owns is in a :class:`Counts` list from the instruction that counts it. If
an exception drops the list, the next call that gives counts back also gives back those in it.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from functools import partial
from types import CellType

from asm_libcalls.emitter import libc
from asm_libcalls.native.unraisable import catch, nesting
from asm_libcalls.owned import raise_first
from asm_libcalls.signatures.arguments import shown_address
from asm_libcalls.steps import step
from asm_libcalls.vmcontext import VMExternBox, VMExternData, VMSpareBoxes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BOXES_PER_BLOCK = 256

free: list[int] = []
spare = VMSpareBoxes()
"""Free boxes that only machine code takes, so that it need not change the list."""

value_cells: dict[int, CellType] = {}
"""The cell with the value of each box, by the box's address.

The cell of a box that is not live is empty, and reading it raises ValueError.
"""

ref_counts = (ctypes.c_size_t * (sys.maxsize // ctypes.sizeof(ctypes.c_size_t))).from_address(0)
"""All memory, as an array of words. The count of a box is the item at its address, shifted right by
:data:`SHIFT`. (With a ctypes integer for each box, a garbage collection would take longer.)"""

SHIFT = ctypes.sizeof(ctypes.c_size_t).bit_length() - 1

_lost: deque[int] = deque()
"""The items of :class:`Counts` lists that were deallocated."""

_lost_dead: deque[list[Any]] = deque()
"""The items of :class:`_Dead` lists that were deallocated."""

_DEEPEST = 10
"""The depth of nested destructors from which on a value is not dropped at once.

It is dropped when a destructor has ended, as by CPython's deallocation. So a long chain of
references needs no deep recursion.
"""

_waiting: list[Counts] = []
"""Counts that are to be given back once a destructor has ended."""

# Machine code uses these, also in destructors that run after Python's end has cleared this module.
for _each in (free, spare, value_cells):
    libc.never_free(_each)

EVERYTHING, _END = slice(None), slice(sys.maxsize, None)


class Counts(list[int]):
    """Addresses of boxes, or null, each with a count that Python code owns.

    Code that takes an address out of the list owns its count from then on.
    """

    __slots__ = ()

    # A signal handler could prevent a Python function from running. Deallocation reads this
    # attribute, and calls the result, partial(_lost.extend, self). All of that is C code.
    __del__: Any = property(partial(partial, _lost.extend))

    def give_back(self) -> None:
        """Count one owner less of each box, and drop values without owners.

        The first exception of a destructor is raised, after all counts have been given back.
        """
        errors: list[BaseException] = []
        while self or _lost or _lost_dead or _waiting:
            while _lost:
                _find_lost(self)
            if self and not _lost_dead:
                address = self[-1]
                is_done = _count_down(self)
                if is_done is None:
                    raise _not_live(address)
                if is_done:
                    continue
            if nesting() >= _DEEPEST:
                self._wait()
                break
            dead = _Dead(([0, [None]],))
            if _lost_dead:
                _find_dead(dead)
            elif self:
                _take_last(self, dead)
            else:
                _stop_waiting(self)
            dead.drop(errors)
        raise_first(errors)

    def _wait(self) -> None:
        """Leave all counts to another call of :meth:`give_back`."""
        if self:
            later = Counts()
            _waiting.append(later)
            _move(self, later)


def _stop_waiting(counts: Counts) -> None:
    """Move counts from `_waiting` into an empty list."""
    try:
        waited = _waiting.pop()
    except IndexError:  # another thread has it
        return
    _move(waited, counts)


def moved(counts: Counts) -> Counts:
    """Move all counts into a new list."""
    result = Counts()
    _move(counts, result)
    return result


@step
def _move(counts: Counts, to: Counts) -> None:
    """Move all counts into an empty list."""
    to[EVERYTHING] = counts
    counts[EVERYTHING] = ()


# Another thread may append to the deques during a step, so steps take the first items.


@step
def _find_lost(counts: Counts) -> None:
    if _lost:
        address = _lost[0]
        one = (address,)  # a collection may run, and its destructors take from the list
        if _lost and _lost[0] == address:
            counts[_END] = one
            del _lost[0]


@step
def _find_dead(dead: _Dead) -> None:
    if _lost_dead:
        # Nothing is allocated: a collection could run, and its destructors take from the deque.
        dead[0] = _lost_dead[0]
        del _lost_dead[0]


class _Dead(list):  # type: ignore[type-arg]
    """A list of one item: the address of a box without owners, and a list of its value.

    :meth:`drop` drops the value and removes the item. An item that remains when the list is
    deallocated is kept, as those of Counts are.
    """

    __slots__ = ()

    __del__: Any = property(partial(partial, _lost_dead.extend))

    def drop(self, errors: list[BaseException]) -> None:
        """Drop the value and free the box; exceptions of destructors are appended to `errors`."""
        if self:
            address, value = self[0]
            catch(value.clear, errors)  # this may drop the value's last reference
            if address:
                VMExternData.from_address(address).value = 0
            _free_box(self)


@step
def _free_box(dead: _Dead) -> None:
    address: int = dead[0][0]
    one = (address,)
    # No call between these: the box is in one of the lists.
    del dead[EVERYTHING]
    if address:
        free[_END] = one


def new_box(value: object) -> Counts:
    """Make a box, with one count."""
    counts = Counts((0,))
    while not _make_box(counts, value):
        if not free:
            _add_boxes()
    VMExternData.from_address(counts[0]).value = id(value)
    return counts


def _add_boxes() -> None:
    block = (VMExternBox * _BOXES_PER_BLOCK)()
    libc.never_free(block)  # native code may hold a dangling address, and read it
    start = ctypes.addressof(block)
    size = ctypes.sizeof(VMExternBox)
    addresses = range(start, start + size * _BOXES_PER_BLOCK, size)
    new = {each: CellType() for each in addresses}
    for box, (key, cell) in zip(block, new.items(), strict=True):
        box.key, box.cell = id(key), id(cell)
    _add(new)


@step
def _add(new: dict[int, CellType]) -> None:
    boxes = value_cells
    boxes |= new  # keeps them
    free[_END] = new


def fill_spare() -> None:
    """Move free boxes to those that machine code takes."""
    while _move_spare():
        if not free:
            _add_boxes()


@step
def _move_spare() -> bool:
    boxes = spare.boxes  # a collection may run
    count = spare.count
    if count == VMSpareBoxes.MOST:
        return False
    if free:
        boxes[count] = free[-1]
        del free[-1]
        spare.count = count + 1
    return True


@step
def _make_box(counts: Counts, value: object) -> bool:
    """Put a new box into `counts`; False if none is free."""
    if not free:
        return False
    address = free[-1]
    word, cell = address >> SHIFT, value_cells[address]
    # Nothing is allocated: a collection could run.
    del free[-1]
    ref_counts[word] = 1
    cell.cell_contents = value
    counts[0] = address
    return True


def live_count() -> int:
    """Return the number of boxes that are live, or not free again yet."""
    return len(value_cells) - len(free) - int(spare.count)


@step
def is_live(address: int) -> bool:
    """Return whether an address is that of a live box."""
    try:
        value_cells[address].cell_contents  # noqa: B018
    except (KeyError, ValueError):
        return False
    return True


def _not_live(address: int) -> ValueError:
    return ValueError(f"no live externref at address {shown_address(address)}")


@step
def value_of(address: int) -> Any:
    """Return the Python object in a live box."""
    return value_cells[address].cell_contents


@step
def strong_count(address: int) -> int:
    """Return the number of owners of a live box."""
    value_cells[address].cell_contents  # noqa: B018 - ValueError if it is not live
    owners: int = ref_counts[address >> SHIFT]
    return owners


def hold(address: int) -> Counts:
    """Count one more owner of a live box, else raise ValueError; null (0) is held as it is."""
    counts = Counts((0,))
    if not _hold(counts, address):
        raise _not_live(address)
    return counts


@step
def _hold(counts: Counts, address: int) -> bool:
    """Count one more owner of a live box, for `counts`, whose item is null; False if it is dead."""
    if address:
        try:
            value_cells[address].cell_contents  # noqa: B018
        except (KeyError, ValueError):
            return False
        ref_counts[address >> SHIFT] += 1
        counts[0] = address
    return True


def retain(address: int) -> int:
    """Count one more owner of a live box, and return its address; null is returned as it is.

    The caller owns the count, also if the call is interrupted.
    """
    hold(address).clear()
    return address


def release(address: int) -> None:
    """Count one owner less, which the caller owned; the last one drops the value."""
    Counts((address,)).give_back()


@step
def _count_down(counts: Counts) -> bool | None:
    """Give back the last count, unless it is the box's last one; return whether it was done.

    None if the box is not live; the count is removed then.
    """
    address = counts[-1]
    if address:
        try:
            value_cells[address].cell_contents  # noqa: B018
        except (KeyError, ValueError):
            del counts[-1]
            return None
        word = address >> SHIFT
        others = ref_counts[word] - 1
        if not others:
            return False
        counts[-1] = 0
        ref_counts[word] = others
    del counts[-1]
    return True


@step
def _take_last(counts: Counts, dead: _Dead) -> None:
    """Make a box dead if the last item of `counts` is still its last count."""
    address = counts[-1]
    cell = value_cells[address]
    value = cell.cell_contents
    holder = dead[0]
    values = holder[1]
    word = address >> SHIFT
    # No call from here on.
    if ref_counts[word] == 1:
        ref_counts[word] = 0
        counts[-1] = 0
        del cell.cell_contents
        values[0] = value
        holder[0] = address
        del counts[-1]


def drop_and_dealloc(address: int) -> None:
    """Drop the value of a box whose count has reached 0, and free the box.

    An exception of the value's destructor (``__del__``, a weakref callback) is raised. Python would
    only print it; the drop is a libcall, which raises it for its caller.
    """
    counts = Counts((0,))
    if not _revive(counts, address):
        raise _not_live(address)
    counts.give_back()


@step
def _revive(counts: Counts, address: int) -> bool:
    """Make `counts`, whose item is null, the only owner of a box without owners."""
    try:
        value_cells[address].cell_contents  # noqa: B018
    except (KeyError, ValueError):
        return False
    # No call from here on.
    ref_counts[address >> SHIFT] = 1
    counts[0] = address
    return True
