"""Where the values of a function are, while one pass goes over its instructions.

Every operand has a slot in the frame, by its height on the operand stack, but it is not put there
at once. While the pass goes on, it keeps for each operand where its value *is*:

===== ==============================================================================================
SLOT  in its own slot
LOCAL in a local, which nobody has set since; ``local.get`` emits nothing
CONST known; ``i32.const`` emits nothing
ACC   in rax (at most one operand)
XMM   in xmm0 (at most one operand)
FLAGS in the CPU's flags, from a comparison that the next instruction uses
OTHER in another register, where it went when rax or xmm0 was needed
===== ==============================================================================================

Where control comes together (the beginning of a loop, the end of a block that is branched to) all
operands are in their slots. At a call, all that the frame keeps are: so the stack map of the call
is exact. A frame, by rbp::

    +16 + 8*i   parameter i, in the caller's outgoing arguments; several results go there too
     +8         return address
      0         the caller's rbp
     -8         vmctx
    -16 - 8*j   the other locals, then the operand slots
                outgoing arguments        <- rsp
"""

from __future__ import annotations

import struct

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import F32, F64
from asm_libcalls.toy_jit.registers import choose_registers, operand_registers
from asm_libcalls.toy_jit.templates import TEMPLATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.layout import CodeLayout
    from asm_libcalls.toy_jit.validator import Body
    from asm_libcalls.traps import TrapCode

__all__ = [
    "ACC",
    "CONST",
    "FLAGS",
    "FLOATS",
    "LOCAL",
    "NEGATED",
    "OTHER",
    "SLOT",
    "XMM",
    "Places",
    "signed_32",
]

SLOT, LOCAL, CONST, ACC, XMM, FLAGS, OTHER = range(7)
_IN_SLOT = (SLOT, 0)
_IN_ACC = (ACC, 0)
_IN_XMM = (XMM, 0)

_DISPLACEMENT = struct.Struct("<i")
_FLAG_USERS = frozenset((op.BR_IF, op.IF, op.OPCODES["i32.eqz"], op.SELECT))
FLOATS = (F32, F64)

# Intel's condition codes, and their opposites.
NEGATED = {"z": "nz", "c": "nc", "be": "a", "l": "ge", "le": "g", "p": "np", "o": "no"}
NEGATED |= {b: a for a, b in NEGATED.items()}


def signed_32(value: int) -> bool:
    """Return whether 32 bits, sign-extended, can hold a value."""
    return -0x80000000 <= value <= 0x7FFFFFFF


class Places:
    """The code that grows, and where the operands and locals are at its end."""

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.code = layout.code
        self.stack: list[tuple[int, Any]] = []
        self.acc = self.xmm = -1  # the height of the operand that is there
        self.acc_is = self.xmm_is = -1  # the local that has the same value

    def begin(self, body: Body, parameters: int) -> None:
        """Begin a function."""
        self._parameters = parameters
        self._first_slot = -16 - 8 * (len(body.local_types) - parameters)
        self._offset = body.instructions[0][3]  # of the instruction, in the module
        self._next_opcode = op.END
        self._traps: list[tuple[int, str, int]] = []
        # By local, the suffix of its register's stencils, or "".
        self.pinned = choose_registers(body, self.layout.inline)
        self._in_registers = [(i, place) for i, place in enumerate(self.pinned) if place]
        self.integer_registers, self.float_registers = operand_registers(self.pinned)
        self._saved = False  # whether the locals that have registers are in their slots
        self._taken: list[tuple[int, Any]] = []
        self.clear_state(0)

    # -- emitting

    def emit(self, name: str, *values: int) -> None:
        """Copy a stencil, and fill in its holes in the order that TEMPLATES gives."""
        bytes_, holes, jumps = TEMPLATES[name]
        code = self.code
        start = len(code)
        code += bytes_
        for at, which in holes:
            _DISPLACEMENT.pack_into(code, start + at, values[which])
        for at, role in jumps:
            self._traps.append((start + at, role, self._offset))

    def emit_wide(self, name: str, value: int, *values: int) -> None:
        """Copy a stencil whose first two holes are the halves of a 64-bit value."""
        low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
        self.emit(name, low - (low >> 31 << 32), high - (high >> 31 << 32), *values)

    def jump(self, name: str, patches: list[tuple[int, int]]) -> None:
        """Copy a jump whose distance is not known yet."""
        self.code += TEMPLATES[name][0]
        at = len(self.code)
        patches.append((at - 4, at))

    def jump_back(self, name: str, target: int) -> None:
        """Copy a jump to code that is there."""
        self.code += TEMPLATES[name][0]
        at = len(self.code)
        _DISPLACEMENT.pack_into(self.code, at - 4, target - at)

    def land(self, patches: list[tuple[int, int]]) -> None:
        """Let these jumps come here."""
        here = len(self.code)
        for at, base in patches:
            _DISPLACEMENT.pack_into(self.code, at, here - base)

    def patch(self, at: int, value: int) -> None:
        """Fill in four bytes of code."""
        _DISPLACEMENT.pack_into(self.code, at, value)

    def trap_at(self, at: int, code: TrapCode) -> None:
        """Let the jump whose distance is at `at` go to a trap."""
        self._traps.append((at, f"trap.{code.name}", self._offset))

    # -- where things are

    def slot(self, height: int) -> int:
        """Return the displacement of an operand's slot from rbp."""
        return self._first_slot - 8 * height

    def local(self, index: int) -> int:
        """Return the displacement of a local from rbp."""
        if index < self._parameters:
            return 16 + 8 * index
        return -16 - 8 * (index - self._parameters)

    def spill(self, height: int) -> None:
        """Put an operand into its slot. Changes no flags."""
        kind, data = self.stack[height]
        if kind == SLOT:
            return
        slot = self.slot(height)
        if kind == LOCAL:
            place = self.pinned[data]
            if place:
                self.emit("spill" + place, slot)
            else:
                self.emit("copy", self.local(data), slot)
        elif kind == CONST:
            if signed_32(data):
                self.emit("store.const", slot, data)
            else:
                self.emit_wide("store.const.wide", data, slot)
        elif kind == ACC:
            self.emit("store", slot)
            self.acc = -1
        elif kind == XMM:
            self.emit("float.store", slot)
            self.xmm = -1
        elif kind == OTHER:
            self.emit("spill" + data, slot)
        else:
            self.free_acc()
            self.emit("flag." + data)
            self.acc_is = -1
            self.emit("store", slot)
        self.stack[height] = _IN_SLOT

    def flush(self, start: int = 0) -> None:
        """Put all operands from a height on into their slots. Changes no flags."""
        for height in range(start, len(self.stack)):
            if self.stack[height][0]:
                self.spill(height)

    def flush_registers(self) -> None:
        """Put what is in a register, or in the flags, into its slot: before a call."""
        for height, (kind, _) in enumerate(self.stack):
            if kind >= ACC:
                self.spill(height)

    def take(self) -> tuple[int, Any]:
        """Take the top operand from the stack; its register stays its own for this instruction."""
        operand = self.stack.pop()
        if operand[0] == OTHER:
            self._taken.append(operand)
        return operand

    def _free_register(self, registers: list[str]) -> str | None:
        for place in registers:
            operand = (OTHER, place)
            if operand not in self.stack and operand not in self._taken:
                return place
        return None

    def free_acc(self) -> None:
        """Make rax free. Changes no flags."""
        if self.acc >= 0:
            place = self._free_register(self.integer_registers)
            if place is None:
                self.spill(self.acc)
            else:
                self.emit("store" + place)
                self.stack[self.acc] = (OTHER, place)
                self.acc = -1

    def free_xmm(self) -> None:
        """Make xmm0 free. Changes no flags."""
        if self.xmm >= 0:
            place = self._free_register(self.float_registers)
            if place is None:
                self.spill(self.xmm)
            else:
                self.emit("float.store" + place)
                self.stack[self.xmm] = (OTHER, place)
                self.xmm = -1

    def source(self, operand: tuple[int, Any], height: int) -> tuple[str, tuple[int, ...]] | None:
        """Return how a stencil takes an operand from where it is: its suffix, and its holes.

        None if the operand is not in a slot or a local.
        """
        kind, data = operand
        if kind == SLOT:
            return ".slot", (self.slot(height),)
        if kind == OTHER:
            return data, ()
        if kind != LOCAL:
            return None
        place = self.pinned[data]
        return (place, ()) if place else (".slot", (self.local(data),))

    def in_memory(self, operand: tuple[int, Any], height: int) -> int | None:
        """Return the displacement of an operand that is in the frame, else None.

        During a call the locals that have a register are in the frame too.
        """
        kind, data = operand
        if kind == SLOT:
            return self.slot(height)
        if kind == LOCAL and (self._saved or not self.pinned[data]):
            return self.local(data)
        return None

    def save_locals(self) -> None:
        """Put the locals that have registers into their slots: before a call."""
        for index, place in self._in_registers:
            self.emit("spill" + place, self.local(index))
        self._saved = True

    def restore_locals(self) -> None:
        """Take the locals that have registers out of their slots: after a call."""
        for index, place in self._in_registers:
            self.emit("fill" + place, self.local(index))
        self._saved = False

    def to_acc(self, operand: tuple[int, Any], height: int) -> None:
        """Bring an operand, taken from the stack, to rax."""
        kind, data = operand
        if kind == ACC:
            self.acc = -1
            return
        self.free_acc()
        if kind == LOCAL:
            if self.acc_is != data:
                place = self.pinned[data]
                if place and not self._saved:
                    self.emit("load" + place)
                else:
                    self.emit("load", self.local(data))
                self.acc_is = data
            return
        self.acc_is = -1
        if kind == SLOT:
            self.emit("load", self.slot(height))
        elif kind == CONST:
            if data == 0:
                self.emit("const.0")
            elif 0 < data <= 0x7FFFFFFF:
                self.emit("const", data)
            else:
                self.emit_wide("const.wide", data)
        elif kind == XMM:
            self.xmm = -1
            self.emit("float.to_rax")
        elif kind == OTHER:
            self.emit("load" + data)
        else:
            self.emit("flag." + data)

    def to_xmm(self, operand: tuple[int, Any], height: int) -> None:
        """Bring an operand, taken from the stack, to xmm0."""
        kind, data = operand
        if kind == XMM:
            self.xmm = -1
            return
        self.free_xmm()
        if kind == LOCAL:
            if self.xmm_is != data:
                place = self.pinned[data]
                if place and not self._saved:
                    self.emit("float.load" + place)
                else:
                    self.emit("float.load", self.local(data))
                self.xmm_is = data
            return
        self.xmm_is = -1
        if kind == SLOT:
            self.emit("float.load", self.slot(height))
        elif kind == CONST:
            if data == 0:
                self.emit("float.zero")
            else:
                self.emit_wide("float.const", data)
        elif kind == OTHER:
            if data[:2] == ".x":
                self.emit("float.load" + data)
            else:  # the bits of a float that were in rax
                self.emit("to_rdx" + data)
                self.emit("float.from_rdx")
        else:
            self.acc = -1
            self.emit("float.from_rax")

    def settle(self, count: int, kind: int) -> None:
        """Put those of the top operands that are of this kind (ACC or XMM) into their slots.

        For an instruction that takes several of the other kind: an integer whose bits are in xmm0,
        or a float whose bits are in rax, comes of a reinterpretation or a select.
        """
        top = len(self.stack)
        other = ".x" if kind == XMM else ".r"
        for height in range(top - count, top):
            found, data = self.stack[height]
            if found == kind or (found == OTHER and data[:2] == other):
                self.spill(height)
        if self.stack[-1][0] == FLAGS:
            self.pop_acc()
            self.push_acc()

    def pop_acc(self) -> None:
        """Take the top operand to rax."""
        operand = self.take()
        self.to_acc(operand, len(self.stack))

    def pop_xmm(self) -> None:
        """Take the top operand to xmm0."""
        operand = self.take()
        self.to_xmm(operand, len(self.stack))

    def push_acc(self) -> None:
        """Put rax, changed, on the stack."""
        self.acc = len(self.stack)
        self.acc_is = -1
        self.stack.append(_IN_ACC)

    def push_xmm(self) -> None:
        """Put xmm0, changed, on the stack."""
        self.xmm = len(self.stack)
        self.xmm_is = -1
        self.stack.append(_IN_XMM)

    def push(self, valtype: int) -> None:
        """Put the accumulator of a value type on the stack."""
        if valtype in FLOATS:
            self.push_xmm()
        else:
            self.push_acc()

    def push_flags(self, condition: str) -> None:
        """Put the outcome of a comparison on the stack: as flags, if they are used next."""
        self.stack.append((FLAGS, condition))
        if self._next_opcode not in _FLAG_USERS:
            self.pop_acc()
            self.push_acc()

    def pop_condition(self) -> str:
        """Take the top operand as a condition: the one that says that it is not 0."""
        kind, data = self.stack[-1]
        if kind == FLAGS:
            self.stack.pop()
            return str(data)
        self.pop_acc()
        self.emit("i32.test")
        return "nz"

    def clear_state(self, height: int) -> None:
        """Begin where control comes together: `height` operands, all in their slots."""
        self.stack = [_IN_SLOT] * height
        self.acc = self.xmm = self.acc_is = self.xmm_is = -1

    def to_rcx(self, operand: tuple[int, Any], height: int) -> None:
        """Bring an operand, taken from the stack, to rcx."""
        source = self.source(operand, height)
        kind, data = operand
        if source is not None:
            self.emit("load.rcx" + source[0], *source[1])
        elif kind == CONST and 0 <= data <= 0x7FFFFFFF:
            self.emit("const.rcx", data)
        elif kind == CONST:
            self.emit_wide("const.rcx.wide", data)
        else:
            assert kind == ACC
            self.acc = -1
            self.emit("move.rcx")
