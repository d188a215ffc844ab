"""Trampolines in machine code: into native code, out of it by a trap, and from it into Python.

The names by which their routines are found are here: what assembles them imports PeachPy.
"""

from __future__ import annotations

__all__ = ["CALL_PYTHON", "ENTER_HOLDING_GIL", "THUNKS"]

ENTER_HOLDING_GIL = "asm_libcalls_enter_holding_gil"
"""``asm_libcalls_enter`` for short calls, and for callees that need the GIL."""

CALL_PYTHON = "asm_libcalls_call_python"
"""The body of the thunks, and the slot of an image of thunks that has its address."""

THUNKS = tuple(f"thunk {i}" for i in range(128))
"""The routines of an image of thunks: of 32 bytes each, so one page."""
