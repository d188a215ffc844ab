"""SSE instructions in the encoding that the CPU is best served with.

Where there is AVX that is VEX, so that callers whose upper halves are dirty pay no transition.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["copying", "updating"]


def copying(features: frozenset[str], name: str) -> Any:
    """Return an instruction whose destination is only written, for example MOVAPS."""
    import peachpy.x86_64

    return getattr(peachpy.x86_64, f"V{name}" if "avx" in features else name)


def updating(features: frozenset[str], name: str) -> Any:
    """Return an instruction of two operands whose first is a source too, for example MULSD."""
    instruction = copying(features, name)
    if "avx" not in features:
        return instruction

    def write(destination: Any, *sources: Any) -> None:
        instruction(destination, destination, *sources)

    return write
