"""Handlers of instructions on numbers: stencils of one or two operands, and comparisons.

A handler emits the code of an instruction. It gets the emitter and the instruction's immediate.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.places import constant, halves
from asm_libcalls.toy_jit.codegen.registers import ACCUMULATORS, NEGATED, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.calls import Emitter

    Handler = Callable[[Emitter, Any], None]

__all__ = ["CONDITIONS", "binary", "comparison", "constant_operand", "is_zero", "simple"]

CONDITIONS = {
    "eq": "z", "ne": "nz", "lt_s": "l", "lt_u": "c", "gt_s": "g", "gt_u": "a", "le_s": "le",
    "le_u": "be", "ge_s": "ge", "ge_u": "nc",
    # a < b is compared as b > a: "above" is false if one of them is a NaN.
    "gt": "a", "ge": "nc", "lt": "a", "le": "nc",
}  # fmt: skip
_COMMUTATIVE = ("add", "mul", "and", "or", "xor")


def simple(name: str, opcode: int) -> Handler:
    """Make the handler of an instruction that is one stencil with operands in accumulators."""
    params, _, results = op.SIGNATURES[opcode] or (b"", 0, b"")
    registers = operand_registers(params)
    digits = "".join(filter(str.isdigit, name.partition(".")[2])) or name[1:3]
    size = int(digits) // 8 if opcode in op.ALIGNMENTS else 0

    def emit(c: Emitter, immediate: Any) -> None:
        c.take(registers)
        if size:  # a load or store
            offset = immediate
            if offset + size > 0x7FFFFFFF:
                c.emit("memory.far", *halves(offset))
                offset = 0
            c.emit(name, offset + size, offset)
        else:
            c.emit(name)
        for valtype in results:
            c.push_result(valtype)

    return emit


def _operate(c: Emitter, name: str, verb: str) -> str:
    """Emit an instruction with its right operand in its place; return the accumulator."""
    accumulator, second = ACCUMULATORS[name[0]]
    c.make_room(2)
    right, left = c.pop(), c.pop()
    if verb in ("lt", "le") or (right == (accumulator,) and verb in _COMMUTATIVE):
        left, right = right, left
    if f"{name}.{right[0]}" not in TEMPLATES:  # it is in the accumulator, or a constant
        c.move((second,), right)
        right = (second,)
    c.move((accumulator,), left)
    c.emit(f"{name}.{right[0]}", *right[1:])
    return accumulator


def binary(name: str) -> Handler:
    """Make the handler of an instruction with a stencil for each place of the right operand."""
    verb = name[4:]

    def emit(c: Emitter, immediate: Any) -> None:
        c.push_register(_operate(c, name, verb))

    return emit


def comparison(name: str) -> Handler:
    """Make the handler of a comparison, whose result may stay in the CPU's flags."""
    compare, verb = name[:4] + "cmp", name[4:]

    def emit(c: Emitter, immediate: Any) -> None:
        _operate(c, compare, verb)
        if name in TEMPLATES:  # eq and ne of floats need two flags
            c.emit(name)
            c.push_register("rax")
        else:
            c.push_condition(CONDITIONS[verb])

    return emit


def is_zero(name: str) -> Handler:
    """Make the handler of a test for zero. If a comparison precedes, it negates that."""

    def emit(c: Emitter, immediate: Any) -> None:
        if c.condition:
            c.push_condition(NEGATED[c.pop_condition()])
        else:
            c.take(("rax",))
            c.emit(name)
            c.push_condition("z")

    return emit


def constant_operand(c: Emitter, immediate: Any) -> None:
    """Push a constant, which emits no code."""
    # An i32 in a slot or a register is zero-extended.
    c.push(constant(immediate & 0xFFFFFFFF if c.opcode == op.I32_CONST else immediate))
