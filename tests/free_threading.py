"""Builds of CPython without the GIL, and their limits for the tests."""

from __future__ import annotations

import sys

import pytest

WITHOUT_GIL = "t" in getattr(sys, "abiflags", "")

# Free-threading HOWTO of 3.13, "Immortalization".
NEVER_FREES = WITHOUT_GIL and sys.version_info < (3, 14)

frees_what_was_dropped = pytest.mark.skipif(
    NEVER_FREES,
    reason="without the GIL CPython 3.13 never frees functions, classes and modules once it has "
    "started a thread, and this test starts one, or toy_jit does",
)

frees_without_threads = pytest.mark.in_new_process(NEVER_FREES)
"""A test that frees functions and starts no thread; other tests have, so it gets a process."""
