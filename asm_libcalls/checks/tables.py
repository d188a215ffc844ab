"""Checks of the table libcalls, in an instance of three tables and three element segments.

The model is lists of numbers, one for each reference; the count of an externref is how often the
lists hold its number. Source: WebAssembly 2.0, 4.4.6 (table instructions) and 4.5.3.8 (growing
tables).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from asm_libcalls.checks.scenes import U32_MAXIMUM, Model, Scene, SceneChecker, State
from asm_libcalls.libcall import Libcall
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.runtime.table import MAXIMUM_ELEMENTS, Table
from asm_libcalls.traps import TableOutOfBounds

TYPES = ("externref", "externref", "funcref")
LIMITS: tuple[tuple[int, int | None], ...] = ((6, 8), (5, None), (4, 6))
"""Each table's first and largest size; the first one is imported."""

SEGMENT_TYPES = ("externref", "funcref", "externref")
SEGMENTS = ((1, 2, 0, 3, 1, 2), (1, 0, 2, 2), ())
"""References by number, 0 for null; the last segment is dropped before the call."""

REFERENCES = 3
FUNCTIONS = 2
_FIRST = tuple(
    [
        (place + i) % (1 + (REFERENCES if kind == "externref" else FUNCTIONS))
        for place in range(size)
    ]
    for i, (kind, (size, _)) in enumerate(zip(TYPES, LIMITS, strict=True))
)


class _TableScene(Scene):
    """An instance that imports the first table and defines the others."""

    def __init__(self) -> None:
        self._externrefs = [VMExternRef(f"value {i + 1}") for i in range(REFERENCES)]
        self._make()

    def _make(self) -> None:
        tables = [Table(t, *limits) for t, limits in zip(TYPES, LIMITS, strict=True)]
        self._owner = Instance(tables=tables[:1])
        self._instance = Instance(
            tables=tables[1:],
            imports={"tables": tables[:1]},
            # Nothing calls them.
            functions=[(0x1000 * (i + 1), i) for i in range(FUNCTIONS)],
            elements=[
                (kind, [self._segment_item(kind, number) for number in numbers])
                for kind, numbers in zip(SEGMENT_TYPES, SEGMENTS, strict=True)
            ],
        )
        self._instance.elements[-1].drop()
        self._numbers = {
            0: 0,
            **{r.as_raw(): i + 1 for i, r in enumerate(self._externrefs)},
            **{f.as_raw(): i + 1 for i, f in enumerate(self._instance.functions)},
        }
        self._write()
        self._first = self.state()

    def _segment_item(self, kind: str, number: int) -> VMExternRef | int | None:
        if number == 0:
            return None
        return self._externrefs[number - 1] if kind == "externref" else number - 1

    def _reference(self, kind: str, number: int) -> VMExternRef | FuncRef | None:
        if number == 0:
            return None
        references = self._externrefs if kind == "externref" else self._instance.functions
        return references[number - 1]

    def _write(self) -> None:
        for table, numbers in zip(self._instance.tables, _FIRST, strict=True):
            for place, number in enumerate(numbers):  # of a table that grew, the first ones
                table[place] = self._reference(table.element_type, number)

    def reset(self) -> None:
        """Write the elements; make a new instance if a table grew or a segment was dropped."""
        if self.state() != self._first:
            self._write()
            if self.state() != self._first:
                self._close()
                self._make()

    def _close(self) -> None:
        for table in self._instance.tables:
            table.close()
        self._instance.close()
        self._owner.close()

    def patterns(self, libcall: Libcall, case: Sequence[int]) -> list[int]:
        """Return the vmctx, then the case with references as pointers."""
        patterns = [self._instance.vmctx]
        for value_type, number in zip(libcall.signature.parameters[1:], case, strict=True):
            if value_type.name == "reference":
                reference = self._reference(TYPES[case[0]], number)
                patterns.append(0 if reference is None else reference.as_raw())
            else:
                patterns.append(number)
        return patterns

    def state(self) -> State:
        """Return the references in each table and segment, and the owners of each externref."""
        tables = (
            (f"table {i}", [self._numbers.get(raw, "?") for raw in table.raw(0, len(table))])
            for i, table in enumerate(self._instance.tables)
        )
        lengths = (
            (f"element segment {i}", len(segment))
            for i, segment in enumerate(self._instance.elements)
        )
        counts = ("owners of the externrefs", [r.strong_count() for r in self._externrefs])
        return (*tables, *lengths, counts)


class _TableModel(Model):
    """The scene as lists of numbers."""

    def __init__(self) -> None:
        self.tables = [list(numbers) for numbers in _FIRST]
        self.segments = [list(numbers) for numbers in SEGMENTS]

    def state(self) -> State:
        """Return the lists, and an owner of an externref for each place that holds it."""
        lists = zip(self.tables + self.segments, TYPES + SEGMENT_TYPES, strict=True)
        held = [n for numbers, kind in lists for n in numbers if kind == "externref"]
        return (
            *((f"table {i}", table) for i, table in enumerate(self.tables)),
            *((f"element segment {i}", len(s)) for i, s in enumerate(self.segments)),
            # and the scene's own
            ("owners of the externrefs", [1 + held.count(i + 1) for i in range(REFERENCES)]),
        )

    def table_grow(self, table: int, delta: int, init_value: int) -> int:
        before = len(self.tables[table])
        maximum = LIMITS[table][1]
        if before + delta > (MAXIMUM_ELEMENTS if maximum is None else maximum):
            return U32_MAXIMUM
        self.tables[table] += [init_value] * delta
        return before

    def table_fill(self, table: int, dst: int, val: int, count: int) -> None:
        _slice(self.tables[table], dst, count)
        self.tables[table][dst : dst + count] = [val] * count

    def table_copy(self, to: int, source: int, dst: int, src: int, count: int) -> None:
        taken = _slice(self.tables[source], src, count)
        _slice(self.tables[to], dst, count)
        self.tables[to][dst : dst + count] = taken

    def table_init(self, table: int, segment: int, dst: int, src: int, count: int) -> None:
        taken = _slice(self.segments[segment], src, count)
        _slice(self.tables[table], dst, count)
        self.tables[table][dst : dst + count] = taken

    def elem_drop(self, segment: int) -> None:
        self.segments[segment] = []


def _slice(numbers: list[int], start: int, count: int) -> list[int]:
    if start > len(numbers) or count > len(numbers) - start:
        raise TableOutOfBounds
    return numbers[start : start + count]


class _TableChecker(SceneChecker):
    """Tables: both sides of each bound, overlaps both ways, null and counted references."""

    scene = _TableScene
    model = _TableModel
    values: ClassVar[Mapping[str, Sequence[int]]] = {
        "table_index": range(len(TYPES)),
        "dst_table_index": range(len(TYPES)),
        "src_table_index": range(len(TYPES)),
        "elem_index": range(len(SEGMENTS)),
        "delta": (0, 1, 2, 3, MAXIMUM_ELEMENTS, U32_MAXIMUM),
        "init_value": (0, 1, 2),
        "val": (0, 1, 2),
        "dst": (0, 1, 4, 6, U32_MAXIMUM),
        "src": (0, 1, 5, 6, U32_MAXIMUM),
        "len": (0, 1, 3, 6, U32_MAXIMUM),
    }
    between: ClassVar[Mapping[str, int]] = {"dst": 4, "src": 4, "len": 3}

    def is_legal(self, libcall: Libcall, case: Sequence[int]) -> bool:
        """Return whether the reference types agree, as validation ensures."""
        if libcall.name == "table_copy":
            return TYPES[case[0]] == TYPES[case[1]]
        if libcall.name == "table_init":
            return TYPES[case[0]] == SEGMENT_TYPES[case[1]]
        return True


CHECKER = _TableChecker()
