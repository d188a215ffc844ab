"""Time limits of instances: their values, and the context manager that sets one."""

from __future__ import annotations

import math
from time import monotonic

from asm_libcalls.toy_jit.runtime.interrupts import watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance

__all__ = ["limit_of_time", "time_limit"]


def limit_of_time(value: Any, where: str) -> float:
    """Return the seconds of a time limit, infinity for none.

    Raises
    ------
    TypeError
        It is no number.
    ValueError
        It is negative, or NaN.
    """
    if not (hasattr(type(value), "__float__") or hasattr(type(value), "__index__")):
        raise TypeError(f"{where} must be a number of seconds, got {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.copysign(math.inf, value > 0 or -1)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where} must be a number of seconds: {error}") from None
    if not seconds >= 0:
        raise ValueError(f"{where} must be a number of seconds that is not negative, got {value!r}")
    return seconds


class time_limit:
    """A context manager that limits how long an instance computes.

    After that time its running code traps with :class:`~asm_libcalls.traps.Interrupt`, and so does
    each further call until the context is left. Contexts may be nested, and entered again.
    """

    def __init__(self, instance: StoppableInstance, seconds: Any) -> None:
        self._instance = instance
        self._seconds = limit_of_time(seconds, "time_limit(): seconds")
        self._entered: list[tuple[object, float]] = []

    def __enter__(self) -> None:
        deadline = monotonic() + self._seconds
        key = object()
        self._entered.append((key, deadline))
        self._instance.deadlines.append(deadline)
        if self._seconds == 0:
            self._instance.check_soon()
        elif deadline < math.inf:
            try:
                watcher.add(key, deadline, self._instance.check_soon)
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *exception: object) -> None:
        key, deadline = self._entered.pop()
        watcher.remove(key)
        self._instance.deadlines.remove(deadline)
