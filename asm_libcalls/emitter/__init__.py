"""The machine-code emitter: bytes become an executable image, mapped, named and unwindable.

It knows no assembler. A :class:`~asm_libcalls.emitter.image.Routine` is bytes with references.
``image`` links routines, ``image_file`` and ``elf_object`` write them to a file, ``pages`` and
``shared_object`` make them executable through ctypes, and ``load_code`` does so for a user's bytes.
``call_frames``, ``eh_frame`` and ``register_frames`` make the code unwindable. ``code_names`` tells
profilers and debuggers what lies where.
"""
