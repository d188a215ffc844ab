"""The externref libcalls: dropping, the activations table, and globals.

A raw pointer becomes a counted reference before anything that might GC or run a destructor (the
third rule of a libcall).

Source: ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

from asm_libcalls.runtime import externref_boxes, transit
from asm_libcalls.runtime.instance import instance_of, part_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.runtime.global_ import Global


def drop_externref(pointer: int) -> None:
    """Drop the value of an externref whose count has reached 0, and free its box."""
    externref_boxes.drop_and_dealloc(pointer)


def activations_table_insert_with_gc(vmctx: int, pointer: int) -> None:
    """Insert an externref into the activations table; when that is full, GC first."""
    instance = instance_of(vmctx)
    if not pointer:
        raise ValueError("a null externref cannot be inserted into the activations table")
    owned = externref_boxes.hold(pointer)
    try:
        instance.activations_table.insert_with_gc(pointer, instance.stack_map_registry)
    finally:
        owned.give_back()


def _global(vmctx: int, global_index: int) -> Global:
    global_: Global = part_of(vmctx, "globals", global_index)
    if global_.value_type != "externref":
        raise TypeError(f"global {global_index} has type {global_.value_type}, not externref")
    if global_.closed:
        raise ValueError(f"global {global_index} is closed")
    return global_


def externref_global_get(vmctx: int, global_index: int) -> int:
    """Return the externref of a global, kept alive by the activations table."""
    instance = instance_of(vmctx)
    owned = _global(vmctx, global_index).owned_raw()
    return instance.activations_table.insert_returned(owned, instance.stack_map_registry)


def _get_for_python(vmctx: int, global_index: int) -> int:
    """Return the externref of a global to Python code, where it is not in transit."""
    pointer = externref_global_get(vmctx, global_index)
    transit.arrived(pointer)
    return pointer


externref_global_get.for_python = _get_for_python  # type: ignore[attr-defined]


def externref_global_set(vmctx: int, global_index: int, pointer: int) -> None:
    """Put an externref into a global, then drop the one that was there."""
    global_ = _global(vmctx, global_index)
    owned = externref_boxes.hold(pointer)
    global_.swap_raw(owned)
    owned.give_back()
