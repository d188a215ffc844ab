"""Copying and filling ranges of bytes: the loops of the memory libcalls."""
