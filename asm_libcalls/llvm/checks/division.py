"""Checks of the 128-bit divisions and remainders. The oracle truncates exact fractions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.stored_results import StoringChecker
from asm_libcalls.llvm.checks.wide_integers import BOUNDARIES, MODULUS, random_integer, signed
from asm_libcalls.traps import IntegerDivisionByZero

__all__ = ["CHECKER"]


class DivisionChecker(StoringChecker):
    """All pairs of boundaries; random numbers of every width, and near multiples."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, ...]]:
        """Yield all pairs of boundaries."""
        return product(BOUNDARIES, repeat=2)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield pairs; every second dividend is near a multiple of the divisor."""
        while True:
            divisor = random_integer(source)
            yield (random_integer(source), divisor)
            multiple = random_integer(source) * divisor + source.getrandbits(2) - 1
            yield (multiple % MODULUS, divisor)

    def oracle(self, libcall: Libcall) -> Callable[..., Any]:
        """Return the same by exact fractions."""
        return _ORACLES[libcall.name]


def _quotient(dividend: int, divisor: int) -> int:
    if divisor == 0:
        raise IntegerDivisionByZero
    return math.trunc(Fraction(dividend, divisor))


def _rest(dividend: int, divisor: int) -> int:
    return dividend - divisor * _quotient(dividend, divisor)


_ORACLES: dict[str, Callable[[int, int], Any]] = {
    "divti3": lambda x, y: _quotient(signed(x), signed(y)) % MODULUS,
    "modti3": lambda x, y: _rest(signed(x), signed(y)) % MODULUS,
    "udivti3": _quotient,
    "umodti3": _rest,
    "udivmodti4": lambda x, y: (_quotient(x, y), _rest(x, y)),
}

CHECKER = DivisionChecker()
