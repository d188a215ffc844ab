"""128-bit division and remainder on bit patterns.

A zero divisor traps; ``MIN / -1`` is MIN.

Source: compiler-rt of LLVM 22, divti3.c, modti3.c, udivmodti4.c.
"""

from __future__ import annotations

from asm_libcalls.traps import IntegerDivisionByZero

_MASK = (1 << 128) - 1
_SIGN = 1 << 127


def _signed(pattern: int) -> int:
    return pattern - (1 << 128) if pattern & _SIGN else pattern


def divti3(dividend: int, divisor: int) -> int:
    """Signed quotient, truncated towards zero."""
    if divisor == 0:
        raise IntegerDivisionByZero
    a, b = _signed(dividend), _signed(divisor)
    quotient = abs(a) // abs(b)
    return (quotient if (a < 0) == (b < 0) else -quotient) & _MASK


def modti3(dividend: int, divisor: int) -> int:
    """Signed remainder, with the sign of the dividend."""
    if divisor == 0:
        raise IntegerDivisionByZero
    a, b = _signed(dividend), _signed(divisor)
    remainder = abs(a) % abs(b)
    return (remainder if a >= 0 else -remainder) & _MASK


def udivti3(dividend: int, divisor: int) -> int:
    """Unsigned quotient, truncated."""
    if divisor == 0:
        raise IntegerDivisionByZero
    return dividend // divisor


def umodti3(dividend: int, divisor: int) -> int:
    """Unsigned remainder."""
    if divisor == 0:
        raise IntegerDivisionByZero
    return dividend % divisor


def udivmodti4(dividend: int, divisor: int, remainder: int) -> int:
    """Unsigned quotient; the remainder is stored at an address, unless that is null."""
    if divisor == 0:
        raise IntegerDivisionByZero
    quotient, rest = divmod(dividend, divisor)
    if remainder:
        import ctypes

        ctypes.memmove(remainder, rest.to_bytes(16, "little"), 16)
    return quotient
