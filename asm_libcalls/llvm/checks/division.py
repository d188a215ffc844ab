"""Checks of the 128-bit divisions and remainders. The oracle truncates exact fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Any

from asm_libcalls.checks.integers import quotient, remainder
from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.stored_results import StoringChecker
from asm_libcalls.llvm.checks.wide_integers import BOUNDARIES, MODULUS, random_integer, signed


class _DivisionChecker(StoringChecker):
    """All pairs of boundaries; random numbers of every width, and near multiples."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, ...]]:
        return product(BOUNDARIES, repeat=2)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield pairs; every second dividend is near a multiple of the divisor."""
        while True:
            divisor = random_integer(source)
            yield (random_integer(source), divisor)
            multiple = random_integer(source) * divisor + source.getrandbits(2) - 1
            yield (multiple % MODULUS, divisor)

    def oracle(self, libcall: Libcall) -> Callable[..., Any]:
        return _ORACLES[libcall.name]


_ORACLES: dict[str, Callable[[int, int], Any]] = {
    "divti3": lambda x, y: quotient(signed(x), signed(y)) % MODULUS,
    "modti3": lambda x, y: remainder(signed(x), signed(y)) % MODULUS,
    "udivti3": quotient,
    "umodti3": remainder,
    "udivmodti4": lambda x, y: (quotient(x, y), remainder(x, y)),
}

CHECKER = _DivisionChecker()
