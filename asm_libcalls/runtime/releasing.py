"""Releases what closed objects and garbage own, once native code that may use it has left.

Source: the deferred reference counting of :mod:`asm_libcalls.runtime.activations_table`.
"""

from __future__ import annotations

import gc
import sys
from _thread import get_ident
from functools import partial

from asm_libcalls.native import process
from asm_libcalls.native.stack_walker import departures
from asm_libcalls.owned import raise_first
from asm_libcalls.runtime.externref_boxes import SHIFT, moved, ref_counts, value_cells
from asm_libcalls.runtime.store_entries import close_inside
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.activation import ThreadRecord
    from asm_libcalls.runtime.activations_table import VMExternRefActivationsTable
    from asm_libcalls.runtime.externref_boxes import Counts
    from asm_libcalls.runtime.stack_maps import StackMapRegistry
    from asm_libcalls.runtime.store import Store


class Borrowed:
    """The references of a closed instance that native code may still use."""

    def __init__(
        self,
        table: VMExternRefActivationsTable,
        store: Store | None,
        is_used: Callable[[], bool] | None,
        segments: Sequence[Any],
        kept: Sequence[object],
    ) -> None:
        self.owner = get_ident()  # the thread that closed the instance
        self.table = table
        self.store = store
        # Whether the thread that had entered the instance last is inside native code; None if that
        # thread has closed the instance.
        self.is_used = is_used
        # `segments`, `kept`: what the code of that thread may be using: the segments, which are
        # closed once it has left, and the tables and globals
        self.segments = segments
        self.kept = kept

    def uses(self, part: object) -> bool:
        """Return whether another thread may be using a table or global."""
        return self.is_used is not None and any(part is each for each in self.kept)


_borrowed: list[Borrowed] = []

_later: list[tuple[Callable[[], bool], Callable[[], None]]] = []
"""Whether a part is still used by another thread, and the release to call once it is not."""

user_finders: list[Callable[[object], Callable[[], bool] | None]] = []
"""With the GIL: each takes a table, global or segment. It returns a function, which returns whether
another thread is inside native code of an instance with this part; None if none is. (Without the
GIL, the locks of stores say so.)"""


record_finders: list[Callable[[int], ThreadRecord | None]] = []
"""With the GIL: each returns the record of another thread, by its identifier."""


def give_back_outside(thread: int, counts: Counts) -> None:
    """Give back counts of boxes that another thread has made, when it runs no native code.

    A garbage collection runs finalizers in any thread, and with the GIL, native code does not count
    atomically.
    """
    for find in record_finders:
        record = find(thread)
        if record is not None and not _give_back(counts, record):
            # In another list: if `counts` is garbage too, its finalizer gives back its items.
            kept = moved(counts)
            _later.append((partial(_runs, record), partial(give_back_outside, thread, kept)))
            _watch_collections()
            return
    counts.give_back()


def _runs(record: ThreadRecord) -> bool:
    return bool(record.innermost)


def _give_back(counts: Counts, record: ThreadRecord) -> bool:
    """Give counts back unless another thread, with this record, runs native code, which counts too.

    Return whether it was done. Native code cannot count a box that it does not own.
    """
    while counts:
        if _count_down(counts, record):
            continue
        if record.innermost:
            return False
        counts.give_back()
    return True


@step
def _count_down(counts: Counts, record: ThreadRecord) -> bool:
    """Give back the last item, unless it is its box's last count, or native code runs there."""
    address = counts[-1]
    if address:
        value_cells[address].cell_contents  # noqa: B018 - ValueError if it is not live
        word = address >> SHIFT
        # No call: no thread enters native code from here on.
        if record.innermost or ref_counts[word] == 1:
            return False
        counts[-1] = 0
        ref_counts[word] -= 1
    del counts[-1]
    return True


def release_when_unused(part: object, release: Callable[[], None]) -> None:
    """Call a function that releases what a closed table, global or segment refers to.

    If another thread is inside native code that may use the part, the function is called later. It
    may be called again after an exception.
    """
    found = [row.is_used for row in [*_borrowed] if row.uses(part)]
    found += [find(part) for find in user_finders]
    _release(release, [is_used for is_used in found if is_used is not None])


def _release(release: Callable[[], None], users: list[Callable[[], bool]]) -> None:
    for is_used in users:
        if is_used():
            _later.append((is_used, release))
            _watch_collections()
            return
    release()


def release_references(
    table: VMExternRefActivationsTable,
    registry: StackMapRegistry,
    store: Store | None,
    is_used: Callable[[], bool] | None,
    segments: Sequence[Any],
    kept: Sequence[object],
) -> None:
    """Drop the references of a closed instance that nothing uses, and the others later.

    A reference is in use if a native frame of this thread may hold it, if it is in transit between
    Python and native code, or if `is_used`. (One thread at a time is inside the store.)
    """
    if table.closed:
        return
    if all(table is not row.table for row in [*_borrowed]):
        _borrowed.append(Borrowed(table, store, is_used, segments, kept))
    if is_used is None and _has_native_frames():
        table.gc(registry)
    else:
        drop_unused_references()
    _watch_collections()


def _watch_collections() -> None:
    if (_borrowed or _later) and _on_collection not in gc.callbacks:
        gc.callbacks.append(_on_collection)


def drop_unused_references() -> None:
    """Drop the references of closed instances that no thread uses.

    The thread that closed an instance, and the one that had entered it last, may use its references
    until they have left native code or ended.
    """
    errors: list[BaseException] = []
    _release_later(errors)
    if not _borrowed or _has_native_frames():
        raise_first(errors)
        return
    thread = get_ident()
    rows = [*_borrowed]
    running = {*sys._current_frames()} if any(row.owner != thread for row in rows) else set()
    for row in rows:
        if row.owner != thread and row.owner in running:
            continue
        if (row.is_used is not None and row.is_used()) or row.table.holds_what_is_in_transit():
            continue
        try:
            for segment in row.segments:
                segment.close()
            if not close_inside(row.store, row.table):
                continue  # another thread is inside
        except BaseException as error:
            errors.append(error)
        if row.table.closed:
            try:
                _borrowed.remove(row)
            except ValueError:  # another thread has done this
                continue
    raise_first(errors)


def _release_later(errors: list[BaseException]) -> None:
    kept = []
    while _later:
        try:
            row = _later.pop()
        except IndexError:  # another thread has the last one
            break
        is_used, release = row
        try:
            if is_used():
                kept.append(row)
            else:
                release()
        except BaseException as error:
            errors.append(error)
            kept.append(row)  # a signal handler may have interrupted it; another call does the rest
    _later.extend(kept)


def _on_collection(
    phase: str,
    information: dict[str, int],
    is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """Drop unused references when Python's collector runs: a callback in ``gc.callbacks``."""
    if (_borrowed or _later) and phase == "start" and not is_finalizing():
        drop_unused_references()


def _has_native_frames() -> bool:
    """Return whether native code of this thread has called Python; True if it is unknown."""
    left = departures()
    return left is None or any(True for _ in left)


def may_be_running() -> bool:
    """Return whether native code may be running, in another thread or below this Python code."""
    left = departures()
    return process.may_run_elsewhere() or left is None or next(left, None) is not None
