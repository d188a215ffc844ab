"""What memories and tables share: sizes, their limits, and growth that a limiter may refuse.

Source: WebAssembly 2.0, 4.5.3.8 and 4.5.3.9 (growing tables and memories); Wasmtime's
``ResourceLimiter``.
"""

from __future__ import annotations

import operator

from asm_libcalls.runtime.definition import Defined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Growable"]

_U32_MAXIMUM = 0xFFFFFFFF


class Growable(Defined):
    """Something with a size that grows; the base class of Memory and Table.

    Parameters
    ----------
    minimum : int
        The size at first.
    maximum : int or None
        The most that it may grow to.
    limiter : callable or None
        ``limiter(current, desired, maximum)`` is asked before each grow.
    """

    _unit: str
    _unit_in_full: str
    _largest = _U32_MAXIMUM
    """The largest size that can be declared."""

    def __init__(
        self,
        minimum: int,
        maximum: int | None,
        limiter: Callable[[int, int, int | None], object] | None,
    ) -> None:
        where = f"{type(self).__name__}():"
        self.minimum = self._checked(minimum, f"{where} minimum", self._largest)
        self.maximum = maximum
        if maximum is not None:
            self.maximum = self._checked(maximum, f"{where} maximum", self._largest)
            if self.minimum > self.maximum:
                raise ValueError(
                    f"{where} minimum must not be above maximum, "
                    f"got {self.minimum} > {self.maximum}"
                )
        if limiter is not None and not callable(limiter):
            raise TypeError(f"{where} limiter must be callable, got {limiter!r}")
        self.limiter = limiter

    def _checked(self, value: object, what: str, largest: int = _U32_MAXIMUM) -> int:
        try:
            size = operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(
                f"{what} must be a number of {self._unit} (int), "
                f"got {type(value).__name__} {value!r}"
            ) from None
        if not 0 <= size <= largest:
            end = "2**32-1" if largest == _U32_MAXIMUM else largest
            raise ValueError(f"{what} must be in 0 .. {end} {self._unit_in_full}, got {size}")
        return size

    def _size(self) -> int:
        raise NotImplementedError

    def _allowed_growth(self, delta: int, limit: int) -> tuple[int, int] | None:
        """Return the size now and after a grow, or None where the limits do not allow it."""
        self._check_open()
        asked = -1
        while True:
            current = self._size()
            if current + delta > limit:
                return None
            # A limiter that has grown this one itself is asked about the new size too.
            if self.limiter is None or current == asked:
                return current, current + delta
            asked = current
            if not self.limiter(current, current + delta, self.maximum):
                return None
            self._check_open()
