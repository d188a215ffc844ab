"""The second table in PeachPy: LLVM's libcalls, one file per family. Nothing is imported here."""
