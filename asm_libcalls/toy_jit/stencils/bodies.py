"""What the bodies of stencils that are written in Python share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Hole = Callable[[str], int]
    Body = Callable[[Hole], object]

__all__ = ["store"]


def store(instruction: Any, register: Any, base: Any, hole_name: str) -> Body:
    """Make the body of one instruction that stores a register to [base + hole]."""
    return lambda hole: instruction([base + hole(hole_name)], register)
