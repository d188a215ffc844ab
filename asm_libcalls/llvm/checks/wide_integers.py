"""Cases of 128-bit integers: boundaries, and random numbers of every width."""

from __future__ import annotations

from random import Random

from asm_libcalls.checks import integers

MODULUS = 2**128

BOUNDARIES = sorted(
    {
        sign * (2**power + offset) % MODULUS
        for sign in (1, -1)
        for power in (0, 3, 32, 63, 64, 65, 126, 127)
        for offset in (-1, 0, 1)
    }
)
"""1, 8, 2**32, 2**63 to 2**65, 2**126 and 2**127, their neighbours, and the negatives of all."""


def random_integer(source: Random) -> int:
    """Return a pattern: mostly of a number whose width is random, at times a boundary."""
    kind = source.getrandbits(4)
    if kind == 0:
        return BOUNDARIES[source.getrandbits(16) % len(BOUNDARIES)]
    magnitude = source.getrandbits(source.getrandbits(7) + 1)
    if kind == 1:
        magnitude = 1 << source.getrandbits(7)
    return (-magnitude if kind & 1 else magnitude) % MODULUS


def signed(pattern: int, bits: int = 128) -> int:
    """Return the signed reading of a pattern."""
    return integers.signed(pattern, bits)
