"""Copying and filling ranges of bytes: the loops behind the memory libcalls."""
