"""Checks of LLVM's libcalls: one file per family, and the oracles that they share."""
