"""128-bit division and remainder on bit patterns.

A zero divisor traps; ``MIN / -1`` is MIN.

Source: compiler-rt of LLVM 22, divti3.c, modti3.c, udivmodti4.c.
"""

from __future__ import annotations

from asm_libcalls.fallback.integers import quotient, remainder

_MASK = (1 << 128) - 1
_SIGN = 1 << 127


def _signed(pattern: int) -> int:
    return pattern - (1 << 128) if pattern & _SIGN else pattern


def divti3(dividend: int, divisor: int) -> int:
    """Signed quotient, truncated towards zero."""
    return quotient(_signed(dividend), _signed(divisor)) & _MASK


def modti3(dividend: int, divisor: int) -> int:
    """Signed remainder, with the sign of the dividend."""
    return remainder(_signed(dividend), _signed(divisor)) & _MASK


def udivti3(dividend: int, divisor: int) -> int:
    """Unsigned quotient, truncated."""
    return quotient(dividend, divisor)


def umodti3(dividend: int, divisor: int) -> int:
    """Unsigned remainder."""
    return remainder(dividend, divisor)


def udivmodti4(dividend: int, divisor: int, address: int) -> int:
    """Unsigned quotient; the remainder is stored at an address, unless that is null."""
    result, rest = quotient(dividend, divisor), remainder(dividend, divisor)
    if address:
        import ctypes

        ctypes.memmove(address, rest.to_bytes(16, "little"), 16)
    return result
