"""How LLVM's libcalls are checked: one file per family, and the oracles that they share."""
