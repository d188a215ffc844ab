"""A map from addresses to what begins there, searched while other threads change it.

It finds the code that an address is in, for traces and backtraces. It knows nothing of code.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class AddressMap:
    """Values by the addresses where they begin."""

    __slots__ = ("_starts", "_values")

    def __init__(self) -> None:
        # sorted; nothing begins at 0; a tuple, as without the GIL a search could find in a list
        # what is not in it
        self._starts: tuple[int, ...] = (0,)
        self._values: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, address: int) -> bool:
        return address in self._values

    def put(self, address: int, value: object) -> None:
        """Add a value, or replace the one at this address."""
        self._values[address] = value
        self._change(address, (address,))

    def remove(self, address: int) -> None:
        """Remove the value at an address, if there is one."""
        self._change(address, ())
        self._values.pop(address, None)

    def _change(self, address: int, to: tuple[int, ...]) -> None:
        """Have an address among the starts, or not: `to` is what takes its place."""
        while True:
            starts = self._starts
            at, end = bisect_left(starts, address), bisect_right(starts, address)
            if starts[at:end] == to or self._replace(starts, starts[:at] + to + starts[end:]):
                return

    @step
    def _replace(self, old: tuple[int, ...], new: tuple[int, ...]) -> bool:
        """Replace the addresses, unless another thread has done so."""
        if self._starts is old:
            self._starts = new
            return True
        return False

    def before(self, address: int) -> Any:
        """Return the value that begins last up to an address; None if there is none."""
        starts = self._starts
        return self._values.get(starts[bisect_right(starts, address) - 1])
