"""A float to the power of an integer: ``llvm.powi``.

The power is computed by squaring, from the exponent's lowest bit, as in compiler-rt; a negative
exponent divides 1 by the result at the end. Each step rounds to nearest, so any other rounding mode
in MXCSR is changed for the duration. Reading MXCSR takes longer than a multiplication. So the mode
is tested by adding a tiny number to 1, and subtracting it: both sums are 1 only if rounding is to
nearest.

Source: Intel SDM volume 1, 4.8.4 (rounding), 10.2.3 (MXCSR).
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    AND, CMOVS, JC, JMP, JNC, JNE, JNZ, JS, JZ, LABEL, LDMXCSR, MOV, NEG, OR, RET, SHR, STMXCSR,
    TEST, Label, eax, ecx, edi, edx, rcx, xmm0, xmm1, xmm2, xmm3, xmm4,
)  # fmt: skip
from peachpy.x86_64.registers import rsp

from asm_libcalls.llvm.x86_64.vex import combining, copying, updating
from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

_ROUNDING_CONTROL, _EXCEPTIONS = 0x6000, 0x3F  # of MXCSR


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    yield sequence("__powisf2", partial(_powi, features, False))
    yield sequence("__powidf2", partial(_powi, features, True))


def _powi(features: frozenset[str], is_double: bool) -> None:
    suffix = "SD" if is_double else "SS"
    unusual = Label("unusual")
    _load_one(features, suffix, xmm1)
    SHR(rcx, 1)  # 0.75 * 2**-511, or 0.75 * 2**-63
    if is_double:
        copying(features, "MOVQ")(xmm4, rcx)
    else:
        copying(features, "MOVD")(xmm4, ecx)
    combining(features, f"ADD{suffix}")(xmm2, xmm1, xmm4)
    combining(features, f"SUB{suffix}")(xmm3, xmm1, xmm4)
    copying(features, f"UCOMI{suffix}")(xmm2, xmm3)
    JNE(unusual)
    _multiply(features, suffix, RET)

    LABEL(unusual)
    # The 128 bytes below rsp may be used (System V ABI, 3.2.2: the red zone).
    saved, changed = -8, -4
    STMXCSR([rsp + saved])
    MOV(ecx, [rsp + saved])
    AND(ecx, ~_ROUNDING_CONTROL)
    MOV([rsp + changed], ecx)
    LDMXCSR([rsp + changed])

    def leave() -> None:
        STMXCSR([rsp + changed])
        MOV(edx, [rsp + changed])
        AND(edx, _EXCEPTIONS)
        OR([rsp + saved], edx)
        LDMXCSR([rsp + saved])
        RET()

    _multiply(features, suffix, leave, "unusual_")


def _multiply(
    features: frozenset[str], suffix: str, leave: Callable[[], object], prefix: str = ""
) -> None:
    """Emit: xmm0 = xmm0 to the power of edi, and leave. xmm1 is 1."""
    multiply, copy = updating(features, f"MUL{suffix}"), copying(features, "MOVAPS")
    odd, even, again, skip, done, negative = (
        Label(prefix + name) for name in ("odd", "even", "again", "skip", "done", "negative")
    )
    MOV(eax, edi)
    NEG(eax)
    CMOVS(eax, edi)  # the magnitude; of MIN too, as an unsigned number
    SHR(eax, 1)  # multiplications keep these flags
    JC(odd)
    LABEL(even)
    JZ(done)
    LABEL(again)
    multiply(xmm0, xmm0)
    SHR(eax, 1)
    JNC(skip)
    multiply(xmm1, xmm0)
    LABEL(skip)
    JNZ(again)
    LABEL(done)
    copy(xmm0, xmm1)
    TEST(edi, edi)
    JS(negative)
    leave()

    LABEL(negative)
    _load_one(features, suffix, xmm2)
    combining(features, f"DIV{suffix}")(xmm0, xmm2, xmm1)
    leave()

    LABEL(odd)
    multiply(xmm1, xmm0)  # by 1, which makes a NaN quiet
    JMP(even)


def _load_one(features: frozenset[str], suffix: str, register: Any) -> None:
    """Emit: an xmm register = 1, and rcx = its pattern."""
    if suffix == "SD":
        MOV(rcx, 1023 << 52)
        copying(features, "MOVQ")(register, rcx)
    else:
        MOV(ecx, 127 << 23)
        copying(features, "MOVD")(register, ecx)
