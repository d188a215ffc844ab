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
    from typing import ClassVar

SYMBOL_PREFIX = "__"


class LlvmDeclaration(Declaration):
    """One row of the second table."""

    __slots__ = ()

    prefix: ClassVar[str] = SYMBOL_PREFIX
    package: ClassVar[str] = "asm_libcalls.llvm"


_ZERO = (IntegerDivisionByZero,)
_TYPES = {"df": "f64", "sf": "f32", "hf": "f16"}


def _division() -> list[LlvmDeclaration]:
    two, three = "dividend divisor", "dividend divisor remainder"
    return [
        LlvmDeclaration("division", *row)
        for row in (
            ("divti3", "(i128, i128) -> i128", two, "sdiv i128",
             "Signed quotient, truncated towards zero; MIN / -1 is MIN.", _ZERO),
            ("modti3", "(i128, i128) -> i128", two, "srem i128",
             "Signed remainder, with the sign of the dividend.", _ZERO),
            ("udivti3", "(u128, u128) -> u128", two, "udiv i128",
             "Unsigned quotient, truncated.", _ZERO),
            ("umodti3", "(u128, u128) -> u128", two, "urem i128", "Unsigned remainder.", _ZERO),
            ("udivmodti4", "(u128, u128, pointer) -> u128", three, "udiv, urem i128",
             "Unsigned quotient; the remainder is stored, unless its pointer is null.", _ZERO),
        )
    ]  # fmt: skip


def _multiplication() -> list[LlvmDeclaration]:
    product = "Product modulo 2**{}; 1 is stored in an int if it overflowed, else 0."
    return [
        LlvmDeclaration(
            "multiplication", "multi3", "(i128, i128) -> i128", "a b", "mul i128",
            "Product modulo 2**128.",
        ),
        *(
            LlvmDeclaration(
                "multiplication", f"mul{letter}4", f"({t}, {t}, pointer) -> {t}", "a b overflow",
                f"llvm.smul.with.overflow.{t}", product.format(t[1:]),
            )
            for letter, t in (("oti", "i128"), ("odi", "i64"), ("osi", "i32"))
        ),
    ]  # fmt: skip


def _shifts() -> list[LlvmDeclaration]:
    modulo = "the count is taken modulo 128."
    return [
        LlvmDeclaration("shifts", name, f"({t}, i32) -> {t}", "x count", instruction, doc)
        for name, t, instruction, doc in (
            ("ashlti3", "i128", "shl i128", f"Shift left; {modulo}"),
            ("lshrti3", "u128", "lshr i128", f"Shift right, filling with zeros; {modulo}"),
            ("ashrti3", "i128", "ashr i128", f"Shift right, copying the sign; {modulo}"),
        )
    ]


def _conversions() -> list[LlvmDeclaration]:
    rows = []
    for letters, t in _TYPES.items():
        llvm = {"f64": "double", "f32": "float", "f16": "half"}[t]
        rows += [
            LlvmDeclaration(
                "conversions", f"fix{letters}ti", f"({t}) -> i128", "x", f"fptosi {llvm} to i128",
                f"Convert an {t} to a signed integer, truncated towards zero.",
            ),
            LlvmDeclaration(
                "conversions", f"fixuns{letters}ti", f"({t}) -> u128", "x",
                f"fptoui {llvm} to i128",
                f"Convert an {t} to an unsigned integer, truncated towards zero; below 0 it is 0.",
            ),
            LlvmDeclaration(
                "conversions", f"floatti{letters}", f"(i128) -> {t}", "x",
                f"sitofp i128 to {llvm}",
                f"Convert a signed integer to {t}, to nearest, ties to even.",
            ),
            LlvmDeclaration(
                "conversions", f"floatunti{letters}", f"(u128) -> {t}", "x",
                f"uitofp i128 to {llvm}",
                f"Convert an unsigned integer to {t}, to nearest, ties to even.",
            ),
        ]  # fmt: skip
    return rows


def _half_precision() -> list[LlvmDeclaration]:
    nearest, exact = "to nearest, ties to even", "which is exact"
    return [
        LlvmDeclaration("half_precision", name, signature, "x", instruction, doc)
        for name, signature, instruction, doc in (
            ("truncsfhf2", "(f32) -> f16", "fptrunc float to half",
             f"Convert an f32 to f16, {nearest}."),
            ("truncdfhf2", "(f64) -> f16", "fptrunc double to half",
             f"Convert an f64 to f16, {nearest}."),
            ("extendhfsf2", "(f16) -> f32", "fpext half to float",
             f"Convert an f16 to f32, {exact}."),
            ("gnu_f2h_ieee", "(f32) -> u32", "llvm.convert.to.fp16",
             f"Convert an f32 to f16, {nearest}; its bits are returned as an integer."),
            ("gnu_h2f_ieee", "(u32) -> f32", "llvm.convert.from.fp16",
             f"Convert the f16 whose bits are the low 16 of an integer to f32, {exact}."),
            ("truncsfbf2", "(f32) -> bf16", "fptrunc float to bfloat",
             f"Convert an f32 to bf16, {nearest}."),
            ("truncdfbf2", "(f64) -> bf16", "fptrunc double to bfloat",
             f"Convert an f64 to bf16, {nearest}."),
            ("extendbfsf2", "(bf16) -> f32", "fpext bfloat to float",
             f"Convert a bf16 to f32, {exact}."),
        )
    ]  # fmt: skip


def _powi() -> list[LlvmDeclaration]:
    return [
        LlvmDeclaration(
            "powi", f"powi{letters}2", f"({t}, i32) -> {t}", "x exponent", f"llvm.powi.{t}.i32",
            f"Raise an {t} to a power by squaring, each step to nearest.",
        )
        for letters, t in (("sf", "f32"), ("df", "f64"))
    ]  # fmt: skip


DECLARATIONS: dict[str, LlvmDeclaration] = {
    row.name: row
    for family in (
        _division, _multiplication, _shifts, _conversions, _half_precision, _powi,
    )
    for row in family()
}  # fmt: skip
"""The 34 rows by name, in the table's order."""
