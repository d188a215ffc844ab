"""Every libcall in plain Python: for other CPUs, and the definition that machine code is held to.

The families mirror ``asm_libcalls/x86_64``: to know what a libcall does, open the two files of the
same name. A function here takes and returns *bit patterns*, unsigned integers of the parameter's
width, as the abstract i32, i64, f32 and f64 of the WebAssembly specification; floats therefore
keep every NaN. It raises :class:`asm_libcalls.traps.Trap` where the libcall traps.
"""
