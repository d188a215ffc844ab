"""Every libcall in plain Python: for other CPUs, and the reference for tests of machine code.

The families have the same file names as in ``asm_libcalls/x86_64``. A function takes and returns
*bit patterns*: unsigned integers of the parameter's width, so that NaNs keep their bits. It raises
:class:`asm_libcalls.traps.Trap` where the libcall traps.
"""
