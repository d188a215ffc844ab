"""The image of the second table: all its families, and the jump on a zero divisor.

The first table's image raises traps, so this one jumps through a slot to a routine there.
"""

from __future__ import annotations

from asm_libcalls.llvm.libcalls import DECLARATIONS
from asm_libcalls.llvm.x86_64.division import DIVIDE_BY_ZERO
from asm_libcalls.x86_64 import families
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP_SLOT
from asm_libcalls.x86_64.trampolines import RAISE_DIVISION_BY_ZERO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the image for a CPU with these features."""
    yield sequence(DIVIDE_BY_ZERO, _raise)
    yield from libcalls(features)


def libcalls(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble all families.

    A libcall begins at a multiple of 64 bytes: a CPU fetches instructions by lines of 64, and many
    paths through a libcall fit one or two.
    """
    for routine in families.routines(DECLARATIONS.values(), features):
        routine.alignment = 64
        yield routine


def _raise() -> None:
    TAIL_JUMP_SLOT(RAISE_DIVISION_BY_ZERO)
