"""The machine-code emitter: bytes become an executable image, mapped, named and unwindable.

The emitter knows no assembler. A :class:`~asm_libcalls.emitter.image.Routine` is bytes with
references. ``image`` links routines; ``image_file`` and ``elf_object`` write them to a file;
``pages`` and ``shared_object`` make them executable through ctypes; ``load_code`` does so for a
user's bytes, and ``code`` for code that can be freed, on the shared pages of ``code_arena``.
``call_frames``, ``eh_frame`` and ``register_frames`` make code unwindable.
``code_names`` gives profilers and debuggers the names and addresses of functions.
"""
