"""LLVM's libcalls in PeachPy, one file per family, and their images. Imports nothing."""
