"""Checks of the externref libcalls: the owners of references before and after, and drops.

A GC may drop references that no frame holds, or keep them if native frames cannot be walked; both
are correct. So for the entries that fill the activations table, only the balance is compared: each
count has an owner, and each owner a count. Source: ``wasmtime_runtime::externref`` 0.22.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import ClassVar

from asm_libcalls.checks.scenes import Model, Scene, SceneChecker, State
from asm_libcalls.libcall import Libcall
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.runtime.activations_table import CHUNK_SIZE
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.vmcontext import VMExternData

GLOBALS = (1, 0, 2)
"""The reference in each global, 0 for null; the first global is imported."""

REFERENCES = 3

DROPPED = 4
"""The reference whose count compiled code has just decremented to 0."""


class _Value:
    """A value whose destruction can be observed."""


class _ExternrefScene(Scene):
    """An instance of three globals, and an activations table filled as each case says."""

    def __init__(self) -> None:
        self._externrefs = [VMExternRef(f"value {i + 1}") for i in range(REFERENCES)]
        self._filler = VMExternRef("filler")
        self._globals = [Global("externref", None, mutable=True) for _ in GLOBALS]
        self._owner = Instance(globals=self._globals[:1])
        self._instance = Instance(globals=self._globals[1:], imports={"globals": self._globals[:1]})
        self._unowned = 0
        self._value: weakref.ref[_Value] | None = None

    def reset(self) -> None:
        for global_, number in zip(self._globals, GLOBALS, strict=True):
            global_.value = self._externrefs[number - 1] if number else None
        self._instance.activations_table.clear()
        if self._unowned and externref_boxes.is_live(self._unowned):
            externref_boxes.drop_and_dealloc(self._unowned)
        self._unowned = 0

    def patterns(self, libcall: Libcall, case: Sequence[int]) -> list[int]:
        """Fill the table; return the case with its vmctx, and references as pointers."""
        filled, *numbers = case
        for _ in range(filled):
            self._instance.activations_table.insert(self._filler.as_raw())
        types = [value_type.name for value_type in libcall.signature.parameters]
        if types[0] == "vmctx":
            numbers.insert(0, self._instance.vmctx)
        return [
            self._raw(number) if name == "externref" else number
            for name, number in zip(types, numbers, strict=True)
        ]

    def _raw(self, number: int) -> int:
        if number == 0:
            return 0
        if number != DROPPED:
            return self._externrefs[number - 1].as_raw()
        value = _Value()
        self._value = weakref.ref(value)
        box = VMExternRef(value)
        self._unowned = externref_boxes.retain(box.as_raw())
        box.drop()
        # Compiled code does this inline, before it calls drop_externref.
        VMExternData.from_address(self._unowned).ref_count = 0
        return self._unowned

    def result(self, pattern: int) -> int:
        return next(
            (i + 1 for i, r in enumerate(self._externrefs) if r.as_raw() == pattern),
            0 if pattern == 0 else pattern,
        )

    def state(self) -> State:
        table = self._instance.activations_table
        owners = [r.strong_count() for r in self._externrefs]
        in_globals = [self.result(global_.bits) for global_ in self._globals]
        # The scene owns one of each.
        others = sum(owners) + self._filler.strong_count() - REFERENCES - 1
        gone = self._value is not None and self._value() is None
        freed = self._unowned and not externref_boxes.is_live(self._unowned)
        return (
            ("references in the globals", in_globals),
            ("owners of the externrefs", owners),
            ("counts without an owner", others - sum(map(bool, in_globals)) - len(table)),
            ("dropped", bool(freed and gone)),
        )


class _ExternrefModel(Model):
    """The scene, with explicit counts. The first argument is the table's number of entries."""

    def __init__(self) -> None:
        self.globals = list(GLOBALS)
        self.borrowed = [0] * REFERENCES
        self.dropped = False

    def state(self) -> State:
        """Return the references in the globals, and the owners: scene, globals and table."""
        owners = [1 + self.globals.count(i + 1) + self.borrowed[i] for i in range(REFERENCES)]
        return (
            ("references in the globals", self.globals),
            ("owners of the externrefs", owners),
            ("counts without an owner", 0),
            ("dropped", self.dropped),
        )

    def drop_externref(self, filled: int, reference: int) -> None:
        self.dropped = True

    def activations_table_insert_with_gc(self, filled: int, reference: int) -> None:
        """Let the table own a count."""
        self.borrowed[reference - 1] += 1

    def externref_global_get(self, filled: int, index: int) -> int:
        """Return the reference, and let the table own it too."""
        reference = self.globals[index]
        if reference:
            self.borrowed[reference - 1] += 1
        return reference

    def externref_global_set(self, filled: int, index: int, reference: int) -> None:
        self.globals[index] = reference


class _ExternrefChecker(SceneChecker):
    """Externrefs: null and others, with an activations table that is full or not."""

    scene = _ExternrefScene
    model = _ExternrefModel
    values: ClassVar[Mapping[str, Sequence[int]]] = {
        "filled": (0, 1, CHUNK_SIZE - 1, CHUNK_SIZE),
        "global_index": range(len(GLOBALS)),
        "externref": (1, 2, 3),
    }
    between: ClassVar[Mapping[str, int]] = {"filled": 9}

    def parameters(self, libcall: Libcall) -> tuple[str, ...]:
        """Return the table's number of entries, then the libcall's parameters."""
        return ("filled", *super().parameters(libcall))

    def choices(self, libcall: Libcall, parameter: str) -> Sequence[int]:
        """Return the values: null only for a global, the dead one only to be dropped."""
        if parameter == "externref" and libcall.name == "externref_global_set":
            return (0, *self.values[parameter])
        if parameter == "externref" and libcall.name == "drop_externref":
            return (DROPPED,)
        return super().choices(libcall, parameter)


CHECKER = _ExternrefChecker()
