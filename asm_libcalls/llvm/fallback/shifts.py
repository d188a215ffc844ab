"""128-bit shifts on bit patterns; the count is taken modulo 128."""

from __future__ import annotations

_MASK = (1 << 128) - 1
_SIGN = 1 << 127


def ashlti3(x: int, count: int) -> int:
    """Shift left."""
    return x << (count & 127) & _MASK


def lshrti3(x: int, count: int) -> int:
    """Shift right, filling with zeros."""
    return x >> (count & 127)


def ashrti3(x: int, count: int) -> int:
    """Shift right, copying the sign."""
    return (x - (x & _SIGN) * 2) >> (count & 127) & _MASK
