"""LLVM's libcalls as a library for other tools, in place of compiler-rt.

It cannot raise traps: a zero divisor executes ``div`` by 0, as compiler-rt's code does.
"""

from __future__ import annotations

from peachpy.x86_64 import DIV, UD2, XOR, ecx

from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the library for a CPU with these features."""
    from asm_libcalls.llvm.x86_64.division import DIVIDE_BY_ZERO
    from asm_libcalls.llvm.x86_64.image import libcalls

    yield sequence(DIVIDE_BY_ZERO, _divide)
    yield from libcalls(features)


def exports() -> frozenset[str]:
    """Return the symbols that the library offers."""
    from asm_libcalls.llvm.libcalls import DECLARATIONS

    return frozenset(row.symbol for row in DECLARATIONS.values())


def _divide() -> None:
    XOR(ecx, ecx)
    DIV(ecx)
    UD2()
