"""The checks of the stateful libcalls: they compare results, traps and all changed state."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import islice
from random import Random
from types import ModuleType

import pytest

from asm_libcalls import LIBCALLS
from asm_libcalls.checks.engine import Verdict, checker_of, observe, self_check, verify
from asm_libcalls.fallback import externrefs, memories, tables
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.runtime.instance import instance_of
from asm_libcalls.traps import HeapOutOfBounds, IntegerOverflow, TableOutOfBounds

STATEFUL = [
    n for n, c in LIBCALLS.items() if c.declaration.family in ("memories", "tables", "externrefs")
]


def _mistaken_copy(vmctx: int, dm: int, dst: int, sm: int, src: int, count: int) -> None:
    """Copy upwards byte by byte, which is wrong where the ranges overlap."""
    to, source = (instance_of(vmctx).memories[i] for i in (dm, sm))
    if src + count > len(source) or dst + count > len(to):
        raise HeapOutOfBounds
    if dm == sm and src < dst < src + count and count < 1000:
        period = ctypes.string_at(source.base + src, dst - src)
        ctypes.memmove(to.base + dst, (period * count)[:count], count)
    else:
        ctypes.memmove(to.base + dst, source.base + src, count)


def _wrapping_fill(vmctx: int, index: int, dst: int, val: int, count: int) -> None:
    """Add in 32 bits."""
    if dst + count >= 2**32 and (dst + count) % 2**32 <= 65536:
        return
    fill(vmctx, index, dst, val, count)


def _filling_up_to_the_end(vmctx: int, index: int, dst: int, val: int, count: int) -> None:
    """Write the bytes that fit before the trap."""
    try:
        fill(vmctx, index, dst, val, count)
    except HeapOutOfBounds:
        memory = instance_of(vmctx).memories[1 + index]
        if dst < len(memory):
            fill(vmctx, index, dst, val, len(memory) - dst)
        raise


def _init_of_a_dropped_segment(vmctx: int, m: int, d: int, dst: int, src: int, n: int) -> None:
    """Forget that a segment may be empty."""
    if src + n <= 64 and d == 2:
        return
    init(vmctx, m, d, dst, src, n)


def _wrong_trap(*arguments: int) -> None:
    try:
        copy_table(*arguments)
    except TableOutOfBounds:
        raise HeapOutOfBounds from None


def _leaking_fill(vmctx: int, table: int, dst: int, val: int, count: int) -> None:
    """Count the reference once more than it is held."""
    fill_table(vmctx, table, dst, val, count)
    if val and instance_of(vmctx).tables[table].element_type == "externref":
        externref_boxes.retain(val)


def _leaking_set(vmctx: int, index: int, pointer: int) -> None:
    """Forget to drop the value before."""
    owned = externref_boxes.hold(pointer)
    externrefs._global(vmctx, index).swap_raw(owned)
    owned.clear()


def _borrowing_get(vmctx: int, index: int) -> int:
    """Return a pointer that nothing keeps alive."""
    return externrefs._global(vmctx, index).bits


def _freeing_drop(pointer: int) -> None:
    """Leave the box as it is."""


fill, init, copy_table, fill_table = (
    memories.memory_fill, memories.memory_init, tables.table_copy, tables.table_fill
)  # fmt: skip

MISTAKES: dict[str, tuple[ModuleType, str, Callable[..., int | None]]] = {
    "overlap": (memories, "memory_copy", _mistaken_copy),
    "sum of 32 bits": (memories, "memory_fill", _wrapping_fill),
    "writes before the trap": (memories, "memory_fill", _filling_up_to_the_end),
    "dropped segment": (memories, "memory_init", _init_of_a_dropped_segment),
    "trap of a zero length at the end": (
        memories, "memory_fill",
        lambda v, i, d, x, n: fill(v, i, d, x, n or 1) if d == 65536 else fill(v, i, d, x, n),
    ),
    "grow returns the new size": (
        memories, "memory32_grow",
        lambda v, d, i: memories._defined_memory(v, i).grow(d) + d & 0xFFFFFFFF,
    ),
    "grow beyond the maximum traps": (
        memories, "imported_memory32_grow",
        lambda v, d, i: (_ for _ in ()).throw(HeapOutOfBounds) if d > 9 else
        memories._memory(v, i).grow(d) & 0xFFFFFFFF,
    ),
    "size in bytes": (memories, "memory32_size", lambda v, i: len(memories._defined_memory(v, i))),
    "index of the other space": (
        memories, "memory32_size", lambda v, i: memories._memory(v, i).size,
    ),
    "drop does nothing": (memories, "data_drop", lambda v, i: None),
    "wrong trap": (tables, "table_copy", _wrong_trap),
    "leak of a count": (tables, "table_fill", _leaking_fill),
    "grow without values": (
        tables, "table_grow", lambda v, t, d, x: tables._table(v, t).grow(d) & 0xFFFFFFFF,
    ),
    "segment kept": (tables, "elem_drop", lambda v, e: None),
    "old value kept": (externrefs, "externref_global_set", _leaking_set),
    "nobody owns the result": (externrefs, "externref_global_get", _borrowing_get),
    "box not freed": (externrefs, "drop_externref", _freeing_drop),
    "not inserted": (externrefs, "activations_table_insert_with_gc", lambda v, p: None),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_self_check_finds(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each mistake, made in the fallback, is found by the edge cases alone."""
    module, name, wrong = MISTAKES[mistake]
    assert self_check(LIBCALLS[name]).passed  # the address is made here, of what is right
    monkeypatch.setattr(module, name, wrong)
    verdict = self_check(LIBCALLS[name])
    assert not verdict.passed
    assert _right_ones_agree(verdict)


def _right_ones_agree(verdict: Verdict) -> bool:
    assert verdict.difference is not None
    outcomes = dict(verdict.difference.outcomes)
    outcomes.pop("fallback")
    return len(set(map(str, outcomes.values()))) == 1


def test_a_difference_of_memories_shows_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["memory_fill"]
    assert self_check(libcall).passed
    monkeypatch.setattr(
        memories, "memory_fill", lambda v, i, dst, val, n: fill(v, i, dst, val ^ 1, n)
    )
    difference = self_check(libcall).difference
    assert difference is not None
    text = "\n".join(difference.lines())
    assert "dst                   0x0  number 0\n" in text
    assert "len                   0x1  number 1\n" in text
    serving_first = libcall.backend == "fallback"
    bytes_shown = next(line for line in difference.lines() if line.startswith("memory 1"))
    before, after = ("01", "00") if serving_first else ("00", "01")
    assert f"at byte 0x0: {before} " in bytes_shown
    assert f" against {after} " in bytes_shown


def test_a_scene_in_ruins_is_a_difference_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    libcall = LIBCALLS["table_fill"]
    assert self_check(libcall).passed

    def closing(vmctx: int, *rest: int) -> None:
        instance_of(vmctx).tables[0].close()

    monkeypatch.setattr(tables, "table_fill", closing)
    difference = self_check(libcall).difference
    assert difference is not None
    assert "the state cannot be read" in difference.outcomes["fallback"]["error"]


@pytest.mark.parametrize("name", STATEFUL)
def test_cases_are_legal_and_repeat_by_seed(name: str) -> None:
    libcall = LIBCALLS[name]
    checker = checker_of(libcall)
    edges = list(checker.edge_cases(libcall))
    assert len(set(edges)) == len(edges) > 0
    first, again = (list(islice(checker.random_cases(libcall, Random(1)), 200)) for _ in range(2))
    assert first == again
    assert len(first) in (0, 200)
    verdict = verify(libcall, 100, 1)
    assert verdict.passed
    assert verdict.cases == len(edges) + (100 if first else 0)


def test_a_trap_keeps_its_code() -> None:
    def overflow() -> int:
        raise IntegerOverflow

    assert observe(overflow).trap == IntegerOverflow().code
