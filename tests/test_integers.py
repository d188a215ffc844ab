"""The seven integer libcalls: the edge table, the definitions, every pair of boundary values."""

from __future__ import annotations

import math
from fractions import Fraction

import edge_tables
import pytest

from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.traps import Trap

ROWS = edge_tables.integer_rows()
INTEGERS = [name for name, row in DECLARATIONS.items() if row.family == "integers"]

MASK, SIGN = (1 << 64) - 1, 1 << 63
# Each end of both readings and of their halves, one step to both sides, and a few digits.
BOUNDARIES = sorted(
    {
        (centre + step) & MASK
        for centre in (0, 1 << 31, 1 << 32, SIGN, -(1 << 31), -(1 << 32), 64)
        for step in (-2, -1, 0, 1, 2)
    }
    | {7, 10, 63, -7 & MASK, -10 & MASK, 0x0123456789ABCDEF, 0xFEDCBA9876543210}
)


@pytest.mark.parametrize("id_", ROWS)
def test_edge_table(id_, binding):
    assert edge_tables.failures(binding, [ROWS[id_]]) == []


def test_table_has_every_libcall_and_every_trap():
    assert {row.libcall for row in ROWS.values()} == set(INTEGERS)
    trapping = {
        (row.libcall, row.expected) for row in ROWS.values() if isinstance(row.expected, str)
    }
    assert trapping == {(name, code.name) for name in INTEGERS for code in DECLARATIONS[name].traps}


def by_definition(name: str, x: int, y: int) -> int | str:
    """Compute as WebAssembly 2.0, 4.3.2 says, in exact arithmetic."""
    signed_x, signed_y = (v - (1 << 64) if v & SIGN else v for v in (x, y))
    k = y % 64  # "let k be i2 modulo N"
    if name == "i64_ishl":
        return x * 2**k % 2**64
    if name == "i64_sshr":
        return math.floor(Fraction(signed_x, 2**k)) % 2**64
    if name == "i64_ushr":
        return math.floor(Fraction(x, 2**k))
    if y == 0:  # "if j2 is 0, then the result is undefined"
        return "INTEGER_DIVISION_BY_ZERO"
    if name in ("i64_sdiv", "i64_srem"):
        quotient = math.trunc(Fraction(signed_x, signed_y))
        if name == "i64_srem":
            return (signed_x - signed_y * quotient) % 2**64
        return "INTEGER_OVERFLOW" if quotient == 2**63 else quotient % 2**64
    quotient = math.trunc(Fraction(x, y))
    return quotient if name == "i64_udiv" else x - y * quotient


def outcome(function, *patterns: int) -> int | str:
    try:
        return function(*patterns)
    except Trap as trap:
        return trap.code.name


def test_table_follows_the_definitions():
    wrong = [
        f"{row}: {row.expected}, by definition {by_definition(row.libcall, *row.operands)}"
        for row in ROWS.values()
        if row.expected != by_definition(row.libcall, *row.operands)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", INTEGERS)
def test_every_pair_of_boundary_values(name, binding):
    call_bits = binding.libcalls[name].call_bits
    wrong = []
    for x in BOUNDARIES:
        for y in BOUNDARIES:
            expected, got = by_definition(name, x, y), outcome(call_bits, x, y)
            if got != expected:
                wrong.append(f"{name}({x:#x}, {y:#x}): expected {expected}, got {got}")
    assert wrong == []


@pytest.mark.parametrize("name", ["i64_ishl", "i64_sshr", "i64_ushr"])
def test_every_shift_count(name, binding):
    call_bits = binding.libcalls[name].call_bits
    for x in (1, SIGN, 0xA5A5A5A5A5A5A5A5):
        got = [call_bits(x, count) for count in range(256)]
        assert got == [by_definition(name, x, count) for count in range(256)]


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        # A result is signed for i64_s* and i64_ishl and unsigned for i64_u*; an argument may be
        # given in either reading of its 64 bits.
        ("i64_sdiv", (-7, 2), -3),
        ("i64_sdiv", (2**64 - 7, 2), -3),
        ("i64_sdiv", (2**64 - 1, 1), -1),
        ("i64_sdiv", (-(2**63), 1), -(2**63)),
        ("i64_srem", (-7, 2), -1),
        ("i64_srem", (2**64 - 7, 2**64 - 2), -1),
        ("i64_ishl", (1, 63), -(2**63)),
        ("i64_ishl", (2**64 - 1, 0), -1),
        ("i64_sshr", (2**63, 63), -1),
        ("i64_udiv", (-1, 1), 2**64 - 1),
        ("i64_udiv", (-1, -1), 1),
        ("i64_udiv", (2**64 - 1, 2), 2**63 - 1),
        ("i64_urem", (-1, 2**63), 2**63 - 1),
        ("i64_ushr", (-1, 0), 2**64 - 1),
        ("i64_ushr", (-(2**63), -1), 1),
    ],
)
def test_readings_of_64_bits(name, arguments, result, binding):
    assert binding.libcalls[name](*arguments) == result
    assert binding.libcalls[name].cfunc(*arguments) == result
