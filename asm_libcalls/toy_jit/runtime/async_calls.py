"""``Func.call_async``: a call in a worker thread, interrupted when its task is cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import math
from _thread import get_ident
from functools import partial

from asm_libcalls.toy_jit.runtime.deadlines import Deadline
from asm_libcalls.toy_jit.runtime.time_limits import time_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance

_PAST = 0.0
"""A deadline that has passed, whatever :func:`time.monotonic` returns."""


class _Call:
    """A call in the worker thread, with a deadline that passes when it is cancelled.

    The deadline is among the instance's only while the call is running, and the canceller waits for
    the end of a running call. So no cancellation interrupts a later call. No lock is held, and a
    cancellation is one assignment: a signal handler may raise in the middle of it.
    """

    def __init__(self, instance: StoppableInstance) -> None:
        self._instance = instance
        self._deadline = Deadline(math.inf)
        self._is_running = False

    def begin(self) -> bool:
        """Note that the call begins; return False if it was cancelled before."""
        # In this order: a cancellation sees the flag, or its deadline is seen here.
        self._is_running = True
        deadline = self._deadline
        if deadline.at == _PAST:
            self._is_running = False
            return False
        deadline.thread = get_ident()
        self._instance.deadlines.append(deadline)
        if deadline.at == _PAST:  # another thread's check may have come before the deadline
            self._instance.check_soon()
        return True

    def end(self) -> None:
        """Note that the call has ended."""
        self._instance.deadlines.remove(self._deadline)
        self._is_running = False

    def cancel(self) -> bool:
        """Make the call trap; return whether it is running, so that its end must be awaited."""
        self._deadline.at = _PAST
        if not self._is_running:
            return False
        self._instance.check_soon()
        return True


async def call_async(
    function: Callable[..., Any],
    instance: StoppableInstance,
    arguments: tuple[Any, ...],
    seconds: float,
) -> Any:
    """Call a function of an instance in a thread of the loop's default executor.

    Parameters
    ----------
    function : callable
    instance : StoppableInstance
        The instance that traps when the task is cancelled.
    arguments : tuple
    seconds : float
        The time limit, from the beginning of the call.
    """
    call = _Call(instance)

    def work() -> Any:
        if not call.begin():
            return None  # not used: the task was cancelled
        try:
            with time_limit(instance, seconds, get_ident()):
                return function(*arguments)
        except StopIteration as error:  # a future refuses this exception
            raise RuntimeError("a host function raised StopIteration") from error
        finally:
            call.end()

    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(None, partial(context.run, work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if call.cancel():
            # The task ends after the call, so that the instance is free for other calls then.
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # cancelled again
        future.add_done_callback(_forget)
        raise


def _forget(future: asyncio.Future[Any]) -> None:
    """Retrieve an exception that is not awaited, so that asyncio does not log it."""
    if not future.cancelled():
        future.exception()
