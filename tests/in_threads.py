"""Work done in many threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def switching_every(seconds: float) -> Iterator[None]:
    """Let Python switch between threads at this interval."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(work: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
    """Call `work` with each argument, each in a thread of its own; return what they return.

    All begin at the same time; the exception of one is raised when all have ended.
    """
    start = threading.Barrier(len(arguments))

    def begin(argument: Any) -> Any:
        start.wait(60)
        return work(argument)

    with ThreadPoolExecutor(len(arguments)) as pool:
        return list(pool.map(begin, arguments))
