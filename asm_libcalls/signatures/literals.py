"""Converts between bit patterns and numbers in the syntax of WebAssembly's text format.

Examples are ``0x2a``, ``-1_000``, ``1.5e3``, ``0x1.8p3``, ``inf``, ``-nan:0x200000``.
:func:`parse` reads the output of :func:`format_pattern` back to the same bits, for every NaN too.

Source: WebAssembly 2.0, 6.3.1 (integers) and 6.3.2 (floating-point).
"""

from __future__ import annotations

import math
import re
import struct
from decimal import Decimal
from fractions import Fraction

from asm_libcalls.signatures.value_types import FRACTION_BITS, ValueType

_DIGITS, _HEX = r"[0-9](?:_?[0-9])*", r"[0-9a-f](?:_?[0-9a-f])*"
_BINARY, _OCTAL = r"[01](?:_?[01])*", r"[0-7](?:_?[0-7])*"
_INTEGER = re.compile(
    rf"([+-]?)(?:0x({_HEX})|0b({_BINARY})|0o({_OCTAL})|({_DIGITS}))", re.IGNORECASE
)
_DECIMAL = re.compile(
    rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?", re.IGNORECASE
)
_HEX_FLOAT = re.compile(rf"([+-]?)0x({_HEX})?(?:\.({_HEX})?)?(?:p([+-]?{_DIGITS}))?", re.IGNORECASE)
_NAN = re.compile(rf"([+-]?)nan(?::(canonical|0x{_HEX}))?", re.IGNORECASE)
_INFINITY = re.compile(r"([+-]?)inf(?:inity)?", re.IGNORECASE)


def parse(value_type: ValueType, text: str, where: str) -> int:
    """Return the bit pattern of a number's text, in either case, with ``_`` allowed between digits.

    Integers and pointers take ``42``, ``-1``, ``0xff``, and ``0b11`` and ``0o17``, which
    WebAssembly lacks and Python has. Floats take ``42``, ``-1``, ``0xff``, ``1.5``, ``0x1.8p3``,
    ``inf``, ``nan`` (the canonical one) and ``nan:0x`` with a payload of the type's fraction. A
    float is rounded once, to nearest, ties to even.

    Raise ValueError for any other text, and OverflowError for an integer outside both the signed
    and the unsigned range of the type. `where` names the argument.
    """
    text = text.strip()
    if value_type.kind == "float":
        return _parse_float(value_type, text, where)
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{where} must be an integer ({value_type.name}) like 42, -1 or 0xff, got {text!r}"
        )
    sign, *by_base = match.groups()
    written, base = next(
        (digits, base) for digits, base in zip(by_base, (16, 2, 8, 10), strict=True) if digits
    )
    digits = written.replace("_", "").lstrip("0") or "0"
    # 2**128 has 129 binary and 39 decimal digits; Python refuses to read thousands of them.
    if len(digits) > (129 if base == 2 else 43 if base == 8 else 39):
        raise OverflowError(f"{where} must fit {value_type.name}, got {len(digits)} digits")
    magnitude = int(digits, base)
    return value_type.to_bits(-magnitude if sign == "-" else magnitude, where)


def _parse_float(value_type: ValueType, text: str, where: str) -> int:
    fraction_bits = FRACTION_BITS[value_type.name]
    sign_bit = 1 << (value_type.bits - 1)
    infinity = sign_bit - (1 << fraction_bits)
    if match := _INFINITY.fullmatch(text):
        return infinity | (sign_bit if match[1] == "-" else 0)
    if match := _NAN.fullmatch(text):
        canonical = 1 << (fraction_bits - 1)
        payload = canonical
        if match[2] and match[2].lower() != "canonical":
            payload = int(match[2].replace("_", ""), 16)
        if not 0 < payload < 1 << fraction_bits:
            raise ValueError(
                f"{where}: the payload of an {value_type.name} NaN must be in "
                f"0x1 .. {(1 << fraction_bits) - 1:#x}, got {text!r}"
            )
        return infinity | payload | (sign_bit if match[1] == "-" else 0)
    plain = text.replace("_", "")
    if _DECIMAL.fullmatch(text):
        number = float(plain)
    elif (match := _HEX_FLOAT.fullmatch(text)) and (match[2] or match[3]):
        try:
            number = float.fromhex(plain)
        except OverflowError:
            number = -math.inf if text[0] == "-" else math.inf
    else:
        raise ValueError(
            f"{where} must be a number ({value_type.name}) like 1.5, 0x1.8p3, inf, nan or "
            f"nan:0x1, got {text!r}"
        )
    if value_type.bits < 64 and number and math.isfinite(number):
        number = _rounded_to_odd(number, _exact(plain))
    return value_type.to_bits(number, where)


def _exact(plain: str) -> Fraction:
    match = _HEX_FLOAT.fullmatch(plain)
    if match is None:
        return Fraction(Decimal(plain))
    sign, whole, fraction, exponent = match.groups(default="")
    magnitude = Fraction(int(whole + fraction, 16)) * Fraction(2) ** (
        int(exponent or "0") - 4 * len(fraction)
    )
    return -magnitude if sign == "-" else magnitude


def _rounded_to_odd(number: float, exact: Fraction) -> float:
    """Make the f64 nearest to `exact` safe to round again, to a narrower float.

    Rounding to nearest twice can round a tie of the narrower type the wrong way. An inexact f64
    whose last bit is odd is never such a tie, and is on the same side of each tie as `exact`.
    """
    error = exact - Fraction(number)
    (pattern,) = struct.unpack("<Q", struct.pack("<d", number))
    if not error or pattern & 1:
        return number
    return math.nextafter(number, math.inf if error > 0 else -math.inf)


def format_pattern(value_type: ValueType, pattern: int) -> str:
    """Return the shortest text that :func:`parse` reads back to this bit pattern."""
    if value_type.kind == "pointer":
        return f"{pattern:#x}"
    if value_type.kind != "float":
        return str(value_type.from_bits(pattern))
    fraction_bits = FRACTION_BITS[value_type.name]
    sign_bit = 1 << (value_type.bits - 1)
    magnitude = pattern & ~sign_bit
    payload = magnitude - (sign_bit - (1 << fraction_bits))
    if payload > 0:
        sign = "-" if pattern & sign_bit else ""
        return f"{sign}nan" + ("" if payload == 1 << (fraction_bits - 1) else f":{payload:#x}")
    number = value_type.from_bits(pattern)
    if value_type.bits < 64 and payload < 0:
        # Nine digits distinguish any two f32, five any two f16; usually fewer suffice.
        for precision in range(1, 10):
            shorter = float(f"{number:.{precision}g}")
            if value_type.to_bits(shorter, "") == pattern:
                return repr(shorter)
    return repr(number)


def format_bits(value_type: ValueType, pattern: int) -> str:
    """Return the bit pattern in hexadecimal, as wide as the type."""
    return f"0x{pattern:0{value_type.bits // 4}x}"


def describe(value_type: ValueType, pattern: int) -> dict[str, str]:
    """Return a value for JSON, as strings: JSON numbers hold neither NaN nor 64 bits."""
    return {
        "type": value_type.name,
        "bits": format_bits(value_type, pattern),
        "text": format_pattern(value_type, pattern),
    }
