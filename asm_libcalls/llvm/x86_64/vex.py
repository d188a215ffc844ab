"""SSE instructions in the VEX encoding if the CPU has AVX, in the legacy encoding otherwise.

VEX avoids the transition penalty if the caller left upper halves of vector registers dirty.
"""

from __future__ import annotations

import peachpy.x86_64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def copying(features: frozenset[str], name: str) -> Any:
    """Return an instruction whose destination is only written, for example MOVAPS."""
    return getattr(peachpy.x86_64, f"V{name}" if "avx" in features else name)


def updating(features: frozenset[str], name: str) -> Any:
    """Return an instruction whose destination is also a source, for example MULSD."""
    instruction = copying(features, name)
    if "avx" not in features:
        return instruction

    def write(destination: Any, *sources: Any) -> None:
        instruction(destination, destination, *sources)

    return write


def combining(features: frozenset[str], name: str) -> Any:
    """Return an instruction of a destination and two sources; the second one stays as it is."""
    if "avx" in features:
        return copying(features, name)

    def write(destination: Any, first: Any, second: Any) -> None:
        copying(features, "MOVAPS")(destination, first)
        copying(features, name)(destination, second)

    return write
