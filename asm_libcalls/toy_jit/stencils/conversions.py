"""Conversions between integers and floats, and the traps of those that do not fit."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import trap
from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["conversions"]

_TWO_TO_63 = {"f32": 0x5F000000, "f64": 0x43E0000000000000}
_MINUS_TWO_TO_63 = {"f32": 0xDF000000, "f64": 0xC3E0000000000000}


def conversions() -> Iterator[tuple[str, Body]]:
    """Yield the stencils of conversions, named as the instructions."""
    import peachpy.x86_64 as x

    for source, to_integer in (("f32", x.CVTTSS2SI), ("f64", x.CVTTSD2SI)):
        for bits in (32, 64):
            for sign in ("s", "u"):
                yield f"i{bits}.trunc_{source}_{sign}", _truncate(source, to_integer, bits, sign)
                yield (
                    f"i{bits}.trunc_sat_{source}_{sign}",
                    _saturate(source, to_integer, bits, sign),
                )
    for target, to_float in (("f32", x.CVTSI2SS), ("f64", x.CVTSI2SD)):
        # The conversion keeps the rest of xmm0: clear it, or wait for whatever was there.
        yield f"{target}.convert_i32_s", _convert(to_float, x.eax)
        yield f"{target}.convert_i32_u", _convert(to_float, x.rax)
        yield f"{target}.convert_i64_s", _convert(to_float, x.rax)
        yield f"{target}.convert_i64_u", _convert_u64(target, to_float)
    yield "f32.demote_f64", lambda hole: x.CVTSD2SS(x.xmm0, x.xmm0)
    yield "f64.promote_f32", lambda hole: x.CVTSS2SD(x.xmm0, x.xmm0)
    yield "i32.reinterpret_f32", lambda hole: x.MOVD(x.eax, x.xmm0)


def _convert(instruction: Any, register: Any) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        x.XORPS(x.xmm0, x.xmm0)
        instruction(x.xmm0, register)

    return body


def _convert_u64(target: str, instruction: Any) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        large, done = x.Label("large"), x.Label("done")
        x.XORPS(x.xmm0, x.xmm0)
        x.TEST(x.rax, x.rax)
        x.JS(large)
        instruction(x.xmm0, x.rax)
        x.JMP(done)
        # Half of it, with the lost bit ored into the lowest one, rounds as the whole does.
        x.LABEL(large)
        x.MOV(x.rcx, x.rax)
        x.SHR(x.rcx, 1)
        x.AND(x.eax, 1)
        x.OR(x.rcx, x.rax)
        instruction(x.xmm0, x.rcx)
        (x.ADDSS if target == "f32" else x.ADDSD)(x.xmm0, x.xmm0)
        x.LABEL(done)

    return body


def _load_xmm1(pattern: int) -> None:
    import peachpy.x86_64 as x

    x.MOV(x.rdx, pattern)
    x.MOVQ(x.xmm1, x.rdx)


def _truncate(source: str, to_integer: Any, bits: int, sign: str) -> Body:
    """``cvttsd2si`` gives MIN for what it can not convert; find out why, and trap."""

    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        from asm_libcalls.x86_64.instructions import JUMP_IF

        compare = x.UCOMISS if source == "f32" else x.UCOMISD
        large, done = x.Label("large"), x.Label("done")
        if bits == 32:
            # In 64 bits every i32 and u32 is exact: it fits if its low half gives it back.
            to_integer(x.rax, x.xmm0)
            if sign == "s":
                x.MOVSXD(x.rcx, x.eax)
            else:
                x.MOV(x.ecx, x.eax)
            x.CMP(x.rax, x.rcx)
            x.JE(done)
            compare(x.xmm0, x.xmm0)
            trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            JUMP_IF("np", f"trap.{TrapCode.INTEGER_OVERFLOW.name}")
            x.LABEL(done)
            x.MOV(x.eax, x.eax)
        elif sign == "s":
            to_integer(x.rax, x.xmm0)
            x.CMP(x.rax, 1)
            x.JNO(done)  # it is not MIN
            _load_xmm1(_MINUS_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            trap("nz", TrapCode.INTEGER_OVERFLOW)
            x.LABEL(done)
        else:
            _load_xmm1(_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            trap("p", TrapCode.BAD_CONVERSION_TO_INTEGER)
            x.JAE(large)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            trap("s", TrapCode.INTEGER_OVERFLOW)
            x.JMP(done)
            x.LABEL(large)
            (x.SUBSS if source == "f32" else x.SUBSD)(x.xmm0, x.xmm1)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            trap("s", TrapCode.INTEGER_OVERFLOW)
            x.BTC(x.rax, 63)
            x.LABEL(done)

    return body


def _saturate(source: str, to_integer: Any, bits: int, sign: str) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        compare = x.UCOMISS if source == "f32" else x.UCOMISD
        nan, large, done = x.Label("nan"), x.Label("large"), x.Label("done")
        lowest = 0 if sign == "u" else 1 << (bits - 1)
        highest = (1 << bits) - 1 - lowest
        a = x.eax if bits == 32 else x.rax

        def clamp() -> None:
            x.XORPS(x.xmm1, x.xmm1)
            compare(x.xmm0, x.xmm1)
            x.MOV(a, highest)
            x.JA(done)
            x.MOV(a, lowest)

        compare(x.xmm0, x.xmm0)
        x.JP(nan)
        if bits == 64 and sign == "u":
            _load_xmm1(_TWO_TO_63[source])
            compare(x.xmm0, x.xmm1)
            x.JAE(large)
            to_integer(x.rax, x.xmm0)
            x.TEST(x.rax, x.rax)
            x.JNS(done)
            x.XOR(x.eax, x.eax)
            x.JMP(done)
            x.LABEL(large)
            (x.SUBSS if source == "f32" else x.SUBSD)(x.xmm0, x.xmm1)
            to_integer(x.rax, x.xmm0)
            x.BTC(x.rax, 63)
            x.JC(nan)  # bit 63 was set: 2**64 or more; rax is made -1 there
            x.JMP(done)
            x.LABEL(nan)
            # From a NaN, 0; from too large a number, all ones.
            x.XOR(x.eax, x.eax)
            compare(x.xmm0, x.xmm0)
            x.JP(done)
            x.DEC(x.rax)
        else:
            to_integer(x.rax, x.xmm0)
            if bits == 64:
                x.CMP(x.rax, 1)
                x.JNO(done)
            else:
                if sign == "s":
                    x.MOVSXD(x.rcx, x.eax)
                else:
                    x.MOV(x.ecx, x.eax)
                x.CMP(x.rax, x.rcx)
                x.JE(done)
            clamp()
            x.JMP(done)
            x.LABEL(nan)
            x.XOR(x.eax, x.eax)
        x.LABEL(done)
        if bits == 32:
            x.MOV(x.eax, x.eax)

    return body
