"""The seven integer libcalls: the edge table, the definitions, every pair of boundary values."""

from __future__ import annotations

import edge_tables
import pytest
from edge_tables import outcome

from asm_libcalls import LIBCALLS
from asm_libcalls.checks.integers import CHECKER
from asm_libcalls.libcalls import DECLARATIONS

ROWS = edge_tables.integer_rows()
INTEGERS = [name for name, row in DECLARATIONS.items() if row.family == "integers"]

SIGN = 1 << 63


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
    return outcome(CHECKER.oracle(LIBCALLS[name]), x, y)


def test_table_follows_the_definitions():
    wrong = [
        f"{row}: {row.expected}, by definition {by_definition(row.libcall, *row.operands)}"
        for row in ROWS.values()
        if row.expected != by_definition(row.libcall, *row.operands)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", INTEGERS)
def test_every_pair_of_boundary_values(name, binding):
    libcall = binding.libcalls[name]
    wrong = []
    for case in CHECKER.edge_cases(libcall):
        expected, got = by_definition(name, *case), outcome(libcall.call_bits, *case)
        if got != expected:
            wrong.append(f"{name}{case}: expected {expected}, got {got}")
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
