"""Limits on the memories, tables and instances of modules, named and defined as in Wasmtime."""

from __future__ import annotations

import weakref

from asm_libcalls.owned import refuse_again, unmade
from asm_libcalls.signatures.arguments import integer
from asm_libcalls.toy_jit.errors import LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.runtime.instance import Instance
    from asm_libcalls.toy_jit.frontend.module import Module

__all__ = ["Admission", "StoreLimits"]

_NAMES = ("memory_size", "table_elements", "instances", "tables", "memories")
_UNITS = {"memory_size": "bytes", "table_elements": "elements"}


class StoreLimits:
    """Limits on the size of each memory and table, and on the number of all of them.

    Imported memories and tables are not counted. Instances that are given the same object are
    counted together, as in a store of Wasmtime.

    Parameters
    ----------
    memory_size : int, optional
        Maximum of each memory, in bytes.
    table_elements : int, optional
        Maximum of each table, in elements.
    instances, tables, memories : int, optional
        Maximum number at the same time. An instance is counted until it is closed or collected, a
        table or memory until it is collected.

    Raises
    ------
    TypeError, ValueError
        A limit is not an integer, or negative. None, the default, is no limit.
    """

    _limits: dict[str, int | None] = unmade()
    # Sets of tokens, by name: adding, removing and counting are atomic operations.
    _counted: dict[str, set[object]] = unmade()

    def __init__(
        self,
        *,
        memory_size: int | None = None,
        table_elements: int | None = None,
        instances: int | None = None,
        tables: int | None = None,
        memories: int | None = None,
    ) -> None:
        refuse_again(self, "_counted")
        given = (memory_size, table_elements, instances, tables, memories)
        self._limits = {
            name: checked_limit(value, f"StoreLimits(): {name}")
            for name, value in zip(_NAMES, given, strict=True)
        }
        self._counted = {name: set() for name in _NAMES}

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}={v}" for n, v in self._limits.items() if v is not None)
        return f"StoreLimits({shown})"

    memory_size = property(lambda self: self._limits["memory_size"])
    table_elements = property(lambda self: self._limits["table_elements"])
    instances = property(lambda self: self._limits["instances"])
    tables = property(lambda self: self._limits["tables"])
    memories = property(lambda self: self._limits["memories"])

    def check_size(self, name: str, size: int, what: str) -> None:
        """Raise LimitExceeded if the initial size of a memory or table is too large."""
        limit = self._limits[name]
        if limit is not None and size > limit:
            raise LimitExceeded(f"{what} of {size} {_UNITS[name]}: StoreLimits.{name} is {limit}")

    def take(self, name: str) -> object:
        """Count one more, and return a token for it; raise LimitExceeded if it is too many."""
        limit, counted = self._limits[name], self._counted[name]
        token = object()
        counted.add(token)  # before the check, so that two threads never both get the last one
        if limit is not None and len(counted) > limit:
            counted.discard(token)
            raise LimitExceeded(f"too many {name}: StoreLimits.{name} is {limit}")
        return token

    def give_back(self, name: str, token: object) -> None:
        """Count a token no more; twice is a no-op."""
        self._counted[name].discard(token)


class Admission:
    """The part that one instance of a module has in the counts of a StoreLimits.

    LimitExceeded is raised if a count is above its limit.
    """

    def __init__(self, limits: StoreLimits, module: Module) -> None:
        self._limits = limits
        self._imported = module.imported_memories, module.imported_tables
        memories = len(module.memories) - module.imported_memories
        tables = len(module.tables) - module.imported_tables
        self._taken: list[tuple[str, object]] = []
        try:
            for name in ("instances", *["memories"] * memories, *["tables"] * tables):
                self._taken.append((name, limits.take(name)))
        except BaseException:
            self.give_back()
            raise

    def give_back(self) -> None:
        """Give all of it back, because instantiation failed."""
        for name, token in self._taken:
            self._limits.give_back(name, token)

    def belongs_to(self, instance: Instance) -> None:
        """Give back each token when the counted object is collected."""
        memories, tables = self._imported
        owners = (instance, *instance.memories[memories:], *instance.tables[tables:])
        for (name, token), owner in zip(self._taken, owners, strict=True):
            weakref.finalize(owner, self._limits.give_back, name, token).atexit = False

    def close(self) -> None:
        """Give back the token of the instance, which is closed."""
        self._limits.give_back(*self._taken[0])


def checked_limit(value: Any, where: str) -> int | None:
    """Return a limit that is None or an integer from 0 on; else TypeError or ValueError."""
    if value is None:
        return None
    return integer(value, where, "an int or None")
