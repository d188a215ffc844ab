"""Base class of memories and tables: sizes, their limits, and growth that a limiter may refuse.

An allocation or call may run other Python code: a collection, a destructor, a signal handler,
another thread. So growing first *prepares*: it calls the limiter, makes pages accessible and
allocates every object it needs. Then it *commits*: it compares the size with the earlier one and
sets the new one, without a call or a backward jump in between. If the sizes differ, it starts over.

Source: WebAssembly 2.0, 4.5.3.8 and 4.5.3.9 (growing tables and memories); Wasmtime's
``ResourceLimiter``.
"""

from __future__ import annotations

from asm_libcalls.owned.objects import unmade
from asm_libcalls.runtime.definition import Defined
from asm_libcalls.runtime.store_entries import inside
from asm_libcalls.signatures.arguments import integer, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.runtime.reservation import Reservation

    _Limiter = Callable[[int, int, int | None], object]

_U32_MAXIMUM = 0xFFFFFFFF


class Growable(Defined):
    """An object with a size that grows; the base class of Memory and Table.

    ``limiter(current, desired, maximum)`` is called before each grow.
    """

    _relied_on: tuple[str, ...] = "current_size", "reservation"
    _unit: str
    _largest = _U32_MAXIMUM
    """The largest size that can be declared."""

    _reservation: Reservation | None = None
    _limit: int = unmade()
    """The largest size that it may grow to: the reservation's."""

    _limiter: Callable[[int, int, int | None], object] | None = unmade()
    state: Any = unmade()
    """The structure for machine code, with a field ``grows_below``."""

    _state_units = 1
    """The units of ``grows_below`` in each unit of the size: bytes of a page, or 1."""

    def __init__(
        self,
        minimum: int,
        maximum: int | None,
        limiter: _Limiter | None,
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
        self._limiter = _checked_limiter(limiter, f"{where} limiter")

    @property
    def limiter(self) -> _Limiter | None:
        """Called before each grow: ``limiter(current, desired, maximum)``."""
        return self._limiter

    @limiter.setter
    def limiter(self, limiter: _Limiter | None) -> None:
        self._check_open()
        self._limiter = _checked_limiter(limiter, f"{type(self).__name__}.limiter")
        self._tell_machine_code()

    def _tell_machine_code(self) -> None:
        # A user's class may override methods.
        by_machine_code = type(self).__base__ is Growable and self._limiter is None
        limit = self._limit * self._state_units + 1
        self.state.grows_below = limit if by_machine_code and not self.closed else 0

    def _reserved(self, reserve: int | None, largest: int) -> int:
        """Return the size to reserve: the least of `reserve`, the maximum and `largest`."""
        limit = largest if self.maximum is None else min(self.maximum, largest)
        if reserve is None:
            return limit
        where = f"{type(self).__name__}():"
        reserve = self._checked(reserve, f"{where} reserve")
        if reserve < self.minimum:
            raise ValueError(
                f"{where} reserve must not be below minimum, got {reserve} < {self.minimum}"
            )
        return min(limit, reserve)

    def _checked(self, value: object, what: str, largest: int = _U32_MAXIMUM) -> int:
        unit = self._unit
        return integer(value, what, f"a number of {unit} (int)", 0, largest, unit)

    @property
    def reservation(self) -> object:
        """The owner of its memory: a reference to it keeps the memory, even after a close."""
        return self._open_reservation()

    def _open_reservation(self) -> Reservation:
        reservation = self._reservation
        if reservation is None:
            self._check_open()
            raise AssertionError
        return reservation

    def current_size(self) -> int:
        """Return the size, without any override of a user's class."""
        raise NotImplementedError

    def _prepare(self, current: int, desired: int, fill: Any) -> Any:
        """Allocate all that :meth:`_commit` needs; None where the system has no memory."""
        raise NotImplementedError

    def _commit(self, prepared: Any, current: int, desired: int) -> bool:
        """Set the size if it is still `current` and the object is open; return whether it was."""
        raise NotImplementedError

    @inside
    def _grow(self, delta: int, fill: Any = None) -> int:
        """Grow by `delta`; return the previous size, or -1 where the limits do not allow it."""
        asked = -1
        while True:
            self._check_open()
            current = self.current_size()
            desired = current + delta
            if desired > self._limit:
                return -1
            # If the limiter itself has grown this object, it is called again with the new size.
            limiter = self.limiter
            if limiter is not None and current != asked:
                asked = current
                if not limiter(current, desired, self.maximum):
                    return -1
                continue
            prepared = self._prepare(current, desired, fill)
            if prepared is None:
                return -1
            if self._commit(prepared, current, desired):
                return current


def _checked_limiter(limiter: _Limiter | None, where: str) -> _Limiter | None:
    if limiter is not None and not callable(limiter):
        raise TypeError(f"{where} must be callable, got {shown(limiter)}")
    return limiter
