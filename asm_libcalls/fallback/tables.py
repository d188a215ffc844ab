"""The table libcalls: grow, fill, copy, init and drop.

A ``val`` or ``init_value`` is a raw pointer that the caller keeps alive; an externref is counted
before anything else. Overwritten elements are dropped last, when the table is consistent again: a
destructor may read it.

Source: WebAssembly 2.0, 4.4.6 (table instructions); ``wasmtime_runtime::libcalls`` 0.22.
"""

from __future__ import annotations

from asm_libcalls.runtime import externref_arrays
from asm_libcalls.runtime.instance import part_of
from asm_libcalls.runtime.reference import check_raw, give_back

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.runtime.table import Table

_REFUSED = 0xFFFFFFFF


def _table(vmctx: int, table_index: int) -> Table:
    table: Table = part_of(vmctx, "tables", table_index)
    return table


def _owned(table: Table, pointers: list[int]) -> list[int]:
    if table.element_type == "externref":
        return externref_arrays.hold_range(pointers, 0, len(pointers))
    return pointers


def table_grow(vmctx: int, table_index: int, delta: int, init_value: int) -> int:
    """Grow a table by delta elements; the previous size, or 0xFFFFFFFF."""
    table = _table(vmctx, table_index)
    keeper = check_raw(table.element_type, init_value, "table_grow(): argument 'init_value'")
    owned = _owned(table, [init_value])
    try:
        return table.grow_raw(delta, init_value, keeper) & _REFUSED
    finally:
        give_back(owned)


def table_fill(vmctx: int, table_index: int, dst: int, val: int, len_: int) -> None:
    """Set elements of a table to one reference."""
    table = _table(vmctx, table_index)
    keeper = check_raw(table.element_type, val, "table_fill(): argument 'val'")
    table.check_range(dst, len_)
    table.store(dst, _owned(table, [val] * len_), keeper)


def table_copy(
    vmctx: int, dst_table_index: int, src_table_index: int, dst: int, src: int, len_: int
) -> None:
    """Copy elements within or between tables; the ranges may overlap."""
    destination, source = _table(vmctx, dst_table_index), _table(vmctx, src_table_index)
    if destination.element_type != source.element_type:
        raise TypeError(
            f"table_copy(): table {dst_table_index} holds {destination.element_type}, "
            f"table {src_table_index} {source.element_type}"
        )
    source.check_range(src, len_)
    destination.check_range(dst, len_)
    number = source.state.keepers
    destination.keep(source.keepers(), number)
    destination.store(dst, source.owned(src, len_))


def table_init(
    vmctx: int, table_index: int, elem_index: int, dst: int, src: int, len_: int
) -> None:
    """Copy elements from a passive element segment."""
    table = _table(vmctx, table_index)
    segment = part_of(vmctx, "elements", elem_index)
    if len(segment) and segment.element_type != table.element_type:
        raise TypeError(
            f"table_init(): element segment {elem_index} holds {segment.element_type}, "
            f"table {table_index} {table.element_type}"
        )
    table.check_range(dst, len_)
    number = segment.definition.keepers
    table.keep(segment.keepers, number)
    table.store(dst, segment.owned(src, len_))


def elem_drop(vmctx: int, elem_index: int) -> None:
    """Drop a passive element segment: its length becomes 0."""
    part_of(vmctx, "elements", elem_index).drop()
