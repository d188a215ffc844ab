"""Passive element segments: references that ``table.init`` copies into a table.

Source: WebAssembly 2.0, 4.2.10 (element instances).
"""

from __future__ import annotations

import ctypes

from asm_libcalls.owned import raise_first
from asm_libcalls.owned.objects import Owned, is_a, unmade
from asm_libcalls.runtime import externref_arrays, kept_instances
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.reference import REFERENCE_TYPES, owned_raw
from asm_libcalls.runtime.releasing import release_when_unused
from asm_libcalls.signatures.arguments import items_of, one_of, shown
from asm_libcalls.steps import step
from asm_libcalls.traps import TableOutOfBounds
from asm_libcalls.vmcontext import VMElementSegment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any


class ElementSegment(Owned):
    """A passive element segment: references that ``table.init`` copies.

    Parameters
    ----------
    element_type : {"funcref", "externref"}
    items : iterable
        For externref any Python objects (None is null); for funcref function indices of the
        instance, FuncRefs, or None.

    Attributes
    ----------
    definition : VMElementSegment
        What machine code reads.
    """

    definition: VMElementSegment = unmade()
    _element_type: str = unmade()
    _resolved: bool = unmade()
    _dropped = 0  # the length before it was made empty

    _relied_on: tuple[str, ...] = "check", "drop", "element_type", "owned", "resolve"

    def __init__(self, element_type: str, items: Iterable[Any]) -> None:
        self._begin()
        self._element_type = one_of(element_type, REFERENCE_TYPES, "ElementSegment(): element_type")
        self.items = items_of(items, "ElementSegment(): items", "a sequence")
        is_externref = self._element_type == "externref"
        kind = VMElementSegment.EXTERNREF if is_externref else VMElementSegment.FUNCREF
        self.definition = VMElementSegment(kind=kind)
        self._cells: Any = (ctypes.c_size_t * len(self.items))()
        self.definition.base = ctypes.addressof(self._cells)
        self._resolved = False
        self.keepers: dict[int, Any] = {}  # by id
        self._finish()

    @property
    def element_type(self) -> str:
        """``"funcref"`` or ``"externref"``."""
        return self._element_type

    def __len__(self) -> int:
        return int(self.definition.length)

    def check(self, function_count: int, what: str) -> None:
        """Raise TypeError or ValueError unless an instance with this many functions can have it."""
        if self._resolved:
            raise ValueError(f"{what} belongs to another instance already")
        self._check_open()
        for i, item in enumerate(self.items):
            if self._element_type == "externref":
                if is_a(item, VMExternRef):
                    item.as_raw()  # raises if it was dropped
            elif isinstance(item, int):
                if not 0 <= item < function_count:
                    there = f"0 .. {function_count - 1}" if function_count else "there are none"
                    raise ValueError(
                        f"{what}[{i}]: function index {shown(item)} "
                        f"is not in the instance ({there})"
                    )
            elif item is not None and not is_a(item, FuncRef):
                raise TypeError(
                    f"{what}[{i}] must be a function index, a FuncRef or None (funcref), "
                    f"got {type(item).__name__}"
                )

    def resolve(self, functions: Sequence[FuncRef]) -> None:
        """Turn the items into pointers, with a count owned for each externref."""
        self._resolved = True
        own = functions[0].instance if functions else None
        for item in self.items:
            value = item
            if self._element_type == "funcref" and isinstance(item, int):
                value = functions[item]
            owned, keeper = owned_raw(self._element_type, value, "element segment item")
            if keeper is not None:
                kept_instances.add(self.keepers, keeper, self.definition)
                if keeper is not own:
                    self.definition.drops_in_python = 1
            self._append(owned)
        self.items = []

    @step
    def _append(self, owned: list[int]) -> None:
        # No call: the count is in `owned` or in the segment.
        definition, at = self.definition, self.definition.length
        self._cells[at] = owned[0]
        owned[0] = 0
        definition.length = at + 1

    def owned(self, start: int, count: int) -> list[int]:
        """Return pointers, each with a count for the caller; TableOutOfBounds past the end."""
        if start + count > self.definition.length:
            raise TableOutOfBounds
        if self._element_type != "externref":
            return list(self._cells[start : start + count])
        return externref_arrays.hold_range(self._cells, start, count)

    def drop(self) -> None:
        """Make the segment empty."""
        _kept = self._empty({})
        self._drop_references()

    def _drop_references(self) -> None:
        if self._element_type == "externref":
            errors: list[BaseException] = []
            externref_arrays.take_all(self._cells, self._dropped, errors)
            raise_first(errors)

    def _release(self) -> None:
        _kept = self._empty({})
        release_when_unused(self, self._drop_references)

    @step
    def _empty(self, nothing: dict[int, Any]) -> dict[int, Any]:
        """Become empty for all readers; return the keepers until now."""
        if self.definition.length:
            self._dropped = self.definition.length
        self.definition.length = 0
        before = self.keepers
        self.keepers = nothing
        return before
