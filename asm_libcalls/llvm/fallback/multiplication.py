"""128-bit multiplication, and multiplications that report overflow, on bit patterns.

Source: compiler-rt of LLVM 22, multi3.c, int_mulo_impl.inc.
"""

from __future__ import annotations


def multi3(a: int, b: int) -> int:
    """Return the product modulo 2**128."""
    return a * b & ((1 << 128) - 1)


def _overflowing(bits: int, a: int, b: int, overflow: int) -> int:
    import ctypes

    modulus, half = 1 << bits, 1 << (bits - 1)
    product = (a - (a & half) * 2) * (b - (b & half) * 2)
    ctypes.c_int.from_address(overflow).value = not -half <= product < half
    return product % modulus


def muloti4(a: int, b: int, overflow: int) -> int:
    """Return the product modulo 2**128, and store whether it overflowed at an address."""
    return _overflowing(128, a, b, overflow)


def mulodi4(a: int, b: int, overflow: int) -> int:
    """Return the product modulo 2**64, and store whether it overflowed at an address."""
    return _overflowing(64, a, b, overflow)


def mulosi4(a: int, b: int, overflow: int) -> int:
    """Return the product modulo 2**32, and store whether it overflowed at an address."""
    return _overflowing(32, a, b, overflow)
