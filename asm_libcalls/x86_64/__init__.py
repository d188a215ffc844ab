"""The x86-64 backend: one file per libcall family in PeachPy, and the code around the libcalls.

Importing this package imports nothing else; PeachPy is imported only where code is assembled.

===================== =============================================================
`find_assembler`      whether PeachPy can be used
`assembler`           PeachPy code -> routines (bytes and symbolic references)
`cpu` `cpu_caches`    features of the CPU and the operating system; size of the caches
`families`            the families of libcalls, and what each needs of the CPU
`rounding` `integers` the numeric libcalls
`memories`            the linear-memory libcalls
`bytes`               their loops: ``memmove``, ``memset``, and the vectors of a CPU
`trampolines`         native code entered from Python, and Python called from native code
`stencils`            copy and patch: routines composed at run time, no PeachPy needed
`python_functions`    CPython builtins whose code is composed from stencils
`ufunc_loops`         inner loops of the NumPy ufuncs
`call_loops`          loops that call a C function for each element
`library`             the image that other tools load by name
`image_kinds`         the images, and the CPU levels that a wheel brings them for
`code_cache`          images in files, written and found
`file_trust`          the owners and permissions of those files
`backend`             the libcalls, loaded
===================== =============================================================
"""
