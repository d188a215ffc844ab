"""The x86-64 backend: one file per libcall family in PeachPy, and the code around the libcalls.

Importing this package imports nothing else; PeachPy is imported only where code is assembled.

===================== =============================================================
`find_assembler`      whether PeachPy can be used
`assembler`           PeachPy code -> routines (bytes and symbolic references)
`cpu`                 features of the CPU and the operating system; size of the last cache
`families`            the families of libcalls, and what each needs of the CPU
`rounding` `integers` the numeric libcalls
`memories`            the linear-memory libcalls
`memory_growth`       growing memories; the system call that tables grow by, too
`tables` `externrefs` the libcalls on references
`leaving`             bodies that serve the common case, and leave for Python otherwise
`reference_counts`    counting the owners of all externrefs in an array
`bytes` `byte_tuning` loops: ``memmove``, ``memset``, the vectors of a CPU; which CPU uses which
`trampolines`         native code entered from Python, and Python called from native code
`stencils`            copy and patch: routines composed at run time, no PeachPy needed
`python_functions`    CPython builtins whose code is composed from stencils
`ufunc_loops`         inner loops of the NumPy ufuncs
`call_loops`          loops that call a C function for each element
`library`             the image that other tools load by name
`image`               the public import path of ``Routine``
`image_kinds`         the images, and the CPU levels that a wheel has them for
`code_cache`          images in files, written and found
`cache_files`         where those files are, and which can be trusted
`cache_writing`       files written into the cache folder
`source_digest`       the sources that an image is made from
`backend`             the libcalls, loaded
===================== =============================================================
"""
