"""64-bit shifts, division and remainder.

``idiv`` faults where Wasm traps (a zero divisor, ``MIN / -1``) and also where Wasm does not
(``MIN % -1``), so the divisors 0 and -1 are looked at first. A trap leaves through
``asm_libcalls_raise_trap``, which never returns.

Source: Intel SDM volume 2, IDIV, DIV, SHL, SHLX; WebAssembly 2.0, 4.3.2.
"""

from __future__ import annotations

from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.x86_64.image import Routine

__all__ = ["REQUIRES", "routines"]

REQUIRES: frozenset[str] = frozenset()
"""CPU features without which the fallback serves this family."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from peachpy.x86_64 import SAR, SARX, SHL, SHLX, SHR, SHRX

    from asm_libcalls.x86_64.assembler import function

    bmi2 = "bmi2" in features
    for name, legacy, vex in (
        ("i64_ishl", SHL, SHLX),
        ("i64_sshr", SAR, SARX),
        ("i64_ushr", SHR, SHRX),
    ):
        body = _shift_bmi2(vex) if bmi2 else _shift(legacy)
        yield function(name, "(i64, i64) -> i64", body, ("bmi2",) if bmi2 else ())
    yield function("i64_sdiv", "(i64, i64) -> i64", _sdiv)
    yield function("i64_srem", "(i64, i64) -> i64", _srem)
    yield function("i64_udiv", "(i64, i64) -> i64", _udiv)
    yield function("i64_urem", "(i64, i64) -> i64", _urem)


def _load(first: Any, second: Any) -> tuple[Any, Any]:
    from peachpy.x86_64 import LOAD, GeneralPurposeRegister64

    reg_first, reg_second = GeneralPurposeRegister64(), GeneralPurposeRegister64()
    LOAD.ARGUMENT(reg_first, first)
    LOAD.ARGUMENT(reg_second, second)
    return reg_first, reg_second


def _shift(instruction: Any) -> Callable[[Any, Any], None]:
    from peachpy.x86_64 import MOV, RETURN, cl, rcx

    def body(x: Any, count: Any) -> None:
        reg_x, reg_count = _load(x, count)
        MOV(rcx, reg_count)
        instruction(reg_x, cl)  # the CPU takes the count modulo 64, as Wasm does
        RETURN(reg_x)

    return body


def _shift_bmi2(instruction: Any) -> Callable[[Any, Any], None]:
    from peachpy.x86_64 import RETURN, rax

    def body(x: Any, count: Any) -> None:
        reg_x, reg_count = _load(x, count)
        instruction(rax, reg_x, reg_count)
        RETURN(rax)

    return body


def _trap(code: TrapCode) -> None:
    from peachpy.x86_64 import MOV, edi

    from asm_libcalls.x86_64.instructions import TAIL_JUMP

    MOV(edi, int(code))
    TAIL_JUMP("asm_libcalls_raise_trap")


def _sdiv(dividend: Any, divisor: Any) -> None:
    from peachpy.x86_64 import CMP, CQO, IDIV, JE, JO, JZ, LABEL, MOV, NEG, RETURN, TEST, Label, rax

    reg_dividend, reg_divisor = _load(dividend, divisor)
    minus_one, by_zero, overflow = Label("minus_one"), Label("by_zero"), Label("overflow")
    MOV(rax, reg_dividend)
    TEST(reg_divisor, reg_divisor)
    JZ(by_zero)
    CMP(reg_divisor, -1)
    JE(minus_one)
    CQO()
    IDIV(reg_divisor)
    RETURN(rax)
    LABEL(minus_one)
    NEG(rax)  # overflows for MIN alone
    JO(overflow)
    RETURN(rax)
    LABEL(by_zero)
    _trap(TrapCode.INTEGER_DIVISION_BY_ZERO)
    LABEL(overflow)
    _trap(TrapCode.INTEGER_OVERFLOW)


def _srem(dividend: Any, divisor: Any) -> None:
    from peachpy.x86_64 import (
        CMP, CQO, IDIV, JE, JZ, LABEL, MOV, RETURN, TEST, XOR, Label, eax, rax, rdx,
    )  # fmt: skip

    reg_dividend, reg_divisor = _load(dividend, divisor)
    minus_one, by_zero = Label("minus_one"), Label("by_zero")
    MOV(rax, reg_dividend)
    TEST(reg_divisor, reg_divisor)
    JZ(by_zero)
    CMP(reg_divisor, -1)
    JE(minus_one)
    CQO()
    IDIV(reg_divisor)
    RETURN(rdx)
    LABEL(minus_one)
    XOR(eax, eax)  # every integer is a multiple of -1
    RETURN(rax)
    LABEL(by_zero)
    _trap(TrapCode.INTEGER_DIVISION_BY_ZERO)


def _unsigned(dividend: Any, divisor: Any, want_remainder: bool) -> None:
    from peachpy.x86_64 import (
        DIV, JZ, LABEL, MOV, RETURN, TEST, XOR, Label, edx, rax, rdx,
    )  # fmt: skip

    reg_dividend, reg_divisor = _load(dividend, divisor)
    by_zero = Label("by_zero")
    MOV(rax, reg_dividend)
    TEST(reg_divisor, reg_divisor)
    JZ(by_zero)
    XOR(edx, edx)
    DIV(reg_divisor)
    RETURN(rdx if want_remainder else rax)
    LABEL(by_zero)
    _trap(TrapCode.INTEGER_DIVISION_BY_ZERO)


def _udiv(dividend: Any, divisor: Any) -> None:
    _unsigned(dividend, divisor, want_remainder=False)


def _urem(dividend: Any, divisor: Any) -> None:
    _unsigned(dividend, divisor, want_remainder=True)
