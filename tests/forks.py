"""Forks in processes of tests: a function runs in the child, whose exit status is checked."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def in_child(function: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Run a function in a forked child, which skips exit handlers; return its process number."""
    sys.stdout.flush()
    process = fork()
    if not process:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return process


def check(process: int) -> None:
    """Wait for a child, and fail unless it ended with 0."""
    _, status = os.waitpid(process, 0)
    assert status == 0, f"the child ended with {status:#x}"
