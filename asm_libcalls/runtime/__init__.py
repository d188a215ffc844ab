"""What native code runs in: instances, memories, tables, globals, references and their collection.

As Wasmtime's ``runtime/vm``. The C layouts are in :mod:`asm_libcalls.vmcontext`.
"""
