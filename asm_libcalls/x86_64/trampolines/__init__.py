"""Trampolines in machine code: into native code, out of it by a trap, and from it into Python.

This file has the names of their routines, because the modules that assemble them import PeachPy.
"""

from __future__ import annotations

__all__ = ["CALL_PYTHON", "ENTER_HOLDING_GIL", "THUNKS"]

ENTER_HOLDING_GIL = "asm_libcalls_enter_holding_gil"
"""``asm_libcalls_enter`` for short calls, and for callees that need the GIL."""

CALL_PYTHON = "asm_libcalls_call_python"
"""The body of the thunks; also the slot with its address in an image of thunks."""

THUNKS = tuple(f"thunk {i}" for i in range(128))
"""Number of thunks in an image: at 32 bytes each, they fill one page."""
