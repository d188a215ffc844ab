"""128-bit integers from and to floats, on bit patterns.

A number of more than 128 bits, or a NaN, becomes the largest or the smallest integer, by its sign.
A signed result of 128 bits wraps around.

Source: compiler-rt of LLVM 22, fp_fixint_impl.inc, fp_fixuint_impl.inc, int_to_fp_impl.inc.
"""

from __future__ import annotations

from asm_libcalls.llvm.fallback.binary_floats import F16, F32, F64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.llvm.fallback.binary_floats import Format

_MASK = (1 << 128) - 1
_SIGN = 1 << 127


def _magnitude(format_: Format, pattern: int) -> int:
    """Return the magnitude, truncated; a number of more than 128 bits for infinity and NaN."""
    if format_.magnitude(pattern) >= format_.infinity:
        return 1 << 128
    significand, exponent = format_.split(pattern)
    return significand << exponent if exponent >= 0 else significand >> -exponent


def _to_signed(format_: Format, pattern: int) -> int:
    magnitude, is_negative = _magnitude(format_, pattern), pattern & format_.sign
    if magnitude > _MASK:
        return _SIGN if is_negative else _SIGN - 1
    return (-magnitude if is_negative else magnitude) & _MASK


def _to_unsigned(format_: Format, pattern: int) -> int:
    return 0 if pattern & format_.sign else min(_magnitude(format_, pattern), _MASK)


def _from_signed(format_: Format, integer: int) -> int:
    if integer & _SIGN:
        return format_.sign | format_.round((1 << 128) - integer, 0)
    return format_.round(integer, 0)


def fixdfti(x: int) -> int:
    """Convert an f64 to a signed integer."""
    return _to_signed(F64, x)


def fixunsdfti(x: int) -> int:
    """Convert an f64 to an unsigned integer."""
    return _to_unsigned(F64, x)


def fixsfti(x: int) -> int:
    """Convert an f32 to a signed integer."""
    return _to_signed(F32, x)


def fixunssfti(x: int) -> int:
    """Convert an f32 to an unsigned integer."""
    return _to_unsigned(F32, x)


def fixhfti(x: int) -> int:
    """Convert an f16 to a signed integer."""
    return _to_signed(F16, x)


def fixunshfti(x: int) -> int:
    """Convert an f16 to an unsigned integer."""
    return _to_unsigned(F16, x)


def floattidf(x: int) -> int:
    """Convert a signed integer to f64."""
    return _from_signed(F64, x)


def floatuntidf(x: int) -> int:
    """Convert an unsigned integer to f64."""
    return F64.round(x, 0)


def floattisf(x: int) -> int:
    """Convert a signed integer to f32."""
    return _from_signed(F32, x)


def floatuntisf(x: int) -> int:
    """Convert an unsigned integer to f32."""
    return F32.round(x, 0)


def floattihf(x: int) -> int:
    """Convert a signed integer to f16."""
    return _from_signed(F16, x)


def floatuntihf(x: int) -> int:
    """Convert an unsigned integer to f16."""
    return F16.round(x, 0)
