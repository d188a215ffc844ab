"""128-bit integers from and to floats, on bit patterns.

A number of more than 128 bits, or a NaN, becomes the largest or the smallest integer, by its sign.
A signed result of 128 bits wraps around.

Source: compiler-rt of LLVM 22, fp_fixint_impl.inc, fp_fixuint_impl.inc, int_to_fp_impl.inc.
"""

from __future__ import annotations

from functools import partial

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


def _from_unsigned(format_: Format, integer: int) -> int:
    return format_.round(integer, 0)


fixdfti, fixunsdfti = partial(_to_signed, F64), partial(_to_unsigned, F64)
fixsfti, fixunssfti = partial(_to_signed, F32), partial(_to_unsigned, F32)
fixhfti, fixunshfti = partial(_to_signed, F16), partial(_to_unsigned, F16)
floattidf, floatuntidf = partial(_from_signed, F64), partial(_from_unsigned, F64)
floattisf, floatuntisf = partial(_from_signed, F32), partial(_from_unsigned, F32)
floattihf, floatuntihf = partial(_from_signed, F16), partial(_from_unsigned, F16)
