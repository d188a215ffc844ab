"""64-bit shifts, division and remainder on bit patterns.

Source: WebAssembly 2.0, 4.3.2 (ishl, ishr_u, ishr_s, idiv_u, idiv_s, irem_u, irem_s).
"""

from __future__ import annotations

from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow

_MASK = (1 << 64) - 1
_SIGN = 1 << 63


def _signed(pattern: int) -> int:
    return pattern - (1 << 64) if pattern & _SIGN else pattern


def i64_ishl(x: int, count: int) -> int:
    """Shift left; the count is taken modulo 64."""
    return x << (count & 63) & _MASK


def i64_sshr(x: int, count: int) -> int:
    """Shift right, copying the sign; the count is taken modulo 64."""
    return _signed(x) >> (count & 63) & _MASK


def i64_ushr(x: int, count: int) -> int:
    """Shift right, filling with zeros; the count is taken modulo 64."""
    return x >> (count & 63)


def i64_sdiv(dividend: int, divisor: int) -> int:
    """Signed quotient, truncated towards zero (Python's ``//`` would round down)."""
    if divisor == 0:
        raise IntegerDivisionByZero
    if divisor == _MASK and dividend == _SIGN:
        raise IntegerOverflow
    a, b = _signed(dividend), _signed(divisor)
    quotient = abs(a) // abs(b)
    return (quotient if (a < 0) == (b < 0) else -quotient) & _MASK


def i64_srem(dividend: int, divisor: int) -> int:
    """Signed remainder, with the sign of the dividend; ``MIN % -1`` is 0, not a trap."""
    if divisor == 0:
        raise IntegerDivisionByZero
    a, b = _signed(dividend), _signed(divisor)
    remainder = abs(a) % abs(b)
    return (remainder if a >= 0 else -remainder) & _MASK


def i64_udiv(dividend: int, divisor: int) -> int:
    """Unsigned quotient, truncated."""
    if divisor == 0:
        raise IntegerDivisionByZero
    return dividend // divisor


def i64_urem(dividend: int, divisor: int) -> int:
    """Unsigned remainder."""
    if divisor == 0:
        raise IntegerDivisionByZero
    return dividend % divisor
