"""Calls between Python and native code: entries, builtins, host functions, caught traps."""
