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


def quotient(dividend: int, divisor: int) -> int:
    """Return a quotient, truncated towards zero (Python's ``//`` would round down)."""
    if divisor == 0:
        raise IntegerDivisionByZero
    magnitude = abs(dividend) // abs(divisor)
    return magnitude if (dividend < 0) == (divisor < 0) else -magnitude


def remainder(dividend: int, divisor: int) -> int:
    """Return a remainder, with the sign of the dividend."""
    if divisor == 0:
        raise IntegerDivisionByZero
    magnitude = abs(dividend) % abs(divisor)
    return magnitude if dividend >= 0 else -magnitude


def i64_sdiv(dividend: int, divisor: int) -> int:
    """Signed quotient, truncated towards zero; ``MIN / -1`` traps."""
    if divisor == _MASK and dividend == _SIGN:
        raise IntegerOverflow
    return quotient(_signed(dividend), _signed(divisor)) & _MASK


def i64_srem(dividend: int, divisor: int) -> int:
    """Signed remainder, with the sign of the dividend; ``MIN % -1`` is 0, not a trap."""
    return remainder(_signed(dividend), _signed(divisor)) & _MASK


def i64_udiv(dividend: int, divisor: int) -> int:
    """Unsigned quotient, truncated."""
    return quotient(dividend, divisor)


def i64_urem(dividend: int, divisor: int) -> int:
    """Unsigned remainder."""
    return remainder(dividend, divisor)
