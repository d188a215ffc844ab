"""128-bit multiplication, and multiplications that report overflow, on bit patterns.

Source: compiler-rt of LLVM 22, multi3.c, int_mulo_impl.inc.
"""

from __future__ import annotations

from functools import partial


def multi3(a: int, b: int) -> int:
    """Return the product modulo 2**128."""
    return a * b & ((1 << 128) - 1)


def _overflowing(bits: int, a: int, b: int, overflow: int) -> int:
    """Return the product modulo 2**bits, and store whether it overflowed at an address."""
    import ctypes

    modulus, half = 1 << bits, 1 << (bits - 1)
    product = (a - (a & half) * 2) * (b - (b & half) * 2)
    ctypes.c_int.from_address(overflow).value = not -half <= product < half
    return product % modulus


muloti4, mulodi4, mulosi4 = (partial(_overflowing, bits) for bits in (128, 64, 32))
