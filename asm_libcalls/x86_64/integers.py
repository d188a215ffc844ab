"""64-bit shifts, division and remainder.

``idiv`` faults where Wasm traps (a zero divisor, ``MIN / -1``) and also where Wasm does not
(``MIN % -1``), so the divisors 0 and -1 are tested first. A trap jumps to
``asm_libcalls_raise_trap``, which never returns.

On CPUs whose 64-bit division is slow for every operand (``SLOW_DIVIDE_64`` of ``cpu.py``), operands
below 2**32 take a 32-bit division.

Source: Intel SDM volume 2, IDIV, DIV, SHL, SHLX; WebAssembly 2.0, 4.3.2.
"""

from __future__ import annotations

from functools import partial

from asm_libcalls.traps import IntegerDivisionByZero, IntegerOverflow
from asm_libcalls.x86_64.cpu import SLOW_DIVIDE_64
from asm_libcalls.x86_64.trampolines import RAISE_TRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.traps import Trap


GUARDS = {
    "i64_sdiv": "quotient_fits",
    "i64_srem": "divisor_not_zero",
    "i64_udiv": "divisor_not_zero",
    "i64_urem": "divisor_not_zero",
}
"""For each libcall that may trap, the stencil of ``function_stencils.py`` that tests for it."""


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
        body = partial(_shift_bmi2, vex) if bmi2 else partial(_shift, legacy)
        yield function(name, "(i64, i64) -> i64", body, ("bmi2",) if bmi2 else ())
    short_path = SLOW_DIVIDE_64 in features
    for name, divide, want_remainder in (
        ("i64_sdiv", _signed, False),
        ("i64_srem", _signed, True),
        ("i64_udiv", _unsigned, False),
        ("i64_urem", _unsigned, True),
    ):
        yield function(name, "(i64, i64) -> i64", partial(divide, short_path, want_remainder))


def _load(first: Any, second: Any) -> tuple[Any, Any]:
    from peachpy.x86_64 import LOAD, GeneralPurposeRegister64

    reg_first, reg_second = GeneralPurposeRegister64(), GeneralPurposeRegister64()
    LOAD.ARGUMENT(reg_first, first)
    LOAD.ARGUMENT(reg_second, second)
    return reg_first, reg_second


def _shift(instruction: Any, x: Any, count: Any) -> None:
    from peachpy.x86_64 import MOV, RETURN, cl, ecx, rax

    reg_x, reg_count = _load(x, count)
    MOV(ecx, reg_count.as_dword)
    MOV(rax, reg_x)
    instruction(rax, cl)  # the CPU takes the count modulo 64, as Wasm does
    RETURN(rax)


def _shift_bmi2(instruction: Any, x: Any, count: Any) -> None:
    from peachpy.x86_64 import RETURN, rax

    reg_x, reg_count = _load(x, count)
    instruction(rax, reg_x, reg_count)
    RETURN(rax)


def _trap(trap: type[Trap]) -> None:
    from peachpy.x86_64 import MOV, edi

    from asm_libcalls.x86_64.assembler.instructions import TAIL_JUMP

    MOV(edi, int(trap().code))
    TAIL_JUMP(RAISE_TRAP)


def _jump_if_32_bits(reg_dividend: Any, reg_divisor: Any, short: Any) -> None:
    """Go to `short` if both operands are below 2**32, so that a 32-bit division suffices."""
    from peachpy.x86_64 import JZ, MOV, OR, SHR, rdx

    MOV(rdx, reg_dividend)
    OR(rdx, reg_divisor)
    SHR(rdx, 32)
    JZ(short)


def _divide_32_bits(reg_divisor: Any, want_remainder: bool) -> None:
    """Divide eax, and return; 32-bit results are zero-extended. edx is 0 at `short`."""
    from peachpy.x86_64 import DIV, RETURN, rax, rdx

    DIV(reg_divisor.as_dword)
    RETURN(rdx if want_remainder else rax)


def _signed(short_path: bool, want_remainder: bool, dividend: Any, divisor: Any) -> None:
    from peachpy.x86_64 import (
        CMP, CQO, IDIV, JBE, JO, JZ, LABEL, LEA, MOV, NEG, RETURN, TEST, XOR, Label, eax, rax, rdx,
    )  # fmt: skip

    reg_dividend, reg_divisor = _load(dividend, divisor)
    special, by_zero, overflow = Label("special"), Label("by_zero"), Label("overflow")
    short = Label("short")
    MOV(rax, reg_dividend)
    LEA(rdx, [reg_divisor + 1])
    CMP(rdx, 1)
    JBE(special)  # the divisor is -1 or 0
    if short_path:
        _jump_if_32_bits(reg_dividend, reg_divisor, short)
    CQO()
    IDIV(reg_divisor)
    RETURN(rdx if want_remainder else rax)
    if short_path:
        LABEL(short)
        _divide_32_bits(reg_divisor, want_remainder)
    LABEL(special)
    TEST(reg_divisor, reg_divisor)
    JZ(by_zero)
    if want_remainder:
        XOR(eax, eax)  # every integer is a multiple of -1
    else:
        NEG(rax)  # overflows for MIN alone
        JO(overflow)
    RETURN(rax)
    LABEL(by_zero)
    _trap(IntegerDivisionByZero)
    if not want_remainder:
        LABEL(overflow)
        _trap(IntegerOverflow)


def _unsigned(short_path: bool, want_remainder: bool, dividend: Any, divisor: Any) -> None:
    from peachpy.x86_64 import (
        DIV, JZ, LABEL, MOV, RETURN, TEST, XOR, Label, edx, rax, rdx,
    )  # fmt: skip

    reg_dividend, reg_divisor = _load(dividend, divisor)
    by_zero, short = Label("by_zero"), Label("short")
    MOV(rax, reg_dividend)
    TEST(reg_divisor, reg_divisor)
    JZ(by_zero)
    if short_path:
        _jump_if_32_bits(reg_dividend, reg_divisor, short)
    XOR(edx, edx)
    DIV(reg_divisor)
    RETURN(rdx if want_remainder else rax)
    if short_path:
        LABEL(short)
        _divide_32_bits(reg_divisor, want_remainder)
    LABEL(by_zero)
    _trap(IntegerDivisionByZero)
