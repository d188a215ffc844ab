"""Public descriptions of a module's imports and exports.

Attributes have wasmtime-py's names (``params``, ``results``, ``content``, ``element``, ``limits``),
kinds those of the JavaScript API. Value types are strings: ``"i32"``, ``"externref"``.
"""

from __future__ import annotations

from functools import lru_cache

from asm_libcalls.signatures.arguments import printable
from asm_libcalls.toy_jit.frontend import module as parts
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Type(Record):
    """Base of immutable records."""

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} objects do not change")

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((type(self), *vars(self).values()))


class Limits(_Type):
    """The size of a memory (in pages of 64 KiB) or table (in elements): `min`, `max` or None."""

    min: int
    max: int | None

    def __init__(self, min: int, max: int | None) -> None:  # noqa: A002 (wasmtime-py's names)
        super().__init__(min, max)

    def __str__(self) -> str:
        return f"{self.min} or more" if self.max is None else f"{self.min} to {self.max}"


class FuncType(_Type):
    """The type of a function: `params` and `results`, each a tuple of str."""

    params: tuple[str, ...]
    results: tuple[str, ...]

    def __str__(self) -> str:
        return f"function ({', '.join(self.params)}) -> ({', '.join(self.results)})"


class TableType(_Type):
    """The type of a table: its `element` type, a str, and its `limits`, a :class:`Limits`."""

    element: str
    limits: Limits

    def __str__(self) -> str:
        return f"table of {self.limits} {self.element}s"


class MemoryType(_Type):
    """The type of a memory: its `limits`, a :class:`Limits`."""

    limits: Limits

    def __str__(self) -> str:
        return f"memory of {self.limits} pages"


class GlobalType(_Type):
    """The type of a global: `content`, its value type as a str, and whether it is `mutable`."""

    content: str
    mutable: bool

    def __str__(self) -> str:
        return f"{'mutable ' if self.mutable else ''}global {self.content}"


class ImportType(_Type):
    """An import of a module.

    Attributes
    ----------
    module, name : str
    kind : {"function", "table", "memory", "global"}
    type : FuncType, TableType, MemoryType or GlobalType
    """

    kind: str
    module: str
    name: str
    type: FuncType | TableType | MemoryType | GlobalType

    def __str__(self) -> str:
        return f"{printable(self.module)}.{printable(self.name)}: {self.type}"


class ExportType(_Type):
    """An export of a module: `name`, `kind` and `type` as in :class:`ImportType`."""

    kind: str
    name: str
    type: FuncType | TableType | MemoryType | GlobalType

    def __str__(self) -> str:
        return f"{printable(self.name)}: {self.type}"


_KINDS = {"func": "function", "table": "table", "memory": "memory", "global": "global"}


def imports_of(module: parts.Module) -> tuple[ImportType, ...]:
    """List the imports of a decoded module, in its order."""
    return tuple(map(import_type, module.imports))


def import_type(entry: parts.Import) -> ImportType:
    """Describe an import."""
    return ImportType(_KINDS[entry.kind], entry.module, entry.name, _described(entry.type))


def exports_of(module: parts.Module) -> tuple[ExportType, ...]:
    """List the exports of a decoded module, in its order."""
    spaces: dict[str, list[Any]] = {
        "func": [function.type for function in module.functions],
        "table": module.tables,
        "memory": module.memories,
        "global": [entry.type for entry in module.globals],
    }
    return tuple(
        ExportType(_KINDS[e.kind], e.name, _described(spaces[e.kind][e.index]))
        for e in module.exports
    )


def _described(
    found: parts.FuncType | parts.TableType | parts.Limits | parts.GlobalType,
) -> FuncType | TableType | MemoryType | GlobalType:
    if isinstance(found, parts.FuncType):
        return FuncType(_names(found.params), _names(found.results))
    if isinstance(found, parts.GlobalType):
        return GlobalType(VALUE_TYPE_NAMES[found.value], found.mutable)
    if isinstance(found, parts.TableType):
        return TableType(VALUE_TYPE_NAMES[found.element], _limits(found.limits))
    return MemoryType(_limits(found))


@lru_cache(maxsize=64)  # so that many imports of one long type have one tuple
def _names(types: bytes) -> tuple[str, ...]:
    return tuple(VALUE_TYPE_NAMES[valtype] for valtype in types)


def _limits(limits: parts.Limits) -> Limits:
    return Limits(limits.minimum, limits.maximum)
