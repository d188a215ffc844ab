"""``CodeAddress``: an address in code that can be freed, as an int that keeps the code.

A module of its own, because all functions that take addresses import it. Few programs need the rest
of ``code.py``.
"""

from __future__ import annotations

from asm_libcalls.owned import NotCopied
from asm_libcalls.owned.objects import OPEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol, Self

    class Piece(Protocol):
        """The memory of a piece of code; it is not released while there is a reference to this."""

        undo: list[Callable[[], object]]
        """Functions to call before the memory is used again."""


class CodeAddress(NotCopied, int):
    """An address in a :class:`Code`, an int that keeps the memory of the code.

    A sum with an int is such an address too, if it is in the same code.

    Attributes
    ----------
    code : Code
    """

    code: Any
    piece: Piece

    def __new__(cls, value: int, code: Any, piece: Piece) -> Self:
        """Make an address of a piece; users get theirs from a Code."""
        self = super().__new__(cls, value)
        self.code = code
        self.piece = piece
        return self

    def __add__(self, other: int) -> int:
        total: int = int.__add__(self, other)
        if total is NotImplemented:
            return NotImplemented
        start: int = self.code._start
        if not start <= total <= start + self.code.size:
            return total
        return CodeAddress(total, self.code, self.piece)

    __radd__ = __add__

    def check_open(self, where: str) -> None:
        """Raise ValueError if the code is closed."""
        if self.code._state is not OPEN:
            raise ValueError(f"{where}: the Code is closed")

    def __native_address__(self, kind: str) -> Any:
        self.check_open(f"the address {int(self):#x}")
        return int(self)

    def before_release(self, undo: Callable[[], object]) -> None:
        """Call a function before the memory of the code is used again."""
        self.piece.undo.append(undo)
