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
"""0, and neighbours of 1, of 2**32, of a register's width and of both ends of the range."""


def random_integer(source: Random) -> int:
    """Return a pattern; all widths are equally likely."""
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
