"""The instances that a table or element segment keeps alive for its functions: numbered sets.

The *keeper* of a function is the instance that owns its code and data: the function may be called
while that instance exists. A table or segment holds the keepers of all functions that were ever put
into it. Machine code copies functions only between places that hold the same keepers. It compares
the numbers of the sets: 0 is the empty set, and equal numbers mean equal sets. A set of one
instance has that instance's number; a larger one gets a new number when it grows.
"""

from __future__ import annotations

import itertools

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_numbers = itertools.count(1)


def new_number() -> int:
    """Return a number that no set has had."""
    return next(_numbers)


def add(keepers: dict[int, Any], keeper: Any, state: Any) -> bool:
    """Add an instance to a set of them by id; return whether it is new there.

    `state` is the C structure with the number of the set, its field ``keepers``.
    """
    number = getattr(keeper, "keeper_number", 0) or new_number()
    return _add(keepers, id(keeper), keeper, state, number, new_number())


@step
def _add(keepers: dict[int, Any], key: int, keeper: Any, state: Any, number: int, new: int) -> bool:
    # No call from here on: the number is that of exactly this set.
    if key in keepers:
        return False
    if keepers:
        number = new
    keepers[key] = keeper
    state.keepers = number
    return True
