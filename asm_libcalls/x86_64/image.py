"""The public place of ``Routine``, which ``x86_64.assembler.sequence`` returns."""

from asm_libcalls.emitter.image import Routine

__all__ = ["Routine"]
