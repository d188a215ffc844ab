"""Deadlines: times after which calls of an instance must trap.

``time_limits.py`` and ``async_calls.py`` set them; ``interrupts.py`` checks them.
"""

from __future__ import annotations


class Deadline:
    """A time, on the clock of :func:`time.monotonic`; two are equal only if they are the same."""

    __slots__ = ("at", "thread")

    def __init__(self, at: float, thread: int = 0) -> None:
        self.at = at
        self.thread = thread  # whose calls must trap then; 0 for all
