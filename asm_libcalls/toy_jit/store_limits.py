"""StoreLimits: limits on the size and number of memories, tables and instances, as in Wasmtime."""

from __future__ import annotations

import weakref
from functools import partial

from asm_libcalls.owned import refuse_again
from asm_libcalls.owned.objects import unmade
from asm_libcalls.signatures.arguments import integer
from asm_libcalls.toy_jit.errors import LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.runtime.instance import Instance
    from asm_libcalls.toy_jit.frontend.module import Module

_NAMES = ("memory_size", "table_elements", "instances", "tables", "memories")
_UNITS = {"memory_size": "bytes", "table_elements": "elements"}


class Token:
    """Counts one object, as long as the token is referenced."""

    __slots__ = ("__weakref__",)


class StoreLimits:
    """Limits on the size of each memory and table, and on the number of instances and of both.

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
    # Weak references to tokens, by name: adding, removing and counting are atomic operations.
    _counted: dict[str, set[weakref.ref[Token]]] = unmade()

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

    def __reduce__(self) -> Any:
        return partial(type(self), **self._limits), ()  # a copy counts for itself

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

    def take(self, name: str) -> Token:
        """Count one more, as long as the returned token exists; LimitExceeded if it is too many."""
        limit, counted = self._limits[name], self._counted[name]
        token = Token()
        # Before the check, so that two threads never both get the last one. The callback is a C
        # function: no signal handler comes before it.
        counted.add(weakref.ref(token, counted.discard))
        if limit is not None and len(counted) > limit:
            raise LimitExceeded(f"too many {name}: StoreLimits.{name} is {limit}")
        return token


class Admission:
    """What one instance of a module adds to the counts of a StoreLimits.

    LimitExceeded is raised if a count is above its limit.
    """

    def __init__(self, limits: StoreLimits, module: Module) -> None:
        self._imported = module.imported_memories, module.imported_tables
        self._instance = [limits.take("instances")]
        self._parts = [limits.take("memories") for _ in module.memories[self._imported[0] :]]
        self._parts += [limits.take("tables") for _ in module.tables[self._imported[1] :]]

    def belongs_to(self, instance: Instance) -> None:
        """Count each memory and table as long as it exists."""
        memories, tables = self._imported
        owners: list[Any] = [*instance.memories[memories:], *instance.tables[tables:]]
        for owner, token in zip(owners, self._parts, strict=True):
            owner.counted_by_limits = token
        self._parts.clear()

    def close(self) -> None:
        """Stop counting the instance, which is closed."""
        self._instance.clear()


def checked_limit(value: Any, where: str) -> int | None:
    """Return a limit that is None or an integer from 0 on; else TypeError or ValueError."""
    if value is None:
        return None
    return integer(value, where, "an int or None")
