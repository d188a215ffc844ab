"""Trampolines in machine code: into native code, out of it by a trap, and from it into Python."""
