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

from asm_libcalls.llvm.x86_64.vex import copying, updating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["routines"]

_ROUNDING_CONTROL, _EXCEPTIONS = 0x6000, 0x3F  # of MXCSR


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from asm_libcalls.x86_64.assembler import sequence

    yield sequence("__powisf2", partial(_powi, features, False))
    yield sequence("__powidf2", partial(_powi, features, True))


def _powi(features: frozenset[str], is_double: bool) -> None:
    from peachpy.x86_64 import (
        AND,
        JNE,
        LABEL,
        LDMXCSR,
        MOV,
        OR,
        RET,
        SHR,
        STMXCSR,
        Label,
        ecx,
        edx,
        rcx,
        xmm1,
        xmm2,
        xmm3,
        xmm4,
    )  # fmt: skip
    from peachpy.x86_64.registers import rsp

    suffix = "SD" if is_double else "SS"
    copy = copying(features, "MOVAPS")
    unusual = Label("unusual")
    if is_double:
        MOV(rcx, 1023 << 52)
        copying(features, "MOVQ")(xmm1, rcx)
        SHR(rcx, 1)  # 0.5 * 2**-511
        copying(features, "MOVQ")(xmm4, rcx)
    else:
        MOV(ecx, 127 << 23)
        copying(features, "MOVD")(xmm1, ecx)
        SHR(ecx, 1)  # 0.75 * 2**-63
        copying(features, "MOVD")(xmm4, ecx)
    copy(xmm2, xmm1)
    copy(xmm3, xmm1)
    updating(features, f"ADD{suffix}")(xmm2, xmm4)
    updating(features, f"SUB{suffix}")(xmm3, xmm4)
    copying(features, f"UCOMI{suffix}")(xmm2, xmm3)
    JNE(unusual)
    _multiply(features, suffix, "")
    RET()

    LABEL(unusual)
    # The 128 bytes below rsp may be used (System V ABI, 3.2.2: the red zone).
    saved, changed = -8, -4
    STMXCSR([rsp + saved])
    MOV(ecx, [rsp + saved])
    AND(ecx, ~_ROUNDING_CONTROL)
    MOV([rsp + changed], ecx)
    LDMXCSR([rsp + changed])
    _multiply(features, suffix, "unusual_")
    STMXCSR([rsp + changed])
    MOV(edx, [rsp + changed])
    AND(edx, _EXCEPTIONS)
    OR([rsp + saved], edx)
    LDMXCSR([rsp + saved])
    RET()


def _multiply(features: frozenset[str], suffix: str, prefix: str) -> None:
    """Emit: xmm0 = xmm0 to the power of edi. xmm1 is 1."""
    from peachpy.x86_64 import (
        CMOVS,
        JNC,
        JNS,
        JNZ,
        JZ,
        LABEL,
        MOV,
        NEG,
        SHR,
        TEST,
        Label,
        eax,
        edi,
        xmm0,
        xmm1,
        xmm2,
    )  # fmt: skip

    multiply, divide = updating(features, f"MUL{suffix}"), updating(features, f"DIV{suffix}")
    copy = copying(features, "MOVAPS")
    even, again, skip = Label(f"{prefix}even"), Label(f"{prefix}again"), Label(f"{prefix}skip")
    done, positive = Label(f"{prefix}done"), Label(f"{prefix}positive")
    MOV(eax, edi)
    NEG(eax)
    CMOVS(eax, edi)  # the magnitude; of MIN too, as an unsigned number
    copy(xmm2, xmm1)
    SHR(eax, 1)
    JNC(even)
    multiply(xmm1, xmm0)  # by 1, which makes a NaN quiet
    LABEL(even)
    TEST(eax, eax)
    JZ(done)
    LABEL(again)
    multiply(xmm0, xmm0)
    SHR(eax, 1)
    JNC(skip)
    multiply(xmm1, xmm0)
    LABEL(skip)
    JNZ(again)  # as the shift left it: multiplications set no flags
    LABEL(done)
    TEST(edi, edi)
    JNS(positive)
    divide(xmm2, xmm1)
    copy(xmm1, xmm2)
    LABEL(positive)
    copy(xmm0, xmm1)
