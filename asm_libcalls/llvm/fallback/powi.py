"""A float to the power of an integer, on bit patterns, each step rounded to nearest.

The power is computed by squaring, from the exponent's lowest bit. A negative exponent divides 1 by
the result at the end.

Source: compiler-rt of LLVM 22, powisf2.c, powidf2.c.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.llvm.fallback.binary_floats import F32, F64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.llvm.fallback.binary_floats import Format


def _multiply(format_: Format, x: int, y: int) -> int:
    """Multiply two powers of one number, so never an infinity by a zero."""
    for each in (x, y):
        if format_.is_nan(each):
            return each | format_.quiet
    sign = (x ^ y) & format_.sign
    if format_.infinity in (format_.magnitude(x), format_.magnitude(y)):
        return sign | format_.infinity
    (a, i), (b, j) = format_.split(x), format_.split(y)
    return sign | format_.round(a * b, i + j)


def _reciprocal(format_: Format, x: int) -> int:
    if format_.is_nan(x):
        return x | format_.quiet
    sign, magnitude = x & format_.sign, format_.magnitude(x)
    if magnitude == format_.infinity:
        return sign
    if magnitude == 0:
        return sign | format_.infinity
    significand, exponent = format_.split(x)
    return sign | format_.round(1, -exponent, significand)


def _power(format_: Format, x: int, exponent: int) -> int:
    is_negative = exponent >> 31
    rest = (1 << 32) - exponent if is_negative else exponent
    result = format_.bias << format_.fraction
    while True:
        if rest & 1:
            result = _multiply(format_, result, x)
        rest >>= 1
        if not rest:
            break
        x = _multiply(format_, x, x)
    return _reciprocal(format_, result) if is_negative else result


powisf2, powidf2 = partial(_power, F32), partial(_power, F64)
