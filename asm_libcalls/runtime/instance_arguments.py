"""Checks the arguments of Instance(), before any object is changed.

Each function raises TypeError or ValueError, and names the argument.
"""

from __future__ import annotations

from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.owned.objects import is_a
from asm_libcalls.runtime.element_segment import ElementSegment
from asm_libcalls.runtime.funcref import FuncRef
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.table import Table
from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.signatures.arguments import bytes_of, describe, items_of, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

_IMPORT_KINDS = ("functions", "tables", "memories", "globals")


def _checked(parts: Sequence[Any], kind: type[Any], what: str) -> list[Any]:
    parts = items_of(parts, f"Instance(): {what}", f"a sequence of {kind.__name__}")
    for i, part in enumerate(parts):
        if not is_a(part, kind):
            raise TypeError(
                f"Instance(): {what}[{i}] must be a {kind.__name__}, got {type(part).__name__}"
            )
        if part.closed:
            raise ValueError(f"Instance(): {what}[{i}] is closed")
    return parts


def defined_parts(parts: Sequence[Any], kind: type[Any], what: str) -> list[Any]:
    """Return the memories, tables or globals that an instance will define."""
    checked = _checked(parts, kind, what)
    seen: set[int] = set()
    for i, part in enumerate(checked):
        part.check_adoptable()
        if id(part) in seen:
            raise ValueError(f"Instance(): {what}[{i}] is given twice")
        seen.add(id(part))
    return checked


def imported_parts(imports: Mapping[str, Sequence[Any]] | None) -> dict[str, list[Any]]:
    """Return the imports of an instance, by kind."""
    imports = {} if imports is None else imports
    if not hasattr(imports, "keys"):
        raise TypeError(
            f"Instance(): imports must be a mapping of {', '.join(_IMPORT_KINDS)}, "
            f"got {type(imports).__name__}"
        )
    keys = items_of(imports, "Instance(): imports", "a mapping")
    unknown = set(keys) - set(_IMPORT_KINDS)
    if unknown:
        raise ValueError(
            f"Instance(): imports has {', '.join(sorted(map(repr, unknown)))}, "
            f"expected {', '.join(_IMPORT_KINDS)}"
        )
    kinds = {"tables": Table, "memories": Memory, "globals": Global}
    checked = {
        kind: _checked(imports.get(kind, ()), cls, f"imports[{kind!r}]")
        for kind, cls in kinds.items()
    }
    functions = items_of(
        imports.get("functions", ()), "Instance(): imports['functions']", "a sequence of FuncRef"
    )
    for i, function in enumerate(functions):
        if not is_a(function, FuncRef):
            raise TypeError(
                f"Instance(): imports['functions'][{i}] must be a FuncRef, "
                f"got {type(function).__name__}"
            )
        if function.instance.closed:
            raise ValueError(f"Instance(): imports['functions'][{i}] is of a closed Instance")
    return {**checked, "functions": functions}


def data_segments(segments: Sequence[Any]) -> list[bytes]:
    """Return the bytes of the data segments."""
    given = items_of(segments, "Instance(): data", "a sequence of bytes-like objects")
    return [bytes_of(segment, f"Instance(): data[{i}]") for i, segment in enumerate(given)]


def functions(given: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the addresses and type indices of functions; an address in a Code as it is."""
    pairs = items_of(given, "Instance(): functions", "a sequence of (address, type index)")
    return [_function(pair, f"Instance(): functions[{i}]") for i, pair in enumerate(pairs)]


def _function(function: Any, what: str) -> tuple[int, int]:
    try:
        address, type_index = function
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be (address, type index), got {shown(function)}") from None
    if isinstance(address, CodeAddress):
        address.check_open(what)
    else:
        address = VALUE_TYPES["pointer"].check_pattern(address, f"{what}: the address")
    return address, VALUE_TYPES["u32"].check_pattern(type_index, f"{what}: the type index")


def function_class(given: Any) -> type[FuncRef]:
    """Return the class of an instance's functions."""
    if isinstance(given, type) and issubclass(given, FuncRef):
        return given
    raise TypeError(
        f"Instance(): function_class must be FuncRef or a subclass, got {describe(given)}"
    )


def element_segments(given: Sequence[Any]) -> list[ElementSegment]:
    """Return element segments; each may be given as a pair of its type and its items."""
    segments = items_of(given, "Instance(): elements", "a sequence of element segments")
    return [_element_segment(each, f"Instance(): elements[{i}]") for i, each in enumerate(segments)]


def _element_segment(segment: Any, what: str) -> ElementSegment:
    if is_a(segment, ElementSegment):
        return segment  # type: ignore[no-any-return]
    try:
        element_type, items = segment
    except (TypeError, ValueError):
        raise TypeError(
            f"{what} must be an ElementSegment or (type, items), got {describe(segment)}"
        ) from None
    return ElementSegment(element_type, items)


def check_elements(segments: Sequence[ElementSegment], function_count: int) -> None:
    """Raise unless an instance with this many functions can have these element segments."""
    seen: dict[int, int] = {}
    for i, segment in enumerate(segments):
        if seen.setdefault(id(segment), i) != i:
            raise ValueError(f"Instance(): elements[{i}] is given twice")
        segment.check(function_count, f"Instance(): elements[{i}]")


def signature_ids(numbers: Sequence[int]) -> list[int]:
    """Return the type indices of the module's types."""
    given = items_of(numbers, "Instance(): signature_ids", "a sequence of int")
    return [
        VALUE_TYPES["u32"].check_pattern(number, f"Instance(): signature_ids[{i}]")
        for i, number in enumerate(given)
    ]
