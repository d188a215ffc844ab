"""References to externrefs in arrays of tables, globals and element segments: read, hold, take.

An array is one of ctypes, or a list. :mod:`asm_libcalls.runtime.externref_boxes` has the functions
for single references.
"""

from __future__ import annotations

from asm_libcalls.runtime.externref_boxes import (
    EVERYTHING,
    SHIFT,
    Counts,
    ref_counts,
    value_cells,
)
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Any Python code may replace and drop a reference in an array. So it is read and counted in one
# step: without a call, a backward jump, or a new object that the collector tracks.


@step
def value_at(cells: Any, index: int) -> Any:
    """Return the Python object of the reference in an array; None for null."""
    address = cells[index]
    return value_cells[address].cell_contents if address else None


@step
def hold_at(counts: Counts, at: int, cells: Any, index: int) -> None:
    """Count one more owner of the reference in an array, for `counts`, whose item `at` is null."""
    address: int = cells[index]
    if address:
        value_cells[address].cell_contents  # noqa: B018 - ValueError if it is not live
        ref_counts[address >> SHIFT] += 1
        counts[at] = address


@step
def take_range(counts: Counts, cells: Any, where: slice, nulls: list[int]) -> None:
    """Move the references in a range of an array into `counts`, which is empty."""
    taken: list[int] = cells[where]
    counts[EVERYTHING] = taken  # may find no memory; nothing has changed until then
    cells[where] = nulls


_BLOCK = 1024


def take_all(cells: Any, count: int, errors: list[BaseException]) -> None:
    """Make `count` references in an array null, and give their counts back.

    Each is made null first, so no reader of the array finds a dropped reference. If it is
    interrupted, the rest is still in the array. Exceptions of destructors are appended to `errors`.
    """
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        where, nulls = slice(start, start + size), [0] * size
        if cells[where] == nulls:
            continue  # without a write: pages that were never used stay unused
        counts = Counts()
        take_range(counts, cells, where, nulls)
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
