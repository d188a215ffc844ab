"""Builds of CPython without the GIL, and their limits for the tests."""

import sys

import pytest

WITHOUT_GIL = "t" in getattr(sys, "abiflags", "")

# Free-threading HOWTO of 3.13, "Immortalization".
frees_modules_and_classes = pytest.mark.skipif(
    WITHOUT_GIL and sys.version_info < (3, 14),
    reason="without the GIL CPython 3.13 never frees modules and classes once it has started a "
    "thread; each builtin has a module",
)
