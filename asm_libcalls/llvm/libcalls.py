"""The second table: LLVM's libcalls, each declared once, under compiler-rt's names.

A row has the same fields as in the first table (``asm_libcalls/libcalls.py``). Its instruction is
the LLVM instruction or intrinsic that is lowered to the libcall.

A ``pointer`` is where a libcall stores a second result.

Source: compiler-rt of LLVM 22, lib/builtins (names, parameters, results out of range); LLVM
language reference (instructions and intrinsics).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls.libcalls import Declaration
from asm_libcalls.traps import IntegerDivisionByZero

if TYPE_CHECKING:
    from typing import Any, ClassVar

SYMBOL_PREFIX = "__"


class LlvmDeclaration(Declaration):
    """One row of the second table."""

    __slots__ = ()

    prefix: ClassVar[str] = SYMBOL_PREFIX
    package: ClassVar[str] = "asm_libcalls.llvm"


_ZERO = (IntegerDivisionByZero,)
_TWO, _THREE = "dividend divisor", "dividend divisor remainder"
_PRODUCT = "Product modulo 2**{}; 1 is stored in an int if it overflowed, else 0."
_MODULO = "the count is taken modulo 128."
_NEAREST = "to nearest, ties to even."
_LLVM_TYPES = {"df": ("f64", "double"), "sf": ("f32", "float"), "hf": ("f16", "half")}

# By family: name, signature, parameters, instruction, description, and exceptions.
_ROWS: dict[str, list[tuple[Any, ...]]] = {
    "division": [
        ("divti3", "(i128, i128) -> i128", _TWO, "sdiv i128",
         "Signed quotient, truncated towards zero; MIN / -1 is MIN.", _ZERO),
        ("modti3", "(i128, i128) -> i128", _TWO, "srem i128",
         "Signed remainder, with the sign of the dividend.", _ZERO),
        ("udivti3", "(u128, u128) -> u128", _TWO, "udiv i128",
         "Unsigned quotient, truncated.", _ZERO),
        ("umodti3", "(u128, u128) -> u128", _TWO, "urem i128", "Unsigned remainder.", _ZERO),
        ("udivmodti4", "(u128, u128, pointer) -> u128", _THREE, "udiv, urem i128",
         "Unsigned quotient; the remainder is stored, unless its pointer is null.", _ZERO),
    ],
    "multiplication": [
        ("multi3", "(i128, i128) -> i128", "a b", "mul i128", "Product modulo 2**128."),
        *(
            (f"mul{letter}4", f"({t}, {t}, pointer) -> {t}", "a b overflow",
             f"llvm.smul.with.overflow.{t}", _PRODUCT.format(t[1:]))
            for letter, t in (("oti", "i128"), ("odi", "i64"), ("osi", "i32"))
        ),
    ],
    "shifts": [
        ("ashlti3", "(i128, i32) -> i128", "x count", "shl i128", f"Shift left; {_MODULO}"),
        ("lshrti3", "(u128, i32) -> u128", "x count", "lshr i128",
         f"Shift right, filling with zeros; {_MODULO}"),
        ("ashrti3", "(i128, i32) -> i128", "x count", "ashr i128",
         f"Shift right, copying the sign; {_MODULO}"),
    ],
    "conversions": [
        row
        for letters, (t, llvm) in _LLVM_TYPES.items()
        for row in (
            (f"fix{letters}ti", f"({t}) -> i128", "x", f"fptosi {llvm} to i128",
             f"Convert an {t} to a signed integer, truncated towards zero."),
            (f"fixuns{letters}ti", f"({t}) -> u128", "x", f"fptoui {llvm} to i128",
             f"Convert an {t} to an unsigned integer, truncated towards zero; below 0 it is 0."),
            (f"floatti{letters}", f"(i128) -> {t}", "x", f"sitofp i128 to {llvm}",
             f"Convert a signed integer to {t}, {_NEAREST}"),
            (f"floatunti{letters}", f"(u128) -> {t}", "x", f"uitofp i128 to {llvm}",
             f"Convert an unsigned integer to {t}, {_NEAREST}"),
        )
    ],
    "half_precision": [
        ("truncsfhf2", "(f32) -> f16", "x", "fptrunc float to half",
         f"Convert an f32 to f16, {_NEAREST}"),
        ("truncdfhf2", "(f64) -> f16", "x", "fptrunc double to half",
         f"Convert an f64 to f16, {_NEAREST}"),
        ("extendhfsf2", "(f16) -> f32", "x", "fpext half to float",
         "Convert an f16 to f32, which is exact."),
        ("gnu_f2h_ieee", "(f32) -> u32", "x", "llvm.convert.to.fp16",
         "Convert an f32 to f16, to nearest, ties to even; its bits are returned as an integer."),
        ("gnu_h2f_ieee", "(u32) -> f32", "x", "llvm.convert.from.fp16",
         "Convert the f16 whose bits are the low 16 of an integer to f32, which is exact."),
        ("truncsfbf2", "(f32) -> bf16", "x", "fptrunc float to bfloat",
         f"Convert an f32 to bf16, {_NEAREST}"),
        ("truncdfbf2", "(f64) -> bf16", "x", "fptrunc double to bfloat",
         f"Convert an f64 to bf16, {_NEAREST}"),
        ("extendbfsf2", "(bf16) -> f32", "x", "fpext bfloat to float",
         "Convert a bf16 to f32, which is exact."),
    ],
    "powi": [
        (f"powi{letters}2", f"({t}, i32) -> {t}", "x exponent", f"llvm.powi.{t}.i32",
         f"Raise an {t} to a power by squaring, each step to nearest.")
        for letters, t in (("sf", "f32"), ("df", "f64"))
    ],
}  # fmt: skip

DECLARATIONS: dict[str, LlvmDeclaration] = {
    row[0]: LlvmDeclaration(family, *row) for family, rows in _ROWS.items() for row in rows
}
"""The 34 rows by name, in the table's order."""
