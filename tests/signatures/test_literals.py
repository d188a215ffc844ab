"""Numbers as text: WebAssembly's syntax, every bit pattern there and back, one rounding."""

from __future__ import annotations

import struct
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asm_libcalls.signatures import VALUE_TYPES
from asm_libcalls.signatures.literals import describe, format_bits, format_pattern, parse

F32, F64, I64, U64 = (VALUE_TYPES[name] for name in ("f32", "f64", "i64", "u64"))


@pytest.mark.parametrize(
    ("type_name", "text", "pattern"),
    [
        ("i64", "0", 0),
        ("i64", "-1", 0xFFFFFFFFFFFFFFFF),
        ("i64", "+0x1", 1),
        ("i64", "0xFFFFFFFFFFFFFFFF", 0xFFFFFFFFFFFFFFFF),
        ("i64", "-9_223_372_036_854_775_808", 0x8000000000000000),
        ("u64", "18446744073709551615", 0xFFFFFFFFFFFFFFFF),
        ("i32", "-0x80000000", 0x80000000),
        ("i64", "000000000000000000000000000000000007", 7),
        ("i64", "0b101", 5),
        ("i64", "-0B1_0", 0xFFFFFFFFFFFFFFFE),
        ("u64", f"0b{64 * '1'}", 0xFFFFFFFFFFFFFFFF),
        ("i64", "0o17", 15),
        ("u64", "0o1777777777777777777777", 0xFFFFFFFFFFFFFFFF),
        ("u128", f"0b{128 * '1'}", (1 << 128) - 1),
        ("u128", f"0o3{42 * '7'}", (1 << 128) - 1),
        ("f64", "2.5", 0x4004000000000000),
        ("f64", "-0", 0x8000000000000000),
        ("f64", "-.5", 0xBFE0000000000000),
        ("f64", "1_0.2_5e+1", 0x4059A00000000000),
        ("f64", "0x1.8p3", 0x4028000000000000),
        ("f64", "-0x.8", 0xBFE0000000000000),
        ("f64", "0x1p-1074", 1),
        ("f64", "0x1p99999999999", 0x7FF0000000000000),
        ("f64", "1e999", 0x7FF0000000000000),
        ("f64", "-1e999999999999999999", 0xFFF0000000000000),
        ("f64", "1e-999999999999999999", 0),
        ("f64", "inf", 0x7FF0000000000000),
        ("f64", "-Inf", 0xFFF0000000000000),
        ("f64", "nan", 0x7FF8000000000000),
        ("f64", "nan:canonical", 0x7FF8000000000000),
        ("f64", "-nan:0x200000", 0xFFF0000000200000),
        ("f64", "nan:0xf_ffff_ffff_ffff", 0x7FFFFFFFFFFFFFFF),
        ("f32", "nan", 0x7FC00000),
        ("f32", "-nan:0x200000", 0xFFA00000),
        ("f32", "3.4028235e38", 0x7F7FFFFF),
        ("f32", "3.4028236e38", 0x7F800000),
        # Halfway between 1 and its successor, exactly and by a hair: f64 cannot see the hair.
        ("f32", "1.000000059604644775390625", 0x3F800000),
        ("f32", "1.0000000596046447753906250000000001", 0x3F800001),
        ("f32", "0x1.000001", 0x3F800000),
        ("f32", "-0x1.000001000000000000001", 0xBF800001),
        # The same at the smallest number, and at the edge of infinity.
        ("f32", "0x1p-150", 0),
        ("f32", "0x1.00000000000000000001p-150", 1),
        ("f32", "0x1.ffffff0p127", 0x7F800000),
        ("f32", "0x1.fffffeffffffffffffffffp127", 0x7F7FFFFF),
        ("f32", "1e999", 0x7F800000),
        ("pointer", "0x1000", 0x1000),
    ],
)
def test_text_becomes_the_nearest_pattern(type_name: str, text: str, pattern: int) -> None:
    assert hex(parse(VALUE_TYPES[type_name], text, "x")) == hex(pattern)


@pytest.mark.parametrize(
    ("type_name", "text"),
    [
        ("i64", ""),
        ("i64", "1.0"),
        ("i64", "0x"),
        ("i64", "1__0"),
        ("i64", "_1"),
        ("i64", "- 1"),
        ("i64", "\u0661"),  # a digit, for Python's int()
        ("i64", "0b"),
        ("i64", "0b2"),
        ("i64", "0o8"),
        ("i64", "0b1__0"),
        ("f64", "0b1"),
        ("f64", "0x"),
        ("f64", "0x."),
        ("f64", "."),
        ("f64", "1e"),
        ("f64", "nan:"),
        ("f64", "nan:1"),
        ("f64", "nan:0x0"),
        ("f64", "nan:0x10000000000000"),
        ("f32", "nan:0x800000"),
        ("f64", "nan:arithmetic"),
        ("f64", "\u0661"),
        ("f64", "one"),
    ],
)
def test_other_text_is_refused_with_the_argument_s_name(type_name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^ceil: x") as caught:
        parse(VALUE_TYPES[type_name], text, "ceil: x")
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "18446744073709551616",
        "-9223372036854775809",
        "0x1" + 16 * "0",
        5000 * "9",
        "0b1" + 64 * "0",
        "0b" + 5000 * "1",
        "0o2" + 21 * "0",
        "0o" + 5000 * "7",
    ],
)
def test_an_integer_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(OverflowError, match="x must"):
        parse(I64, text, "x")


@given(st.integers(0, 2**64 - 1))
@example(0x7FF0000000000001)
@example(0xFFF8000000000000)
@example(0x8000000000000000)
@example(1)
def test_every_64_bit_pattern_survives_its_text(pattern: int) -> None:
    for value_type in (F64, I64, U64, VALUE_TYPES["pointer"]):
        assert parse(value_type, format_pattern(value_type, pattern), "x") == pattern
        assert int(format_bits(value_type, pattern), 16) == pattern


@given(st.integers(0, 2**32 - 1))
@example(0x7F800001)
@example(0xFFC00000)
@example(0x80000000)
@example(0x7F7FFFFF)
def test_every_f32_pattern_survives_its_text(pattern: int) -> None:
    text = format_pattern(F32, pattern)
    assert parse(F32, text, "x") == pattern
    if pattern & 0x7F800000 != 0x7F800000:  # nine digits tell any two f32 apart
        assert len(Decimal(text).normalize().as_tuple().digits) <= 9
    assert describe(F32, pattern) == {"type": "f32", "bits": f"0x{pattern:08x}", "text": text}


def _f32(pattern: int) -> Fraction:
    return Fraction(struct.unpack("<f", struct.pack("<I", pattern))[0])


@given(st.integers(0, 0x7F7FFFFE), st.integers(-3, 3), st.integers(60, 300))
def test_an_f32_is_rounded_once(pattern: int, side: int, distance: int) -> None:
    """Beside a tie, closer than an f64 can tell, the result is the neighbour on that side."""
    below, above = _f32(pattern), _f32(pattern + 1)
    tie = (below + above) / 2
    exact = tie + side * (above - below) / 2**distance
    expected = pattern + (side > 0) if side else pattern + (pattern & 1)
    # Every such number has an exact hexadecimal text: enough digits, and a power of two.
    scale = 149 + 1 + 300
    text = f"0x{int(exact * 2**scale):x}p-{scale}"
    assert parse(F32, text, "x") == expected
    assert parse(F32, "-" + text, "x") == expected | 0x80000000
