"""Machine code that CPython calls: builtin function objects, object layouts, the buffer slot."""

from __future__ import annotations

EVERYTHING = "everything"
"""The guard of a function that passes every call to its slow path."""

STENCIL_PREFIX = "builtin."
"""Begins the names of the stencils of ``function_stencils.py`` in an image."""

KNOWN_TYPES = "types_with_memory"
"""The slot of the address of ``held_buffers.known_types``."""

READABLE_TYPES_SIZE = (256 + 16) * 16
"""Bytes of the table of ``readable_types.py``."""
