"""Locals and operands in registers other than the accumulators."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import load, store, wide, with_const, with_register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body

__all__ = ["pinned", "pinned_registers"]


def pinned_registers() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the registers that hold locals and operands: integers, and floats.

    Compiled code changes all of them (rbx and r12 are saved where Python enters).
    """
    import peachpy.x86_64 as x

    integers = (x.rsi, x.rdi, x.r8, x.r9, x.r10, x.r11, x.rbx, x.r12)
    floats = (x.xmm2, x.xmm3, x.xmm4, x.xmm5, x.xmm6, x.xmm7, x.xmm8, x.xmm9, x.xmm10, x.xmm11,
              x.xmm12, x.xmm13)  # fmt: skip
    return integers, floats


def pinned() -> Iterator[tuple[str, Body]]:
    """Use a local or operand in its register: ``.rK`` for integers, ``.xK`` for floats."""
    import peachpy.x86_64 as x
    from peachpy.x86_64.registers import rbp, rsp

    integers, floats = pinned_registers()
    for k, register in enumerate(integers):
        half = register.as_dword
        yield f"load.r{k}", with_register(x.MOV, x.rax, register)
        yield f"store.r{k}", with_register(x.MOV, register, x.rax)
        yield f"load.rcx.r{k}", with_register(x.MOV, x.rcx, register)
        yield f"to_rdx.r{k}", with_register(x.MOV, x.rdx, register)
        yield f"from_rdx.r{k}", with_register(x.MOV, register, x.rdx)
        yield f"zero.r{k}", with_register(x.XOR, half, half)
        yield f"const.r{k}", with_const(x.MOV, half)
        yield f"spill.r{k}", store(x.MOV, register, rbp, "slot")
        yield f"fill.r{k}", load(x.MOV, register, rbp, "slot")
        yield f"argument.r{k}", store(x.MOV, register, rsp, "offset")
        for bits, a, b in ((32, x.eax, half), (64, x.rax, register)):
            for verb, instruction in (
                ("add", x.ADD), ("sub", x.SUB), ("and", x.AND), ("or", x.OR), ("xor", x.XOR),
                ("mul", x.IMUL), ("cmp", x.CMP),
            ):  # fmt: skip
                yield f"i{bits}.{verb}.r{k}", with_register(instruction, a, b)
    for k, register in enumerate(floats):
        yield f"float.load.x{k}", with_register(x.MOVAPS, x.xmm0, register)
        yield f"float.store.x{k}", with_register(x.MOVAPS, register, x.xmm0)
        yield f"float.load.xmm1.x{k}", with_register(x.MOVAPS, x.xmm1, register)
        yield f"float.from_xmm1.x{k}", with_register(x.MOVAPS, register, x.xmm1)
        yield f"to_rdx.x{k}", with_register(x.MOVQ, x.rdx, register)
        yield f"from_rdx.x{k}", with_register(x.MOVQ, register, x.rdx)
        yield f"load.x{k}", with_register(x.MOVQ, x.rax, register)
        yield f"store.x{k}", with_register(x.MOVQ, register, x.rax)
        yield f"zero.x{k}", with_register(x.XORPS, register, register)
        yield f"spill.x{k}", store(x.MOVSD, register, rbp, "slot")
        yield f"fill.x{k}", load(x.MOVSD, register, rbp, "slot")
        yield f"argument.x{k}", store(x.MOVSD, register, rsp, "offset")
        for name, instructions in (
            ("f32", (x.ADDSS, x.SUBSS, x.MULSS, x.DIVSS, x.UCOMISS)),
            ("f64", (x.ADDSD, x.SUBSD, x.MULSD, x.DIVSD, x.UCOMISD)),
        ):
            for verb, instruction in zip(
                ("add", "sub", "mul", "div", "cmp"), instructions, strict=True
            ):
                yield f"{name}.{verb}.x{k}", with_register(instruction, x.xmm0, register)
    yield "to_rdx.slot", lambda hole: x.MOV(x.rdx, [rbp + hole("slot")])
    yield "from_rdx.slot", lambda hole: x.MOV([rbp + hole("slot")], x.rdx)
    yield "const.rdx.wide", lambda hole: x.MOV(x.rdx, wide(hole))
