"""Places: where the operands and locals of a function are, at each point of the compilation.

A *place* is a tuple: its name in the names of stencils, and the values for their holes.

===================== ==========================================================================
``("slot", -24)``     in the frame, at ``[rbp - 24]``
``("const", 7)``      a known value that fits 32 signed bits
``("wide", 7, 1)``    a known value: the lower and the upper half
``("rax",)``          in a register: an accumulator (rax or xmm0), or a free one
``("argument", 8)``   an outgoing argument, at ``[rsp + 8]``
===================== ==========================================================================

Each operand has a slot in the frame, by its height on the operand stack, but is stored there only
when that is needed: ``local.get`` and ``i32.const`` emit nothing, and results stay in registers
while some are free. A local is in its slot or, if loops use it much, in a register.

At control flow merges (the beginning of a loop, the end of a block that is branched to) all
operands are in their slots. At a call, all operands that remain on the stack are: so the call's
stack map is exact. A frame, relative to rbp::

    +16 + 8*i   parameter i, in the caller's outgoing arguments; several results go there too
     +8         return address
      0         the caller's rbp
     -8         vmctx
    -16 - 8*j   the other locals, then the operand slots
                outgoing arguments        <- rsp
"""

from __future__ import annotations

import struct

from asm_libcalls.toy_jit.codegen.registers import (
    FLOATS,
    INTEGERS,
    choose_registers,
    operand_registers,
)
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.validator import Body

    Place = tuple[Any, ...]

__all__ = ["HOLE", "VMCTX_IN_FRAME", "Places", "constant", "halves"]

VMCTX_IN_FRAME = -8
"""The offset from rbp of the vmctx in each frame of compiled code."""

HOLE = struct.Struct("<i")
"""The format of values in holes, and of distances."""

_MOST_UNFLUSHED = 100  # operands; a limit on the work of one flush

_FLAG_USERS = frozenset((op.BR_IF, op.IF, op.OPCODES["i32.eqz"], op.SELECT))


def constant(value: int) -> Place:
    """Return the place of a known value of up to 64 bits."""
    if -0x80000000 <= value <= 0x7FFFFFFF:
        return ("const", value)
    return ("wide", *halves(value))


def halves(value: int) -> tuple[int, int]:
    """Return the values for the two holes of a 64-bit number."""
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    return low - (low >> 31 << 32), high - (high >> 31 << 32)


class Places:
    """The code of a function so far, and the places of operands and locals at its end.

    Attributes
    ----------
    stack : list of Place
        The operands' places, by height.
    held : dict of str to int
        The registers that hold operands (except registers of locals), and the operands' heights.
    opcode, height, offset, next_opcode : int
        The current instruction (see :mod:`~asm_libcalls.toy_jit.frontend.validator`), and the next.
    condition : str
        The condition of a comparison, if the next instruction takes it from the CPU's flags. This
        operand is not on `stack`.
    slots : list of Place
        The slots of operands, by height.
    locals, homes : list of Place
        The place of each local, and its slot.
    saved : dict of Place to Place
        The slots of locals that have a register, in use during calls.
    free : dict of str to list of Place
        The registers for operands besides the accumulators, by the accumulator of their kind.
    flushed : int
        The number of operands, from the bottom, that are known to be in their slots. Few of the
        others read a local or are constants, which bounds the cost of an instruction.
    cleared : int
        The number of 8-byte slots of locals that begin as 0, from the highest down.
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.code = layout.code
        self.opcode = self.next_opcode = op.END
        self.height = self.offset = 0
        self.traps: list[tuple[int, str, int]] = []  # jumps: offset, role, offset in the module

    def begin(self, body: Body, parameters: int) -> None:
        """Begin a function."""
        self.lay_out(body, parameters)
        chosen = choose_registers(body, self.layout.inline)
        self.locals: list[Place] = list(self.homes)
        for i, register in chosen.items():
            self.locals[i] = (register,)
        self.saved = {self.locals[i]: self.homes[i] for i in sorted(chosen)}
        self.free = self.free_registers(set(chosen.values()))
        self.offset = body.instructions[0][3]
        self.traps = []
        self.stack: list[Place] = []
        self.flushed = 0
        self.clear(0, b"")

    def lay_out(self, body: Body, parameters: int) -> None:
        """Assign the slots of the locals and operands."""
        others = self.cleared = len(body.local_types) - parameters
        self.homes: list[Place] = [("slot", 16 + 8 * i) for i in range(parameters)]
        self.homes += [("slot", -16 - 8 * i) for i in range(others)]
        self.slots = [("slot", -16 - 8 * i) for i in range(others, others + body.max_height + 1)]

    def slot(self, height: int, place: Place) -> Place:
        """Return the slot at a height, in the form for a value that is at a place."""
        return self.slots[height]

    def free_registers(self, taken: set[str]) -> dict[str, list[Place]]:
        """Return the registers that no local has, by the accumulator of their kind."""
        return {
            "rax": [(r,) for r in INTEGERS if r not in taken],
            "xmm0": [(r,) for r in FLOATS if r not in taken],
        }

    # -- emitting

    def emit(self, name: str, *values: int) -> None:
        """Copy a stencil; the values are those of its holes, in the order of the holes' names."""
        bytes_, holes, jumps = TEMPLATES[name]
        code = self.code
        start = len(code)
        code += bytes_
        for at, which in holes:
            HOLE.pack_into(code, start + at, values[which])
        for at, role in jumps:
            self.traps.append((start + at, role, self.offset))

    def move(self, target: Place, source: Place) -> None:
        """Copy a value. Changes no flags, and of registers only the target and rdx."""
        if target != source:
            self.emit(f"move.{target[0]}.{source[0]}", *source[1:], *target[1:])

    def jump(self, name: str, patches: list[int]) -> None:
        """Copy a jump whose target is not known yet, and note it in `patches`."""
        self.code += TEMPLATES[name][0]
        patches.append(len(self.code) - 4)

    def land(self, patches: list[int]) -> None:
        """Make these jumps lead here."""
        for at in patches:
            self.patch_jump(at, len(self.code))

    def patch_jump(self, at: int, target: int) -> None:
        """Fill in the distance of a jump, the last four bytes of its instruction."""
        self.patch(at, target - (at + 4))

    def patch(self, at: int, value: int) -> None:
        """Fill in four bytes of code."""
        HOLE.pack_into(self.code, at, value)

    # -- operands

    def push(self, place: Place) -> None:
        """Push an operand that is not in a register for operands."""
        self.stack.append(place)
        if len(self.stack) - self.flushed > _MOST_UNFLUSHED:
            self.flush()

    def reads(self, local: Place) -> bool:
        """Return whether an operand on the stack is to be read from a local."""
        return local in self.stack[self.flushed :]

    def push_register(self, register: str) -> None:
        """Push an operand that is in a register for operands."""
        self.held[register] = len(self.stack)
        self.stack.append((register,))

    def push_result(self, valtype: int) -> None:
        """Push the result of an instruction, in the accumulator of its type."""
        self.push_register(operand_registers(bytes([valtype]))[0])

    def pop(self) -> Place:
        """Pop the top operand, and return its place."""
        stack = self.stack
        place = stack.pop()
        self.flushed = min(self.flushed, len(stack))
        self.held.pop(place[0], None)
        return place

    def take(self, registers: tuple[str, ...]) -> None:
        """Pop operands into these registers, of which the accumulators come first."""
        self.make_room(len(registers))
        for register in reversed(registers):
            self.move((register,), self.pop())

    def make_room(self, count: int) -> None:
        """Free the accumulators, for an instruction that pops `count` operands."""
        for accumulator, others in self.free.items():
            height = self.held.get(accumulator)
            if height is None or height >= len(self.stack) - count:
                continue
            place = next((place for place in others if place[0] not in self.held), None)
            if place is None:
                self.spill(height)
            else:
                self.move(place, (accumulator,))
                self.stack[height] = place
                self.held[place[0]] = height
                del self.held[accumulator]

    def spill(self, height: int) -> None:
        """Move an operand to its slot. Changes no flags."""
        place = self.stack[height]
        slot = self.slot(height, place)
        self.move(slot, place)
        self.held.pop(place[0], None)
        self.stack[height] = slot

    def flush(self, start: int = 0) -> None:
        """Move all operands from a height on to their slots. Changes no flags."""
        end = len(self.stack)
        for height in range(max(start, self.flushed), end):
            self.spill(height)
        if start <= self.flushed:
            self.flushed = end

    def flush_registers(self, end: int) -> None:
        """Move the operands below a height that are in registers to their slots."""
        for height in [*self.held.values()]:
            if height < end:
                self.spill(height)

    def clear(self, height: int, types: bytes) -> None:
        """Set the state at a control flow merge: all operands are in their slots.

        The lowest `height` operands were on the stack before; those above have these `types`.
        """
        kept = min(height, self.flushed)
        self.stack[kept:] = self.slots[kept : height + len(types)]
        self.flushed = height + len(types)
        self.held: dict[str, int] = {}
        self.condition = ""

    def state(self, base: int) -> tuple[int, list[Place], dict[str, int], int]:
        """Return the places of operands, to restore after code that pops none below `base`."""
        return base, self.stack[base:], dict(self.held), self.flushed

    def restore(self, state: tuple[int, list[Place], dict[str, int], int]) -> None:
        """Restore the places of operands."""
        base, top, self.held, self.flushed = state
        self.stack[base:] = top
        for register, height in self.held.items():
            self.stack[height] = (register,)

    # -- conditions

    def push_condition(self, condition: str) -> None:
        """Push the result of a comparison: as flags, if the next instruction takes these."""
        if self.next_opcode in _FLAG_USERS:
            self.condition = condition
        else:
            self.emit("flag." + condition)
            self.push_register("rax")

    def pop_condition(self) -> str:
        """Pop the top operand, and return the condition that is true if it is not 0."""
        condition, self.condition = self.condition, ""
        if not condition:
            self.take(("rax",))
            self.emit("i32.test")
        return condition or "nz"

    # -- locals that have registers

    def save_locals(self) -> None:
        """Copy the locals that have registers to their slots, before a call."""
        for local, home in self.saved.items():
            self.move(home, local)

    def restore_locals(self) -> None:
        """Load the locals that have registers from their slots, after a call."""
        for local, home in self.saved.items():
            self.move(local, home)
