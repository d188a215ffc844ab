"""Public import path of ``Routine``, for users only; its module is ``emitter/image.py``."""

from asm_libcalls.emitter.image import Routine

__all__ = ["Routine"]
