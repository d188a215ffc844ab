"""The eight rounding libcalls: edge tables, the definitions, and the floating-point environment."""

from __future__ import annotations

import ctypes
import functools
import math
import platform
from fractions import Fraction

import edge_tables
import pytest
from floating_point_flags import FE_INEXACT, raised_by

from asm_libcalls.libcalls import DECLARATIONS

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


class Format:
    """An IEEE 754 binary format, read and written in exact rational arithmetic."""

    def __init__(self, exponent_bits: int, fraction_bits: int) -> None:
        self.fraction_bits = fraction_bits
        self.sign = 1 << (exponent_bits + fraction_bits)
        self.bias = (1 << (exponent_bits - 1)) - 1
        self.infinity = ((1 << exponent_bits) - 1) << fraction_bits

    def magnitude(self, pattern: int) -> Fraction:
        exponent, fraction = divmod(pattern & ~self.sign, 1 << self.fraction_bits)
        if exponent:
            fraction += 1 << self.fraction_bits
        scale = Fraction(2) ** (max(exponent, 1) - self.bias - self.fraction_bits)
        return fraction * scale

    def pattern_of_integer(self, value: int) -> int:
        """Return the pattern of an integer at least 0 that the format has."""
        if value == 0:
            return 0
        exponent = value.bit_length() - 1
        scaled = Fraction(value) * Fraction(2) ** (self.fraction_bits - exponent)
        assert scaled.denominator == 1, f"{value} has too many digits"
        return ((exponent + self.bias - 1) << self.fraction_bits) + int(scaled)


FORMATS = {"f32": Format(8, 23), "f64": Format(11, 52)}
ROUND = {"ceil": math.ceil, "floor": math.floor, "trunc": math.trunc, "nearest": round}


def by_definition(name: str, pattern: int) -> int:
    """Round as WebAssembly 2.0, 4.3.3 says, and NaN as the head of the table says."""
    value_type, verb = name.split("_")
    format_ = FORMATS[value_type]
    sign = pattern & format_.sign
    magnitude = pattern & ~format_.sign
    if magnitude > format_.infinity:
        return pattern | 1 << (format_.fraction_bits - 1)
    if magnitude in (0, format_.infinity):
        return pattern
    value = format_.magnitude(pattern) * (-1 if sign else 1)
    # "if z is smaller than 0 but greater than -1, then return negative zero", and so on: a zero
    # that comes of rounding has the operand's sign.
    return sign | format_.pattern_of_integer(abs(ROUND[verb](value)))


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
    format_ = FORMATS[name[:3]]
    call_bits = binding.libcalls[name].call_bits
    wrong = []
    for high in range(0, 2 * format_.sign, 1 << format_.fraction_bits):
        exponent = ((high & ~format_.sign) >> format_.fraction_bits) - format_.bias
        behind_the_point = max(0, min(format_.fraction_bits, format_.fraction_bits - exponent))
        tie = 1 << behind_the_point >> 1 & (1 << format_.fraction_bits) - 1
        for fraction in (
            0,
            (1 << format_.fraction_bits) - 1,
            tie,
            random_cases.getrandbits(format_.fraction_bits),
        ):
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
