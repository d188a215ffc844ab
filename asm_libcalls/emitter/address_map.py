"""A map from addresses to what begins there, searched while other threads change it.

It finds the code that an address is in, for traces and backtraces. It knows nothing of code.
"""

from __future__ import annotations

from bisect import bisect_right, insort

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class AddressMap:
    """Values by the addresses where they begin."""

    __slots__ = ("_starts", "_values")

    def __init__(self) -> None:
        self._starts = [0]  # sorted; nothing begins at 0
        self._values: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, address: int) -> bool:
        return address in self._values

    def put(self, address: int, value: object) -> None:
        """Add a value, or replace the one at this address."""
        self._values[address] = value
        self._insert(address)

    @step
    def _insert(self, address: int) -> None:
        if address not in self._starts:
            insort(self._starts, address)

    def remove(self, address: int) -> None:
        """Remove the value at an address, if there is one."""
        self._forget(address)
        self._values.pop(address, None)

    @step
    def _forget(self, address: int) -> None:
        if address in self._starts:
            self._starts.remove(address)

    def before(self, address: int) -> Any:
        """Return the value that begins last up to an address; None if there is none."""
        starts = self._starts
        while True:
            at = bisect_right(starts, address)
            # Other values may have been put or removed since.
            neighbours = starts[at - 1 : at + 1]
            if bisect_right(neighbours, address) == 1:
                return self._values.get(neighbours[0])
