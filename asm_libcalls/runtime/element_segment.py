"""Passive element segments: references that ``table.init`` copies into a table.

Source: WebAssembly 2.0, 4.2.10 (element instances).
"""

from __future__ import annotations

from asm_libcalls.owned import Owned, is_a
from asm_libcalls.runtime import externref
from asm_libcalls.runtime.externref import VMExternRef
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.reference import check_reference_type, owned_raw
from asm_libcalls.steps import step
from asm_libcalls.traps import TableOutOfBounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

__all__ = ["ElementSegment"]


class ElementSegment(Owned):
    """A passive element segment: references that ``table.init`` copies.

    Parameters
    ----------
    element_type : {"funcref", "externref"}
    items : iterable
        For externref any Python objects (None is null); for funcref function indices of the
        instance, FuncRefs, or None.
    """

    def __init__(self, element_type: str, items: Iterable[Any]) -> None:
        self._begin()
        self._element_type = check_reference_type(element_type, "ElementSegment(): element_type")
        self.items = list(items)
        self._raw: list[int] = []
        self._resolved = False
        self.keepers: dict[int, Any] = {}  # by id
        self._finish()

    @property
    def element_type(self) -> str:
        """``"funcref"`` or ``"externref"``."""
        return self._element_type

    def __len__(self) -> int:
        return len(self._raw)

    def check(self, function_count: int, what: str) -> None:
        """Raise TypeError or ValueError unless an instance of so many functions can have it."""
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
                        f"{what}[{i}]: function index {item} is not in the instance ({there})"
                    )
            elif item is not None and not is_a(item, FuncRef):
                raise TypeError(
                    f"{what}[{i}] must be a function index, a FuncRef or None (funcref), "
                    f"got {type(item).__name__}"
                )

    def resolve(self, functions: Sequence[FuncRef]) -> None:
        """Turn the items into pointers, with a count owned for each externref."""
        self._resolved = True
        for item in self.items:
            value = item
            if self._element_type == "funcref" and isinstance(item, int):
                value = functions[item]
            raw, keeper = owned_raw(self._element_type, value, "element segment item")
            self._raw.append(raw)
            if keeper is not None:
                self.keepers[id(keeper)] = keeper
        self.items = []

    def owned(self, start: int, count: int) -> list[int]:
        """Return pointers, each with a count for the caller; TableOutOfBounds past the end."""
        raw = self._raw
        if start + count > len(raw):
            raise TableOutOfBounds
        if self._element_type != "externref":
            return raw[start : start + count]
        return externref.retain_range(raw, start, count)

    def drop(self) -> None:
        """Make the segment empty."""
        dropped, _kept = self._empty([], {})
        if self._element_type == "externref":
            # Each is made null first, so no copy made meanwhile has a dropped reference.
            externref.release_all(externref.take_at(dropped, i) for i in range(len(dropped)))

    def _release(self) -> None:
        self.drop()

    @step
    def _empty(
        self, nothing: list[int], no_keepers: dict[int, Any]
    ) -> tuple[list[int], dict[int, Any]]:
        """Return what it has, and leave nothing."""
        # No call in between: a second drop by other code would release each reference twice.
        dropped = self._raw
        self._raw = nothing
        keepers = self.keepers
        self.keepers = no_keepers
        return dropped, keepers
