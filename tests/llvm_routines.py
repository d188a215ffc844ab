"""The second table's machine code for any CPU features, apart from the loaded image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asm_libcalls.emitter.pages import LoadedImage


def load_for(load_routines: Callable[..., LoadedImage], features: frozenset[str]) -> LoadedImage:
    """Assemble and load the libcalls for a CPU with these features."""
    from asm_libcalls.llvm.libcalls import DECLARATIONS
    from asm_libcalls.llvm.x86_64.division import DIVIDE_BY_ZERO
    from asm_libcalls.x86_64 import families
    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP
    from asm_libcalls.x86_64.trampolines import RAISE_DIVISION_BY_ZERO

    def leave() -> Any:
        return TAIL_JUMP(RAISE_DIVISION_BY_ZERO)

    libcalls = families.routines(DECLARATIONS.values(), features)
    return load_routines(sequence(DIVIDE_BY_ZERO, leave), *libcalls)
