"""Machine code that CPython calls: builtin function objects, object layouts, the buffer slot."""

from __future__ import annotations

__all__ = ["EVERYTHING"]

EVERYTHING = "everything"
"""The guard of a function that passes every call to its slow path."""
