"""Limits on compiling one module, so that time and memory stay in proportion to its bytes.

A few bytes of a module can need much: a call of two bytes moves a thousand arguments, or has a
stack map of fifty thousand slots. Such amounts are counted, and refused above a limit. A default
limit is a constant and a multiple of the module's size. The modules that compilers produce stay
far below it.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import LimitExceeded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS = {
    "max_code_size": ("bytes of machine code", 1 << 22, 256),
    "max_stack_map_slots": ("slots of references in stack maps", 1 << 20, 16),
    "max_locals": ("locals", 1 << 20, 16),
}
"""By the name of the option: the limited amount, a constant, and the multiple of the size."""


class Budget:
    """The amounts that a module of `size` bytes has used, and their limits.

    `limits` are by the names in :data:`DEFAULTS`; None is the default.
    """

    def __init__(self, size: int, limits: Mapping[str, int | None] | None = None) -> None:
        given = limits or {}
        self.limits: dict[str, int] = {}
        for name, (_, constant, for_each_byte) in DEFAULTS.items():
            limit = given.get(name)
            self.limits[name] = constant + for_each_byte * size if limit is None else limit
        self._used = dict.fromkeys(DEFAULTS, 0)

    def use(self, name: str, amount: int, offset: int) -> None:
        """Add an amount, which the byte at `offset` needs, and check the sum."""
        self._used[name] += amount
        self.check(name, self._used[name], offset)

    def check(self, name: str, amount: int, offset: int) -> None:
        """Raise LimitExceeded if an amount is above its limit."""
        limit = self.limits[name]
        if amount > limit:
            what = DEFAULTS[name][0]
            raise LimitExceeded(f"more than {limit} {what}, the limit {name}", offset)
