"""Integer instructions: rax OP= the second operand, which is a slot, a constant or rcx."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import trap, with_const, with_register, with_slot
from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["integers"]


def integers(features: frozenset[str]) -> Iterator[tuple[str, Body]]:
    """``OP.slot``, ``OP.const`` and ``OP.rcx``: rax OP= the second operand."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp

    for bits, a, c, d, memory in (
        (32, x.eax, x.ecx, x.edx, x.dword),
        (64, x.rax, x.rcx, x.rdx, x.qword),
    ):
        name = f"i{bits}"
        for verb, instruction in (
            ("add", x.ADD), ("sub", x.SUB), ("and", x.AND), ("or", x.OR), ("xor", x.XOR),
            ("mul", x.IMUL), ("cmp", x.CMP),
        ):  # fmt: skip
            yield f"{name}.{verb}.slot", with_slot(instruction, a, memory, rbp)
            yield f"{name}.{verb}.rcx", with_register(instruction, a, c)
            if verb == "mul":
                yield f"{name}.mul.const", _multiply_const(a)
            else:
                # The encoding with any register, so that the hole is there in all of them.
                yield f"{name}.{verb}.const", with_const(instruction, a)
        for verb, instruction in (
            ("shl", x.SHL), ("shr_s", x.SAR), ("shr_u", x.SHR), ("rotl", x.ROL), ("rotr", x.ROR),
        ):  # fmt: skip
            yield f"{name}.{verb}.rcx", with_register(instruction, a, x.cl)
        yield f"{name}.test", with_register(x.TEST, a, a)
        yield from _bit_counts(name, bits, a, c, d, features)
        yield f"{name}.extend8_s", with_register(x.MOVSX, a, x.al)
        yield f"{name}.extend16_s", with_register(x.MOVSX, a, x.ax)
    yield "i64.extend32_s", lambda hole: x.MOVSXD(x.rax, x.eax)
    yield "i32.wrap", lambda hole: x.MOV(x.eax, x.eax)
    for verb in ("div_s", "div_u", "rem_s", "rem_u"):
        yield f"i32.{verb}.rcx", _divide(verb)


def _multiply_const(a: Any) -> Body:
    import peachpy.x86_64 as x

    return lambda hole: x.IMUL(a, a, hole("value"))


def _bit_counts(
    name: str, bits: int, a: Any, c: Any, d: Any, features: frozenset[str]
) -> Iterator[tuple[str, Body]]:
    import peachpy.x86_64 as x

    def clz(hole: Hole) -> None:
        # bsr gives the index of the highest bit, and nothing for 0.
        x.BSR(c, a)
        x.MOV(d, 2 * bits - 1)
        x.CMOVZ(c, d)
        x.XOR(c, bits - 1)
        x.MOV(a, c)

    def ctz(hole: Hole) -> None:
        x.BSF(c, a)
        x.MOV(d, bits)
        x.CMOVZ(c, d)
        x.MOV(a, c)

    def popcnt(hole: Hole) -> None:
        # Sums of neighbouring bits, pairs and nibbles, side by side (Hacker's Delight, 5-1).
        ones = (1 << bits) - 1
        x.MOV(c, a)
        x.SHR(c, 1)
        x.MOV(d, ones // 3)
        x.AND(c, d)
        x.SUB(a, c)
        x.MOV(d, ones // 5)
        x.MOV(c, a)
        x.AND(c, d)
        x.SHR(a, 2)
        x.AND(a, d)
        x.ADD(a, c)
        x.MOV(c, a)
        x.SHR(c, 4)
        x.ADD(a, c)
        x.MOV(d, ones // 17)
        x.AND(a, d)
        x.MOV(d, ones // 255)
        x.IMUL(a, d)
        x.SHR(a, bits - 8)

    yield f"{name}.clz", with_register(x.LZCNT, a, a) if "lzcnt" in features else clz
    yield f"{name}.ctz", with_register(x.TZCNT, a, a) if "bmi" in features else ctz
    yield f"{name}.popcnt", with_register(x.POPCNT, a, a) if "popcnt" in features else popcnt


def _divide(verb: str) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        divide, done = x.Label("divide"), x.Label("done")
        x.TEST(x.ecx, x.ecx)
        trap("z", TrapCode.INTEGER_DIVISION_BY_ZERO)
        if verb.endswith("_u"):
            x.XOR(x.edx, x.edx)
            x.DIV(x.ecx)
        else:
            x.CMP(x.ecx, -1)
            x.JNE(divide)
            if verb == "div_s":
                x.CMP(x.eax, -(1 << 31))
                trap("z", TrapCode.INTEGER_OVERFLOW)
            else:
                x.XOR(x.edx, x.edx)  # every integer is a multiple of -1
                x.JMP(done)
            x.LABEL(divide)
            x.CDQ()
            x.IDIV(x.ecx)
            if verb == "rem_s":
                x.LABEL(done)
        if verb.startswith("rem"):
            x.MOV(x.eax, x.edx)

    return body
