"""What the bodies of stencils share: their type, and the commonest shapes of them."""

from __future__ import annotations

from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Hole = Callable[[str], int]
    Body = Callable[[Hole], object]

__all__ = ["load", "store", "trap", "wide", "with_const", "with_register", "with_slot"]


def trap(condition: str, code: TrapCode) -> None:
    """Emit a jump to a trap, if a condition holds."""
    from asm_libcalls.x86_64.instructions import JUMP_IF

    JUMP_IF(condition, f"trap.{code.name}")


def wide(hole: Hole) -> int:
    """Make the two holes of a 64-bit immediate."""
    return hole("low") | hole("high") << 32


def with_slot(instruction: Any, a: Any, memory: Any, rbp: Any) -> Body:
    """Make the body of one instruction whose second operand is a slot."""
    return lambda hole: instruction(a, memory[rbp + hole("slot")])


def with_register(instruction: Any, a: Any, c: Any) -> Body:
    """Make the body of one instruction on two registers."""
    return lambda hole: instruction(a, c)


def with_const(instruction: Any, a: Any) -> Body:
    """Make the body of one instruction whose second operand is a constant."""
    return lambda hole: instruction(a, hole("value"))


def load(instruction: Any, register: Any, base: Any, hole_name: str) -> Body:
    """Make the body of one instruction that loads a register from [base + hole]."""
    return lambda hole: instruction(register, [base + hole(hole_name)])


def store(instruction: Any, register: Any, base: Any, hole_name: str) -> Body:
    """Make the body of one instruction that stores a register to [base + hole]."""
    return lambda hole: instruction([base + hole(hole_name)], register)
