"""Registers: their use in stencils, and the choice of locals that get one.

A local that gets a register has it in the whole function. Its slot is used only during calls, since
a callee may change all these registers.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.local_uses import (
    CALL,
    LIBCALL_ON_NUMBERS,
    LOCALS,
    weight_inside,
)
from asm_libcalls.toy_jit.frontend.module import F32, F64, I32, I64, V128, VALUE_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.frontend.body import Body

INTEGERS = ("rsi", "rdi", "r8", "r9", "r10", "r11", "rbx", "r12")
FLOATS = tuple(f"xmm{i}" for i in range(2, 14))
"""The registers of locals, and of operands besides the accumulators."""

MORE_FLOATS = ("xmm14", "xmm15")
"""As FLOATS, in functions without vectors."""

ACCUMULATORS = {"i": ("rax", "rcx"), "f": ("xmm0", "xmm1"), "v": ("v14", "v15", "v1")}
"""The registers of a stencil's first, second and third operand: of integers, floats, and vectors.
The vectors' third is the register of a second float, because no float stays in that."""

KINDS = {
    **dict.fromkeys(("rax", "rcx", "rdx", *INTEGERS, "r15"), "i"),
    **dict.fromkeys(("xmm0", "xmm1", *FLOATS, *MORE_FLOATS), "f"),
    "slot": "slot", "argument": "argument", "const": "const", "wide": "const",
}  # fmt: skip
"""The kinds of places, by their first items; "i" and "f" are registers."""

NEGATED = {
    "z": "nz", "nz": "z", "c": "nc", "nc": "c", "be": "a", "a": "be",
    "l": "ge", "ge": "l", "le": "g", "g": "le",
}  # fmt: skip
"""The conditions that stencils test, by Intel's condition codes, and their opposites."""

SWAPPED = {
    "l": "g", "g": "l", "le": "ge", "ge": "le", "c": "a", "a": "c", "be": "nc", "nc": "be",
}  # fmt: skip
"""Conditions after a comparison of integers, and the same ones if its operands are swapped."""

_FOR_OPERANDS = 2  # registers of each kind that no local gets
_FOR_VECTORS = 3  # as above, of floats and vectors together, in functions that have vectors
_SHORT_LOOP = 300  # instructions
_SAVE_AND_RESTORE = 2  # the cost of a call for a local in a register, in uses of the local

SETS = frozenset((op.LOCAL_SET, op.LOCAL_TEE))
"""The instructions that set a local."""


def lower_half(register: str) -> str:
    """Return the name of the lower 32 bits of a general-purpose register."""
    return f"{register}d" if register[1].isdigit() else f"e{register[1:]}"


def operand_registers(types: bytes) -> tuple[str, ...]:
    """Return the registers of a stencil's operands; the first of a kind is the accumulator."""
    seen = {"i": 0, "f": 0, "v": 0}
    registers = []
    for valtype in types:
        kind = "f" if valtype in (F32, F64) else "v" if valtype == V128 else "i"
        registers.append(ACCUMULATORS[kind][seen[kind]])
        seen[kind] += 1
    return tuple(registers)


RESULTS = {valtype: operand_registers(bytes([valtype]))[0] for valtype in VALUE_TYPES}
"""By value type: the accumulator of its kind."""


def as_vector(register: str) -> str:
    """Return the name of a register of floats when it holds a vector."""
    return register.replace("xmm", "v")


def choose_registers(body: Body, inline: bool) -> tuple[dict[int, str], bool]:
    """Choose the locals that get registers: those used most, where uses in loops count more.

    Return the registers by the indices of their locals, and whether the function ends soon for all
    arguments: it has no loop, and no calls but on numbers. A call of it need not release the GIL.

    With `inline`, instructions replace libcalls on numbers, which then do not count as calls.
    """
    types = body.local_types
    uses, has_loops = body.uses.weigh(len(types))
    calls = uses[CALL] if inline else uses[CALL] + uses[LIBCALL_ON_NUMBERS]
    brief = not has_loops and not uses[CALL]
    if body.vectors:
        carried = _carried(body)
        uses = [carried[i] if t == V128 else uses[i] for i, t in enumerate(types)]
    threshold = 2 + _SAVE_AND_RESTORE * calls
    candidates = [i for i, times in enumerate(uses[: len(types)]) if times > threshold]
    if not candidates:
        return {}, brief
    floats = FLOATS[:-_FOR_VECTORS] if body.vectors else (*FLOATS, *MORE_FLOATS)[:-_FOR_OPERANDS]
    free = {I32: list(INTEGERS[:-_FOR_OPERANDS]), F32: list(floats)}
    free[I64], free[F64], free[V128] = free[I32], free[F32], free[F32]
    chosen = {}
    for i in sorted(candidates, key=lambda i: -uses[i]):
        if free.get(types[i]):
            register = free[types[i]].pop(0)
            chosen[i] = as_vector(register) if types[i] == V128 else register
    return chosen, brief


def _carried(body: Body) -> list[int]:
    """Return how often each vector is read in short loops before the loop writes it.

    Only such a local gains from a register. Elsewhere, or if a loop writes the vector first and so
    does not carry it to the next iteration, a register for operands often still has its value.
    """
    carried = [0] * len(body.local_types)
    # Of the innermost loop: its begin, its weight, the vectors that it has written, and those that
    # it has read before. `loops` has the same of enclosing loops.
    begin, weight = 0, 1
    written: set[int] | None = None
    read: list[int] = []
    loops: list[tuple[int, int, set[int] | None, list[int]]] = []
    before = 0
    for _, at, loop in body.uses.loops:
        if written is not None:
            # Of a loop that is not short, the rest is not needed.
            end = min(at, begin + _SHORT_LOOP)
            for opcode, index, _ in body.instructions[before:end]:
                if opcode in LOCALS and body.local_types[index] == V128:
                    if opcode != op.LOCAL_GET:
                        written.add(index)
                    elif index not in written:
                        read.append(index)
        before = at
        if loop is not None:
            loops.append((begin, weight, written, read))
            if loop.targeted:
                begin, weight, written, read = at, weight_inside(weight), set(), []
        else:
            if written is not None and at - begin < _SHORT_LOOP:
                for i in read:
                    carried[i] += weight
            begin, weight, written, read = loops.pop()
    return carried
