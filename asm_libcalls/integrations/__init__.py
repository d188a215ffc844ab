"""The libcalls in other people's tools. Each module needs its tool, and nothing else does.

``llvmlite`` makes the symbols known to LLVM, ``numba`` makes the functions callable in ``@njit``
code, ``cffi`` makes typed pointers, ``capsules`` serves SciPy's LowLevelCallable and Cython, and
``perf`` names the machine code for Linux perf.
"""
