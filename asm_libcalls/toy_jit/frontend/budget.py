"""What compiling one module may use, so that time and memory stay in proportion to its bytes.

A few bytes of a module can ask for much: a call of two bytes moves a thousand arguments, or needs a
stack map of fifty thousand slots. What grows so is counted, and refused beyond a limit, which by
default is a constant and a multiple of the module's size. Whatever a compiler makes of a program
stays far below it.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULTS", "Budget"]

DEFAULTS = {
    "max_code_size": ("bytes of machine code", 1 << 22, 256),
    "max_stack_map_slots": ("slots of references in stack maps", 1 << 20, 16),
    "max_locals": ("locals", 1 << 20, 16),
}
"""By the name of the option: what it limits, a constant, and how much for each byte of a module."""


class Budget:
    """What is left of each limit.

    Parameters
    ----------
    size : int
        The bytes of the module.
    limits : mapping of str to int or None
        The limits that were given, by the names in :data:`DEFAULTS`; None is the default.

    Attributes
    ----------
    limits : dict of str to int
    """

    def __init__(self, size: int, limits: Mapping[str, int | None] | None = None) -> None:
        given = limits or {}
        self.limits: dict[str, int] = {}
        for name, (_, constant, for_each_byte) in DEFAULTS.items():
            limit = given.get(name)
            self.limits[name] = constant + for_each_byte * size if limit is None else limit
        self._used = dict.fromkeys(DEFAULTS, 0)

    def use(self, name: str, amount: int, offset: int) -> None:
        """Use some of it, for what is at `offset` in the module."""
        self._used[name] += amount
        self.check(name, self._used[name], offset)

    def check(self, name: str, amount: int, offset: int) -> None:
        """Raise LimitExceeded if so much in all is too much."""
        limit = self.limits[name]
        if amount > limit:
            what = DEFAULTS[name][0]
            raise LimitExceeded(f"more than {limit} {what}, the limit {name}", offset)
