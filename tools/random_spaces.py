"""Hold the index spaces of a random module, and choose types and constants for it.

:mod:`random_bodies`, which makes its code, and :mod:`random_modules`, which makes the rest, share
them.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend.module import F32, F64, FUNCREF, I32, V128
from wasm_encoding import CONST, NUMBERS, REFERENCES, encoded, s, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

PAGE = 65536
CANONICAL = {F32: bytes.fromhex("0000c07f"), F64: bytes.fromhex("000000000000f87f")}
"""The bits of the canonical NaN, by type."""

_INTEGERS = (0, 1, 2, 3, 7, 8, 31, 32, 63, 64, 127, 128, 255, 256, 65535, 65536, -1, -2, -128, -129)
_FLOATS = {
    F32: ("00000000", "00000080", "0000803f", "000080bf", "0000003f", "000020c0", "0000807f",
          "000080ff", "0000c07f", "0100807f", "0000004f", "0000004b", "01000000", "ffff7f7f"),
    F64: ("0000000000000000", "0000000000000080", "000000000000f03f", "000000000000f0bf",
          "000000000000e03f", "00000000000004c0", "000000000000f07f", "000000000000f0ff",
          "000000000000f87f", "010000000000f07f", "000000000000e041", "0000000000004043",
          "0100000000000000", "ffffffffffffef7f"),
}  # fmt: skip


class IndexSpaces:
    """The index spaces of a module, imports first."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.types: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.functions: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
        self.globals: list[tuple[int, bool]] = []
        self.tables: list[int] = []
        self.pages = 0
        self.elements: list[int] = []
        self.data = 0
        self.fuel = 0  # the index of its global
        self.vectors = random.random() < 0.6

    def type_index(self, params: Iterable[int], results: Iterable[int]) -> int:
        """Return the index of a function type, which may be new."""
        functype = (tuple(params), tuple(results))
        if functype not in self.types:
            self.types.append(functype)
        return self.types.index(functype)

    def values(self) -> tuple[int, ...]:
        """Return the value types that code may use."""
        return (*NUMBERS, *REFERENCES, *((V128, V128, V128) if self.vectors else ()))

    def some_types(self, most: int, *, inside: bool = True) -> tuple[int, ...]:
        """Return up to so many value types; vectors only for what stays inside the module."""
        choices = (*NUMBERS, *(self.values() if inside else (*NUMBERS, *REFERENCES)))
        return tuple(self.random.choices(choices, k=self.random.randint(0, most)))

    def some_functype(self, *, inside: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return a function type; sometimes one with very many parameters."""
        most = 12 if self.random.random() < 0.1 else 4
        results = self.random.choice((1, 1, 1, 3, 6))
        return self.some_types(most, inside=inside), self.some_types(results, inside=inside)

    def constant(self, value_type: int) -> bytes:
        """Return a constant expression, without its end."""
        random = self.random
        if value_type in REFERENCES:
            if value_type == FUNCREF and self.functions and random.random() < 0.7:
                return b"\xd2" + u(random.randrange(len(self.functions)))
            return bytes([0xD0, value_type])
        if value_type == V128:
            immediate = self._lanes()
        elif value_type in _FLOATS:
            if random.random() < 0.5:
                immediate = bytes.fromhex(random.choice(_FLOATS[value_type]))
            else:
                immediate = random.randbytes(len(CANONICAL[value_type]))
        else:
            bits = 32 if value_type == I32 else 64
            kind = random.random()
            if kind < 0.5:
                value = random.choice(_INTEGERS)
            elif kind < 0.8:
                value = random.getrandbits(random.randint(1, bits))
            else:
                value = (1 << random.randrange(bits)) - random.randint(0, 2)
            value &= (1 << bits) - 1
            immediate = s(value - (value >> (bits - 1) << bits))
        return encoded(CONST[value_type]) + immediate

    def _lanes(self) -> bytes:
        """Return 16 bytes that are lanes of some kind."""
        random = self.random
        size = random.choice((1, 2, 4, 8))
        floats = _FLOATS.get({4: F32, 8: F64}.get(size, 0))
        if floats and random.random() < 0.5:
            return b"".join(bytes.fromhex(random.choice(floats)) for _ in range(16 // size))
        if random.random() < 0.2:
            return random.randbytes(size) * (16 // size)
        lanes = (random.choice(_INTEGERS) % (1 << 8 * size) for _ in range(16 // size))
        return b"".join(lane.to_bytes(size, "little") for lane in lanes)
