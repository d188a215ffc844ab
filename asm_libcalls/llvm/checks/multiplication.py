"""Checks of the multiplications. The oracle adds up products of 16-bit digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Any

from asm_libcalls.libcall import Libcall
from asm_libcalls.llvm.checks.stored_results import StoringChecker
from asm_libcalls.llvm.checks.wide_integers import BOUNDARIES, random_integer, signed


class _MultiplicationChecker(StoringChecker):
    """All pairs of boundaries; random pairs, many with products close to overflow."""

    def edge_cases(self, libcall: Libcall) -> Iterator[tuple[int, ...]]:
        """Yield all pairs of boundaries, of the parameters' width."""
        mask = libcall.signature.parameters[0].mask
        return product(sorted({boundary & mask for boundary in BOUNDARIES}), repeat=2)

    def random_cases(self, libcall: Libcall, source: Random) -> Iterator[tuple[int, int]]:
        """Yield pairs; the product of every second one is near the end of the range."""
        mask = libcall.signature.parameters[0].mask
        while True:
            x = random_integer(source) & mask
            yield (x, random_integer(source) & mask)
            magnitude = abs(signed(x, mask.bit_length())) or 1
            y = ((mask >> 1) + source.getrandbits(2)) // magnitude + source.getrandbits(1)
            yield (x, (-y if source.getrandbits(1) else y) & mask)

    def oracle(self, libcall: Libcall) -> Callable[..., Any]:
        bits = libcall.signature.parameters[0].bits
        if libcall.name == "multi3":
            return lambda x, y: _product(x, y) % 2**bits

        def multiply(x: int, y: int) -> tuple[int, bool]:
            exact = _signed_product(signed(x, bits), signed(y, bits))
            wrapped = exact % 2**bits
            return wrapped, signed(wrapped, bits) != exact

        return multiply


def _product(x: int, y: int) -> int:
    digits = [[number >> 16 * i & 0xFFFF for i in range(8)] for number in (x, y)]
    return sum(
        (a * b) << 16 * (i + j) for i, a in enumerate(digits[0]) for j, b in enumerate(digits[1])
    )


def _signed_product(x: int, y: int) -> int:
    magnitude = _product(abs(x), abs(y))
    return -magnitude if (x < 0) != (y < 0) else magnitude


CHECKER = _MultiplicationChecker()
