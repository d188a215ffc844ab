"""Types of the public names. Made by tools/make_stubs.py from the table: do not edit."""

# The parameters' names, the sentences and the order are the table's.
# ruff: noqa: RUF022

from typing import Any

from asm_libcalls.libcall import Libcall

LIBCALLS: dict[str, Libcall]

def symbols() -> dict[str, int]:
    """Return the C address of each libcall by its symbol, ``"__divti3"`` and so on."""

def divti3(dividend: int, divisor: int, /) -> int:
    """Signed quotient, truncated towards zero; MIN / -1 is MIN."""

def modti3(dividend: int, divisor: int, /) -> int:
    """Signed remainder, with the sign of the dividend."""

def udivti3(dividend: int, divisor: int, /) -> int:
    """Unsigned quotient, truncated."""

def umodti3(dividend: int, divisor: int, /) -> int:
    """Unsigned remainder."""

def udivmodti4(dividend: int, divisor: int, remainder: Any, /) -> int:
    """Unsigned quotient; the remainder is stored, unless its pointer is null."""

def multi3(a: int, b: int, /) -> int:
    """Product modulo 2**128."""

def muloti4(a: int, b: int, overflow: Any, /) -> int:
    """Product modulo 2**128; 1 is stored in an int if it overflowed, else 0."""

def mulodi4(a: int, b: int, overflow: Any, /) -> int:
    """Product modulo 2**64; 1 is stored in an int if it overflowed, else 0."""

def mulosi4(a: int, b: int, overflow: Any, /) -> int:
    """Product modulo 2**32; 1 is stored in an int if it overflowed, else 0."""

def ashlti3(x: int, count: int, /) -> int:
    """Shift left; the count is taken modulo 128."""

def lshrti3(x: int, count: int, /) -> int:
    """Shift right, filling with zeros; the count is taken modulo 128."""

def ashrti3(x: int, count: int, /) -> int:
    """Shift right, copying the sign; the count is taken modulo 128."""

def fixdfti(x: float, /) -> int:
    """Convert an f64 to a signed integer, truncated towards zero."""

def fixunsdfti(x: float, /) -> int:
    """Convert an f64 to an unsigned integer, truncated towards zero; below 0 it is 0."""

def floattidf(x: int, /) -> float:
    """Convert a signed integer to f64, to nearest, ties to even."""

def floatuntidf(x: int, /) -> float:
    """Convert an unsigned integer to f64, to nearest, ties to even."""

def fixsfti(x: float, /) -> int:
    """Convert an f32 to a signed integer, truncated towards zero."""

def fixunssfti(x: float, /) -> int:
    """Convert an f32 to an unsigned integer, truncated towards zero; below 0 it is 0."""

def floattisf(x: int, /) -> float:
    """Convert a signed integer to f32, to nearest, ties to even."""

def floatuntisf(x: int, /) -> float:
    """Convert an unsigned integer to f32, to nearest, ties to even."""

def fixhfti(x: float, /) -> int:
    """Convert an f16 to a signed integer, truncated towards zero."""

def fixunshfti(x: float, /) -> int:
    """Convert an f16 to an unsigned integer, truncated towards zero; below 0 it is 0."""

def floattihf(x: int, /) -> float:
    """Convert a signed integer to f16, to nearest, ties to even."""

def floatuntihf(x: int, /) -> float:
    """Convert an unsigned integer to f16, to nearest, ties to even."""

def truncsfhf2(x: float, /) -> float:
    """Convert an f32 to f16, to nearest, ties to even."""

def truncdfhf2(x: float, /) -> float:
    """Convert an f64 to f16, to nearest, ties to even."""

def extendhfsf2(x: float, /) -> float:
    """Convert an f16 to f32, which is exact."""

def gnu_f2h_ieee(x: float, /) -> int:
    """Convert an f32 to f16, to nearest, ties to even; its bits are returned as an integer."""

def gnu_h2f_ieee(x: int, /) -> float:
    """Convert the f16 whose bits are the low 16 of an integer to f32, which is exact."""

def truncsfbf2(x: float, /) -> float:
    """Convert an f32 to bf16, to nearest, ties to even."""

def truncdfbf2(x: float, /) -> float:
    """Convert an f64 to bf16, to nearest, ties to even."""

def extendbfsf2(x: float, /) -> float:
    """Convert a bf16 to f32, which is exact."""

def powisf2(x: float, exponent: int, /) -> float:
    """Raise an f32 to a power by squaring, each step to nearest."""

def powidf2(x: float, exponent: int, /) -> float:
    """Raise an f64 to a power by squaring, each step to nearest."""

__all__ = [
    "LIBCALLS", "symbols", "divti3", "modti3", "udivti3", "umodti3", "udivmodti4", "multi3",
    "muloti4", "mulodi4", "mulosi4", "ashlti3", "lshrti3", "ashrti3", "fixdfti", "fixunsdfti",
    "floattidf", "floatuntidf", "fixsfti", "fixunssfti", "floattisf", "floatuntisf", "fixhfti",
    "fixunshfti", "floattihf", "floatuntihf", "truncsfhf2", "truncdfhf2", "extendhfsf2",
    "gnu_f2h_ieee", "gnu_h2f_ieee", "truncsfbf2", "truncdfbf2", "extendbfsf2", "powisf2", "powidf2",
]  # fmt: skip
