"""Checks of the 128-bit shifts. The oracle multiplies and divides by powers of two."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.wide_integers import BOUNDARIES, MODULUS, random_integer, signed

_COUNTS = (0, 1, 2, 31, 32, 62, 63, 64, 65, 126, 127, 128, 192, 255, 2**31, 2**32 - 1)


class _ShiftChecker(PatternChecker):
    """Boundaries, and counts just below and above the width of a register and of the number."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, int]]:
        return product(BOUNDARIES, _COUNTS)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield numbers with counts in range, and some beyond."""
        while True:
            yield (random_integer(source), source.getrandbits(7))
            yield (random_integer(source), source.getrandbits(32))

    def oracle(self, libcall: Libcall) -> Callable[[int, int], int]:
        return _ORACLES[libcall.name]


_ORACLES: dict[str, Callable[[int, int], int]] = {
    "ashlti3": lambda x, count: x * 2 ** (count % 128) % MODULUS,
    "lshrti3": lambda x, count: math.floor(Fraction(x, 2 ** (count % 128))),
    "ashrti3": lambda x, count: math.floor(Fraction(signed(x), 2 ** (count % 128))) % MODULUS,
}

CHECKER = _ShiftChecker()
