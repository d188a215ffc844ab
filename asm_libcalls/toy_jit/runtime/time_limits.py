"""Time limits of instances: their values, and the context manager that sets one."""

from __future__ import annotations

import contextlib
import math
from time import monotonic

from asm_libcalls.signatures.arguments import shown
from asm_libcalls.toy_jit.runtime.deadlines import Deadline
from asm_libcalls.toy_jit.runtime.interrupts import watcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance


def limit_of_time(value: Any, where: str) -> float:
    """Return the seconds of a time limit, infinity for none.

    Raise TypeError if it is no number, and ValueError if it is negative, or NaN.
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
        raise ValueError(
            f"{where} must be a number of seconds that is not negative, got {shown(value)}"
        )
    return seconds


class time_limit:
    """A context manager that limits how long an instance computes.

    After that time its running code traps with :class:`~asm_libcalls.traps.Interrupt`, and so does
    each further call until the context is left. Contexts may be nested, and entered again.
    """

    def __init__(self, instance: StoppableInstance, seconds: Any, thread: int = 0) -> None:
        self._instance = instance
        self._thread = thread  # the only one whose calls are limited, or 0
        self._seconds = limit_of_time(seconds, "time_limit(): seconds")
        self._entered: list[Deadline] = []

    def __enter__(self) -> None:
        deadline = Deadline(monotonic() + self._seconds, self._thread)
        try:
            self._entered.append(deadline)
            self._instance.deadlines.append(deadline)
            if self._seconds == 0:
                self._instance.check_soon()
            elif deadline.at < math.inf:
                watcher.add(deadline, deadline.at, self._instance.check_soon)
        except BaseException:  # also a signal handler's
            self._leave(deadline)
            raise

    def __exit__(self, *exception: object) -> None:
        if not self._entered:
            raise RuntimeError("the time_limit was left, but not entered")
        self._leave(self._entered[-1])

    def _leave(self, deadline: Deadline) -> None:
        for deadlines in (self._instance.deadlines, self._entered):
            with contextlib.suppress(ValueError):
                deadlines.remove(deadline)
        watcher.remove(deadline)
