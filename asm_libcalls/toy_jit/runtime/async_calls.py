"""``Func.call_async``: a call in a worker thread, that a cancelled task interrupts."""

from __future__ import annotations

import asyncio
import contextvars
import math
from _thread import allocate_lock
from functools import partial

from asm_libcalls.toy_jit.runtime import interrupts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["call_async"]

_PAST = 0.0
"""A time that has come, on any clock of :func:`time.monotonic`."""


class _Call:
    """A call in the worker thread, which goes on until it is cancelled.

    It is one more limit of the instance's time: an interrupt that comes when the call has just
    ended is gone with it, and cannot hit the next one.
    """

    def __init__(self, instance: interrupts.StoppableInstance) -> None:
        self._instance = instance
        self._lock = allocate_lock()
        self._deadline = math.inf
        self._is_running = False

    def begin(self) -> bool:
        """Note that the call begins; return whether it may, as it was not cancelled before."""
        with self._lock:
            if self._deadline == _PAST:
                return False
            self._is_running = True
            self._instance.deadlines.append(self._deadline)
            return True

    def end(self) -> None:
        """Note that the call has ended."""
        with self._lock:
            self._is_running = False
            self._instance.deadlines.remove(self._deadline)

    def cancel(self) -> bool:
        """Have it trap; return whether it is running, so that its end is to be awaited."""
        with self._lock:
            if self._is_running and self._deadline != _PAST:
                self._instance.deadlines.append(_PAST)
                self._instance.deadlines.remove(self._deadline)
            self._deadline = _PAST
            is_running = self._is_running
        if is_running:
            self._instance.look()
        return is_running


async def call_async(
    function: Callable[..., Any],
    instance: interrupts.StoppableInstance,
    arguments: tuple[Any, ...],
    seconds: float,
) -> Any:
    """Call a function of an instance in a thread of the loop's default executor.

    Parameters
    ----------
    function : callable
    instance : StoppableInstance
        What traps when the task is cancelled.
    arguments : tuple
    seconds : float
        The limit of its time, from the beginning of the call.
    """
    call = _Call(instance)

    def work() -> Any:
        if not call.begin():
            return None  # for nobody
        try:
            with interrupts.time_limit(instance, seconds):
                return function(*arguments)
        except StopIteration as error:  # a future cannot have it
            raise RuntimeError("a host function raised StopIteration") from error
        finally:
            call.end()

    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(None, partial(context.run, work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if call.cancel():
            # The instance is free for other calls when the task has ended.
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue  # it is being cancelled already
        future.add_done_callback(_forget)
        raise


def _forget(future: asyncio.Future[Any]) -> None:
    """Take note of what nobody awaits, so that asyncio does not complain."""
    if not future.cancelled():
        future.exception()
