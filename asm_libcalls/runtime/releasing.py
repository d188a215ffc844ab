"""Releases the references of closed instances when native code of the thread uses them no more.

Source: the deferred reference counting of :mod:`asm_libcalls.runtime.activations`.
"""

from __future__ import annotations

import gc
import sys
from _thread import get_ident

from asm_libcalls.native import process
from asm_libcalls.native.stack_walker import departures
from asm_libcalls.owned import raise_first
from asm_libcalls.runtime.store_entries import close_inside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.runtime.activations import VMExternRefActivationsTable
    from asm_libcalls.runtime.stack_maps import StackMapRegistry
    from asm_libcalls.runtime.store import Store

_borrowed_from: list[tuple[int, VMExternRefActivationsTable, Store | None]] = []
"""Of closed instances: the thread that may use their references, and their activations table and
store."""


def release_references(
    table: VMExternRefActivationsTable, registry: StackMapRegistry, store: Store | None
) -> None:
    """Drop the references of a closed instance that nothing uses, and the others later.

    A reference is in use if a native frame of this thread may hold it, or if it is in transit
    between Python and native code. (One thread at a time is inside the store.)
    """
    if table.closed:
        return
    if all(table is not row[1] for row in _borrowed_from):
        _borrowed_from.append((get_ident(), table, store))
    if _has_native_frames():
        table.gc(registry)
    else:
        drop_unused_references()
    if _borrowed_from and _on_collection not in gc.callbacks:
        gc.callbacks.append(_on_collection)


def drop_unused_references() -> None:
    """Drop the references of closed instances that no thread uses.

    They may be used by the thread that closed the instance, until it has left native code or ended.
    """
    if not _borrowed_from or _has_native_frames():
        return
    thread = get_ident()
    rows = [*_borrowed_from]
    running = {*sys._current_frames()} if any(row[0] != thread for row in rows) else set()
    errors: list[BaseException] = []
    for row in rows:
        owner, table, store = row
        if owner != thread and owner in running:
            continue
        if table.holds_what_is_in_transit():
            continue
        try:
            if not close_inside(store, table):
                continue  # another thread is inside
        except BaseException as error:
            errors.append(error)
        if table.closed:
            try:
                _borrowed_from.remove(row)
            except ValueError:  # another thread has done this
                continue
    raise_first(errors)


def _on_collection(
    phase: str,
    information: dict[str, int],
    is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """Drop them too when Python's collector runs; one of its callbacks."""
    if _borrowed_from and phase == "start" and not is_finalizing():
        drop_unused_references()


def _has_native_frames() -> bool:
    """Return whether native code of this thread has called Python; True if it is unknown."""
    left = departures()
    return left is None or any(True for _ in left)


def may_be_running() -> bool:
    """Return whether native code may be running, in another thread or below this Python code."""
    left = departures()
    return process.may_run_elsewhere() or left is None or next(left, None) is not None
