"""Stencils of moves between places: registers, constants, and memory relative to a register."""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.registers import FLOATS, INTEGERS

__all__ = ["moves"]

_BASES = {"slot": "rbp", "argument": "rsp"}
# Registers; the instructions that copy one to another, load or store it, and load a constant.
_REGISTERS = (
    (("rax", "rcx", "rdx", *INTEGERS), "mov", "mov", "mov {register}, {constant}"),
    (("xmm0", "xmm1", *FLOATS), "movaps", "movsd", "mov rdx, {constant}; movq {register}, rdx"),
)


def moves() -> dict[str, str]:
    """Return the stencils ``move.TARGET.SOURCE``; those that need a scratch register use rdx."""
    found = {}
    for registers, copy, transfer, load in _REGISTERS:
        for register in registers:
            for source in registers:
                found[f"move.{register}.{source}"] = f"{copy} {register}, {source}"
            for place, base in _BASES.items():
                found[f"move.{register}.{place}"] = f"{transfer} {register}, [{base} + source]"
                found[f"move.{place}.{register}"] = f"{transfer} [{base} + target], {register}"
            for place, constant in (("const", "source"), ("wide", "wide")):
                text = load.format(register=register, constant=constant)
                found[f"move.{register}.{place}"] = text
    for place, base in _BASES.items():
        to_memory = f"mov [{base} + target], rdx"
        # 32 bits, which the CPU sign-extends
        found[f"move.{place}.const"] = f"mov qword[{base} + target], source"
        found[f"move.{place}.wide"] = f"mov rdx, wide; {to_memory}"
        for source, other in _BASES.items():
            found[f"move.{place}.{source}"] = f"mov rdx, [{other} + source]; {to_memory}"
    return found | {"move.rdi.r15": "mov rdi, r15"}
