"""The second table in plain Python: LLVM's libcalls on bit patterns, one file per family."""
