"""Public name of ``Routine``, which ``x86_64.assembler.sequence`` returns; nothing else."""

from asm_libcalls.emitter.image import Routine

__all__ = ["Routine"]
