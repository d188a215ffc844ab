"""The image of the second table: all its families, and where they go on a zero divisor.

The first table's image knows what catches a trap, so this one leaves for a routine there.
"""

from __future__ import annotations

from asm_libcalls.llvm.x86_64.division import DIVIDE_BY_ZERO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["FAMILIES", "families", "routines"]

FAMILIES = ("division", "multiplication", "shifts", "conversions", "half_precision", "powi")
"""The files of this folder that hold libcalls. Every x86-64 CPU can run them."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the image for a CPU with these features."""
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence(DIVIDE_BY_ZERO, _raise)
    yield from families(features)


def families(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the libcalls for a CPU with these features."""
    from importlib import import_module

    for name in FAMILIES:
        yield from import_module(f"asm_libcalls.llvm.x86_64.{name}").routines(features)


def _raise() -> None:
    from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP_SLOT
    from asm_libcalls.x86_64.trampolines.enter import RAISE_DIVISION_BY_ZERO

    TAIL_JUMP_SLOT(RAISE_DIVISION_BY_ZERO)
