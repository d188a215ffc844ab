"""Places: where the operands and locals of a function are, at each point of the compilation.

A *place* is a tuple of its kind, or its register, and numbers.

========================== =====================================================================
``("slot", -24)``          in the frame, at ``[rbp - 24]``
``("const", 7)``           a known value that fits 32 signed bits
``("wide", 7, 1)``         a known value: the lower and the upper half
``("rax",)``               in a register: an accumulator (rax or xmm0), or a free one
``("argument", 8)``        an outgoing argument, at ``[rsp + 8]``
``("memory", "rsi", 16)``  in memory 0, at ``[r14 + rsi + 16]``, checked; only the next instruction
                           may have such an operand
========================== =====================================================================

Each operand has a slot in the frame, by its height on the operand stack, but is stored there only
when that is needed: ``local.get`` and ``i32.const`` emit nothing, and results stay in registers
while some are free. A local is in its slot or, if it is used often, in a register.

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

from asm_libcalls.toy_jit.codegen.copies import CHECKS
from asm_libcalls.toy_jit.codegen.encodings import NO_INDEX
from asm_libcalls.toy_jit.codegen.function_code import FunctionCode, constant
from asm_libcalls.toy_jit.codegen.registers import (
    FLOATS,
    INTEGERS,
    MORE_FLOATS,
    RESULTS,
    SETS,
    choose_registers,
)
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.codegen.function_code import Place
    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.body import Body, Instruction

VMCTX_IN_FRAME = -8
"""The offset from rbp of the vmctx in each frame of compiled code."""

MOST_UNFLUSHED = 100
"""Operands; a limit on the work of one flush."""

_SLOTS: list[Place] = [("slot", -16 - 8 * i) for i in range(200)]
"""The slots of most functions, for all of them."""

_check = CHECKS.kept.get

_FLAG_USERS = frozenset((op.BR_IF, op.IF, op.OPCODES["i32.eqz"], op.SELECT))


class Places(FunctionCode):
    """The places of operands and locals at the end of the code of a function so far."""

    def __init__(self, layout: CodeLayout) -> None:
        super().__init__(layout)
        self._registers: dict[frozenset[str], tuple[dict[str, list[Place]], set[str]]] = {}
        # the next instruction (see asm_libcalls.toy_jit.frontend.body)
        self.following: Instruction = (op.END, None, 0)

    def begin(self, body: Body, parameters: int) -> None:
        """Begin a function."""
        self.lay_out(body, parameters)
        chosen, brief = choose_registers(body, self.layout.inline)
        self.layout.brief.append(brief)
        # `locals`, `homes`: the place of each local, and its slot
        self.locals: list[Place] = list(self.homes)
        for i, register in chosen.items():
            self.locals[i] = (register,)
        self.in_registers = sorted(chosen)  # the locals that have a register
        # the slots of locals that have a register, in use during calls
        self.saved = {self.locals[i]: self.homes[i] for i in self.in_registers}
        self.local_places = {*self.locals}
        taken = frozenset(chosen.values())
        if taken not in self._registers:
            free = self.free_registers(taken)
            self._registers[taken] = free, {*free, *(r for each in free.values() for (r,) in each)}
        # `free`: the registers for operands besides the accumulators, by the accumulator of their
        # kind. `for_operands`: the registers for operands, the accumulators included.
        self.free, self.for_operands = self._registers[taken]
        # the code that copies these locals to their slots, and back, or None if it is not made yet
        self.transfers: tuple[bytes, bytes] | None = None
        self.current, self.layout.start = body.instructions[0], body.start
        self.traps = []
        self.stack: list[Place] = []  # the operands' places, by height
        # the registers that hold operands (except registers of locals), and the operands' heights
        self.held: dict[str, int] = {}
        # The number of operands, from the bottom, that are known to be in their slots. That of the
        # others is limited, which bounds the cost of an instruction.
        self.flushed = 0
        self.forget()
        self.clear(0, b"")

    def lay_out(self, body: Body, parameters: int) -> None:
        """Assign the slots of the locals and operands."""
        # `cleared`: the number of 8-byte slots of locals that begin as 0, from the highest down
        others = self.cleared = len(body.local_types) - parameters
        end = others + body.max_height + 1
        slots = _SLOTS if end <= len(_SLOTS) else [("slot", -16 - 8 * i) for i in range(end)]
        self.homes: list[Place] = [("slot", 16 + 8 * i) for i in range(parameters)]
        self.homes += slots[:others]
        self.slots = slots[others:end]  # of operands, by height

    def slot(self, height: int, place: Place) -> Place:
        """Return the slot at a height, in the form for a value that is at a place."""
        return self.slots[height]

    def free_registers(self, taken: frozenset[str]) -> dict[str, list[Place]]:
        """Return the registers that no local has, by the accumulator of their kind."""
        return {
            "rax": [(r,) for r in INTEGERS if r not in taken],
            "xmm0": [(r,) for r in (*FLOATS, *MORE_FLOATS) if r not in taken],
        }

    # -- operands

    def push(self, place: Place) -> None:
        """Push an operand that is not in a register for operands."""
        self.stack.append(place)
        if len(self.stack) - self.flushed > MOST_UNFLUSHED:
            self.flush()

    def push_register(self, register: str) -> None:
        """Push an operand that is in a register for operands."""
        self.held[register] = len(self.stack)
        self.stack.append((register,))

    def push_result(self, valtype: int) -> None:
        """Push the result of an instruction, in the accumulator of its type."""
        self.push_register(RESULTS[valtype])

    def push_target(self, register: str) -> None:
        """Push the result of an instruction, in a register that target() has returned."""
        if register in self.for_operands:
            self.held[register] = len(self.stack)
            self.stack.append((register,))
        else:
            self.push((register,))  # of the local that the next instruction sets

    def wanted(self) -> str:
        """Return the register of the local that the next instruction sets, or "".

        The current instruction may put its result there, with its last write of a register, when
        its operands have been popped.
        """
        following = self.following
        if following[0] in SETS:
            local = self.locals[following[1]]
            if len(local) == 1 and local not in self.stack[self.flushed :]:
                register: str = local[0]
                return register
        return ""

    def fresh(self, kind: str, but: Place = ()) -> str:
        """Return a register for operands that holds none, and is not one that `but` reads.

        If all hold operands, one of these is moved to its slot. `kind` is the accumulator of the
        registers' kind. Changes no flags.
        """
        held = self.held
        if kind not in held and kind not in but:
            return kind
        register: str
        for (register,) in self.free[kind]:
            if register not in held and register not in but:
                return register
        registers = [(kind,), *self.free[kind]]
        height = min(held[r] for (r,) in registers if r in held and r not in but)
        register = self.stack[height][0]
        self.spill(height)
        return register

    def target(self, kind: str) -> str:
        """Return a register for the result of the current instruction; see wanted(), fresh()."""
        if self.following[0] in SETS:
            return self.wanted() or self.fresh(kind)
        return kind if kind not in self.held else self.fresh(kind)

    def overwritten(self, left: Place, kind: str, right: Place = ()) -> str:
        """Return a register for the result of an instruction that overwrites its left operand.

        The operands have been popped. The right one is read when the left one is in that register.
        """
        wanted = self.wanted()
        if wanted and (wanted not in right or left[0] == wanted):
            return wanted
        return left[0] if left[0] in self.for_operands else self.fresh(kind, right)

    def to_register(self, place: Place, kind: str, but: Place = ()) -> str:
        """Return the register that has a popped operand, or load it into one; see fresh()."""
        register: str = place[0]
        if len(place) > 1:
            register = self.fresh(kind, but)
            self.move((register,), place)
        return register

    def pop(self) -> Place:
        """Pop the top operand, and return its place."""
        stack = self.stack
        place = stack.pop()
        if self.flushed > len(stack):
            self.flushed = len(stack)
        if self.held:
            self.held.pop(place[0], None)
        return place

    def pop_two(self) -> tuple[Place, Place]:
        """Pop the top two operands, and return their places, the top one first."""
        stack, held = self.stack, self.held
        right, left = stack.pop(), stack.pop()
        if self.flushed > len(stack):
            self.flushed = len(stack)
        if held:
            held.pop(right[0], None)
            held.pop(left[0], None)
        return right, left

    def take(self, registers: tuple[str, ...]) -> None:
        """Pop operands into these registers, of which the accumulators come first."""
        self.make_room(len(registers))
        for register in reversed(registers):
            self.move((register,), self.pop())

    def make_room(self, count: int) -> None:
        """Free the accumulators, for an instruction that pops `count` operands."""
        if not self.held:
            return
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
        if end == self.flushed:
            return
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
        end = height + len(types)
        if self.flushed != end or len(self.stack) != end or types:
            kept = min(height, self.flushed)
            self.stack[kept:] = self.slots[kept:end]
            self.flushed = end
        if self.held:
            self.held.clear()
        # The condition of a comparison, if the next instruction takes it from the CPU's flags. This
        # operand is not on `stack`.
        self.condition = ""
        # the end of the last instruction that set the zero flag by its result, and its register
        self.flags = (-1, "")
        if self.checked:
            self.forget()

    def forget(self) -> None:
        """Forget the checked addresses, where control flow merges and at calls."""
        # By place of an address, which is a local: the bytes of memory behind it that are known to
        # exist; and by NO_INDEX those of memory from its beginning. Memory never shrinks, but a
        # call may close it.
        self.checked: dict[Place | str, int] = {}

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
        if self.following[0] in _FLAG_USERS:
            self.condition = condition
        else:
            target = self.target("rax")
            self.form("flag." + condition, target)
            self.form("flag.extend", target, right=target)
            self.push_target(target)

    def pop_condition(self) -> str:
        """Pop the top operand, and return the condition that is true if it is not 0."""
        condition, self.condition = self.condition, ""
        if not condition:
            self.test(self.pop(), "i32")
        return condition or "nz"

    def test(self, place: Place, valtype: str) -> None:
        """Compare a popped operand with 0."""
        if place[0] == "slot":
            self.form(valtype + ".cmp.slot.const", offset=place[1])
            return
        register = self.to_register(place, "rax")
        if self.flags != (len(self.code), register):
            self.form(valtype + ".test", register)

    # -- memory

    def address(self, place: Place, offset: int, size: int, but: Place = ()) -> tuple[str, int]:
        """Emit the bounds check of an access, whose address has been popped.

        Return the register with the index, none that `but` reads, and the offset from there.
        Changes rdx.
        """
        end = offset + size
        if place[0] in ("const", "wide"):
            known = place[1] & 0xFFFFFFFF
            end += known
            if end <= 0x7FFFFFFF:
                if self.checked.get(NO_INDEX, 0) < end:
                    self.checked[NO_INDEX] = end
                    self.form("memory.compare.const", value=end)
                    self.emit("memory.if_below")
                return NO_INDEX, known + offset
            end -= known
        index: str = place[0]
        if len(place) > 1:
            index = self.fresh("rax", but)
            self.move((index,), place)
        if end > 0x7FFFFFFF:
            # An offset that does not fit a displacement is added to the address, which then has 33
            # bits.
            far = self.fresh("rax", (*but, index))
            self.move((far,), constant(offset))
            self.form("i64.add.register", far, right=index)
            index, offset, end = far, 0, size
        elif place in self.local_places:
            if self.checked.get(place, 0) >= end:
                return index, offset
            self.checked[place] = end
        key = index, end
        bytes_, at, role = _check(key) or CHECKS.add(key)
        code = self.code
        self.traps.append((len(code) + at, role, self.current[2]))
        code += bytes_
        return index, offset
