"""The libcalls in other tools. Each module needs its tool; the rest of the package needs none.

``llvmlite`` makes the symbols known to LLVM, ``numba`` makes the functions callable in ``@njit``
code, ``cffi`` makes typed pointers, ``capsules`` is for SciPy's LowLevelCallable and Cython, and
``perf`` and ``gdb`` name the machine code for Linux perf and gdb.
"""
