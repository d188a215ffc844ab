"""The eight rounding libcalls: edge tables, the definitions, and the floating-point environment."""

from __future__ import annotations

import ctypes
import functools
import platform

import edge_tables
import pytest
from floating_point_flags import FE_INEXACT, raised_by

from asm_libcalls import LIBCALLS
from asm_libcalls.checks.rounding import CHECKER
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.signatures.value_types import FRACTION_BITS

ROWS = edge_tables.rounding_rows()
ROUNDING = [name for name, row in DECLARATIONS.items() if row.family == "rounding"]

# fesetround's modes, as glibc has them for x86-64.
MODES = {"to nearest": 0, "downward": 0x400, "upward": 0x800, "toward zero": 0xC00}


@pytest.mark.parametrize("id_", ROWS)
def test_edge_table(id_, binding):
    assert edge_tables.failures(binding, ROWS[id_]) == []


def test_table_has_every_libcall_and_sign():
    assert {row.libcall for rows in ROWS.values() for row in rows} == set(ROUNDING)
    mirrored = {id_.replace("-plus-", "-minus-", 1) for id_ in ROWS if "-plus-" in id_[:9]}
    assert mirrored == {id_ for id_ in ROWS if "-minus-" in id_[:10]}


def by_definition(name: str, pattern: int) -> int:
    return CHECKER.oracle(LIBCALLS[name])(pattern)


def test_table_follows_the_definitions():
    wrong = [
        f"{row}: {row.expected:#x}, by definition {by_definition(row.libcall, *row.operands):#x}"
        for rows in ROWS.values()
        for row in rows
        if row.expected != by_definition(row.libcall, *row.operands)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", ROUNDING)
def test_every_exponent(name, binding, random_cases):
    """Each sign and exponent, with the fraction's ends, its tie and random ones."""
    bits = DECLARATIONS[name].signature.parameters[0].bits
    fraction_bits = FRACTION_BITS[name[:3]]
    ones, exponents = (1 << fraction_bits) - 1, (1 << bits - 1 - fraction_bits) - 1
    call_bits = binding.libcalls[name].call_bits
    wrong = []
    for high in range(0, 1 << bits, 1 << fraction_bits):
        exponent = (high >> fraction_bits & exponents) - (exponents >> 1)
        behind_the_point = max(0, min(fraction_bits, fraction_bits - exponent))
        tie = 1 << behind_the_point >> 1 & ones
        for fraction in (0, ones, tie, random_cases.getrandbits(fraction_bits)):
            pattern = high | fraction
            expected, got = by_definition(name, pattern), call_bits(pattern)
            if got != expected:
                wrong.append(f"{pattern:#x}: expected {expected:#x}, got {got:#x}")
    assert wrong == []


@pytest.fixture
def c_math():
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of <fenv.h> are those of x86-64")
    return ctypes.CDLL("libm.so.6")


@pytest.mark.parametrize("mode", MODES)
def test_rounding_mode_of_the_thread_does_not_matter(mode, binding, c_math):
    rows = [row for id_ in ROWS if "two-and-a-half" in id_ for row in ROWS[id_]]
    assert len(rows) >= 48
    for row in rows:
        call_bits = binding.libcalls[row.libcall].call_bits
        assert c_math.fesetround(MODES[mode]) == 0
        try:
            got = call_bits(*row.operands)
            kept = c_math.fegetround()
        finally:
            c_math.fesetround(0)
        assert got == row.expected, row
        assert kept == MODES[mode], row


@pytest.mark.parametrize("name", ROUNDING)
def test_inexact_is_not_raised(name, machine_code, accelerated, c_math):
    """The routines suppress it, while C's rint, by the same way, raises it."""
    libcall = accelerated.libcalls[name]
    if libcall.backend != "x86_64":
        pytest.skip(libcall.reason)
    rint = c_math["rintf" if name.startswith("f32") else "rint"]
    control = ctypes.cast(rint, ctypes.c_void_p).value
    pattern = 0x3FA00000 if name.startswith("f32") else 0x3FF4000000000000  # 1.25

    def raises_inexact(address: int) -> bool:
        call = functools.partial(accelerated.entry.call, address, libcall.signature, (pattern,))
        return bool(raised_by(call) & FE_INEXACT)

    assert raises_inexact(control)
    assert not raises_inexact(libcall.address)
