"""The x86-64 backend: one file per libcall family in PeachPy, and what makes machine code run.

Importing this package imports nothing else; PeachPy is imported only where code is assembled.

===================== =============================================================
`instructions`        the instructions that PeachPy lacks
`assembler`           PeachPy code -> routines (bytes and symbolic references)
`unwind`              instructions -> where the caller is, at each of them
`image`               routines -> one position-independent image, no PeachPy needed
`pages`               an image -> executable pages, never writable at the same time
`cpu`                 what the CPU and the operating system support
`entry`               entering native code, and the way out of it by a trap
`families`            which families there are, and what each needs of the CPU
`rounding` `integers` the numeric libcalls
`memories`            the linear-memory libcalls
`moves` `fills`       what they do when the bounds are checked: ``memmove``, ``memset``
`vectors`             the vectors of a CPU, and the lengths where methods change
`stencils`            copy and patch: routines composed at run time, no PeachPy needed
`python_objects`      CPython's objects as machine code sees them
`builtins`            the stencils of native functions
`function_objects`    builtins whose code they are
`library`             the image that other tools load by name
`images`              which images there are, and the CPU levels that a wheel brings them for
`eh_frame`            where callers are, as DWARF's call frame information
`elf_object`          code -> the content of an ELF shared object
`image_file`          an image as the content of a file, and back
`shared_object`       that file, loaded by the dynamic linker
`code_cache`          images in files: kept, and found
`trust`               whether anybody else can have written a file, or can exchange it
`availability`        whether machine code can be made and run here
`backend`             all of it, loaded
===================== =============================================================
"""
