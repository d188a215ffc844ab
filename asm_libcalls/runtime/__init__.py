"""The objects that native code works on: instances, memories, tables, globals, references, GC.

They correspond to Wasmtime's ``runtime/vm``. The C layouts are in :mod:`asm_libcalls.vmcontext`.
"""
