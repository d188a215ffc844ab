"""Checks of the 64-bit shifts, divisions and remainders. The oracle is exact arithmetic.

A shift is a multiplication or a floor division by a power of two; a quotient is a truncated exact
fraction; a remainder is computed from the quotient. The oracle uses no bit operations, so it cannot
repeat a fault in them. Source: WebAssembly 2.0, 4.3.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from random import Random

from asm_libcalls.checks.engine import PatternChecker
from asm_libcalls.libcall import Libcall
from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow

_MODULUS = 2**64
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1

_BOUNDARIES = sorted(
    {
        sign * (2**power + offset) % _MODULUS
        for sign in (1, -1)
        for power in (0, 1, 5, 6, 31, 32, 62, 63)
        for offset in (-1, 0, 1)
    }
)
"""0 and the neighbours of 1, of the shift width, of 32 bits and of both ends of the range."""


class _IntegerChecker(PatternChecker):
    """Integers: all pairs of boundaries; random numbers of every width."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, ...]]:
        return product(_BOUNDARIES, repeat=len(libcall.signature.parameters))

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, ...]]:
        """Yield pairs; every second first number is near a multiple of the other one."""
        while True:
            x, y = _random_integer(source), _random_integer(source)
            yield (x, y)
            yield ((_random_integer(source) * y + source.getrandbits(2) - 1) % _MODULUS, y)

    def oracle(self, libcall: Libcall) -> Callable[[int, int], int]:
        return _ORACLES[libcall.name]


def _random_integer(source: Random) -> int:
    # Nearly all uniform 64-bit numbers have more than 56 bits: all quotients would be tiny.
    kind = source.getrandbits(4)
    if kind == 0:
        return _BOUNDARIES[source.getrandbits(16) % len(_BOUNDARIES)]
    magnitude = source.getrandbits(source.getrandbits(6) + 1)
    return (-magnitude if kind & 1 else magnitude) % _MODULUS


def signed(pattern: int, bits: int = 64) -> int:
    """Return the signed reading of a pattern."""
    return int.from_bytes(pattern.to_bytes(bits // 8, "big"), "big", signed=True)


def quotient(dividend: int, divisor: int) -> int:
    """Return the truncated quotient, or trap."""
    if divisor == 0:
        raise IntegerDivisionByZero
    return math.trunc(Fraction(dividend, divisor))


def _signed_quotient(dividend: int, divisor: int) -> int:
    found = quotient(signed(dividend), signed(divisor))
    if not _SMALLEST <= found <= _LARGEST:
        raise IntegerOverflow
    return found % _MODULUS


def remainder(dividend: int, divisor: int) -> int:
    """Return the remainder of the truncated quotient, or trap."""
    return dividend - divisor * quotient(dividend, divisor)


_ORACLES: dict[str, Callable[[int, int], int]] = {
    "i64_ishl": lambda x, count: x * 2 ** (count % 64) % _MODULUS,
    "i64_sshr": lambda x, count: math.floor(Fraction(signed(x), 2 ** (count % 64))) % _MODULUS,
    "i64_ushr": lambda x, count: math.floor(Fraction(x, 2 ** (count % 64))),
    "i64_sdiv": _signed_quotient,
    "i64_srem": lambda x, y: remainder(signed(x), signed(y)) % _MODULUS,
    "i64_udiv": quotient,
    "i64_urem": remainder,
}

CHECKER = _IntegerChecker()
