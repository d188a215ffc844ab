"""Float instructions: xmm0 OP= the second operand, which is a slot or xmm1."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import with_register, with_slot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["floats"]


def floats() -> Iterator[tuple[str, Body]]:
    """``OP.slot`` and ``OP.xmm1``: xmm0 OP= the second operand."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp

    for name, bits, memory, operations, compare in (
        ("f32", 32, x.dword, (x.ADDSS, x.SUBSS, x.MULSS, x.DIVSS, x.SQRTSS), x.UCOMISS),
        ("f64", 64, x.qword, (x.ADDSD, x.SUBSD, x.MULSD, x.DIVSD, x.SQRTSD), x.UCOMISD),
    ):
        verbs = ("add", "sub", "mul", "div")
        for verb, instruction in (*zip(verbs, operations, strict=False), ("cmp", compare)):
            yield f"{name}.{verb}.slot", with_slot(instruction, x.xmm0, memory, rbp)
            yield f"{name}.{verb}.xmm1", with_register(instruction, x.xmm0, x.xmm1)
        # The operands the other way round, for a < b as b > a: above is false for a NaN.
        yield f"{name}.cmp.swapped", with_register(compare, x.xmm1, x.xmm0)
        yield f"{name}.sqrt", with_register(operations[4], x.xmm0, x.xmm0)
        yield f"{name}.abs", _on_bits(bits, x.BTR)
        yield f"{name}.neg", _on_bits(bits, x.BTC)
        yield f"{name}.copysign", _copysign(bits)
        yield f"{name}.min", _extremum(name, smallest=True)
        yield f"{name}.max", _extremum(name, smallest=False)
        yield f"{name}.eq", _equal(unequal=False)
        yield f"{name}.ne", _equal(unequal=True)


def _on_bits(bits: int, instruction: Any) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        x.MOVQ(x.rdx, x.xmm0)
        instruction(x.rdx if bits == 64 else x.edx, bits - 1)
        x.MOVQ(x.xmm0, x.rdx)

    return body


def _copysign(bits: int) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        c, d = (x.rcx, x.rdx) if bits == 64 else (x.ecx, x.edx)
        x.MOVQ(x.rdx, x.xmm0)
        x.MOVQ(x.rcx, x.xmm1)
        x.BTR(d, bits - 1)
        x.SHR(c, bits - 1)
        x.SHL(c, bits - 1)
        x.OR(d, c)
        x.MOVQ(x.xmm0, x.rdx)

    return body


def _extremum(name: str, smallest: bool) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        double = name == "f64"
        differ, nan, done = x.Label("differ"), x.Label("nan"), x.Label("done")
        (x.UCOMISD if double else x.UCOMISS)(x.xmm0, x.xmm1)
        x.JNE(differ)
        x.JP(nan)
        # Equal: only zeros of different sign matter. The smaller one has the sign bit.
        (x.ORPS if smallest else x.ANDPS)(x.xmm0, x.xmm1)
        x.JMP(done)
        x.LABEL(nan)
        (x.ADDSD if double else x.ADDSS)(x.xmm0, x.xmm1)  # the sum with a NaN is a quiet one
        x.JMP(done)
        x.LABEL(differ)
        minimum, maximum = (x.MINSD, x.MAXSD) if double else (x.MINSS, x.MAXSS)
        (minimum if smallest else maximum)(x.xmm0, x.xmm1)
        x.LABEL(done)

    return body


def _equal(unequal: bool) -> Body:
    # After a comparison: ZF is set for equal and for unordered, PF for unordered.
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        if unequal:
            x.SETP(x.al)
            x.SETNE(x.cl)
            x.OR(x.al, x.cl)
        else:
            x.SETNP(x.al)
            x.SETE(x.cl)
            x.AND(x.al, x.cl)
        x.MOVZX(x.eax, x.al)

    return body
