"""One pass over a validated function, copying stencils and filling in their holes.

Every operand has a slot in the frame, by its height on the operand stack, but it is not put there
at once. While one pass goes over the instructions it keeps, for each operand, where its value *is*:

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
from asm_libcalls.toy_jit.module import EXTERNREF, F32, F64, FUNCREF, I32
from asm_libcalls.toy_jit.operands import FUNCTION
from asm_libcalls.toy_jit.registers import choose_registers, is_brief, operand_registers
from asm_libcalls.toy_jit.templates import TEMPLATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Handler = Callable[["FunctionCompiler", int, Any, int], None]

    from asm_libcalls.toy_jit.linker import CodeLayout
    from asm_libcalls.toy_jit.module import FuncType
    from asm_libcalls.toy_jit.operands import Frame
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
    "FunctionCompiler",
    "signed_32",
]

SLOT, LOCAL, CONST, ACC, XMM, FLAGS, OTHER = range(7)
_IN_SLOT = (SLOT, 0)
_IN_ACC = (ACC, 0)
_IN_XMM = (XMM, 0)

_DISPLACEMENT = struct.Struct("<i")
_FLAG_USERS = frozenset((op.BR_IF, op.IF, op.OPCODES["i32.eqz"], op.SELECT))
FLOATS = (F32, F64)
_REFERENCES = (FUNCREF, EXTERNREF)

# Intel's condition codes, and their opposites.
NEGATED = {"z": "nz", "c": "nc", "be": "a", "l": "ge", "le": "g", "p": "np", "o": "no"}
NEGATED |= {b: a for a, b in NEGATED.items()}


def signed_32(value: int) -> bool:
    """Return whether 32 bits, sign-extended, can hold a value."""
    return -0x80000000 <= value <= 0x7FFFFFFF


class FunctionCompiler:
    """Compiles one function behind another into one piece of code."""

    def __init__(self, layout: CodeLayout, handlers: Sequence[Handler]) -> None:
        self.layout = layout
        self.code = layout.code
        self.stack: list[tuple[int, Any]] = []
        self.acc = self.xmm = -1  # the height of the operand that is there
        self.acc_is = self.xmm_is = -1  # the local that has the same value
        self.pinned: list[str] = []  # by local: the suffix of its register's stencils, or ""
        self._in_registers: list[tuple[int, str]] = []
        self._handlers = handlers

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

    # -- a function

    def compile(self, body: Body, functype: FuncType) -> int:
        """Compile a function; return the offset of its code."""
        layout, code = self.layout, self.code
        code += b"\xcc" * (-len(code) % 16)
        start = len(code)
        types = body.local_types
        self._parameters = len(functype.params)
        self._first_slot = -16 - 8 * (len(types) - self._parameters)
        self._references = [
            self.local(i) for i, valtype in enumerate(types) if valtype in _REFERENCES
        ]
        self._results = functype.results
        self._outgoing = 0
        self._traps: list[tuple[int, str, int]] = []
        self._checks: list[tuple[int, int, int]] = []
        self._offset = body.instructions[0][3]
        self._saved = False
        self.pinned = choose_registers(body, self.layout.inline)
        self._in_registers = [(i, place) for i, place in enumerate(self.pinned) if place]
        self.integer_registers, self.float_registers = operand_registers(self.pinned)
        self._taken: list[tuple[int, Any]] = []
        self.clear_state(0)

        frame_hole = self._prologue(len(types) - self._parameters)
        handlers = self._handlers
        instructions = body.instructions
        last = len(instructions) - 1
        for i, (opcode, immediate, height, offset) in enumerate(instructions):
            self._offset = offset
            if self._taken:
                self._taken = []
            self._next_opcode = instructions[i + 1][0] if i < last else op.END
            handlers[opcode](self, opcode, immediate, height)
        self._out_of_line()

        size = 16 + 8 * (len(types) - self._parameters + body.max_height) + 8 * self._outgoing
        _DISPLACEMENT.pack_into(code, frame_hole, -(-size // 16) * 16)
        layout.functions.append((start, len(code)))
        layout.brief.append(is_brief(body))
        return start

    def _prologue(self, locals_: int) -> int:
        at = len(self.code)
        bytes_, holes, jumps = TEMPLATES["prologue"]
        self.code += bytes_
        self._checks.append((at + jumps[0][0], len(self.code), self._offset))
        if locals_ > 8:
            # [rbp + 8 * rcx + offset] for rcx from the number of locals down to 1
            self.emit("clear", locals_, -16 - 8 * locals_)
        else:
            for i in range(locals_):
                if not self.pinned[self._parameters + i]:
                    self.emit("store.const", -16 - 8 * i, 0)
        for index, place in self._in_registers:
            if index < self._parameters:
                self.emit("fill" + place, self.local(index))
            else:
                self.emit("zero" + place)
        return at + holes[0][0]

    def check(self) -> None:
        """Let a loop be stopped from outside."""
        at = len(self.code)
        bytes_, _, jumps = TEMPLATES["check"]
        self.code += bytes_
        self._checks.append((at + jumps[0][0], len(self.code), self._offset))

    def _out_of_line(self) -> None:
        """Emit what is rarely run behind the function: its traps and interrupts."""
        layout = self.layout
        stubs: dict[tuple[str, int], int] = {}
        for at, role, offset in self._traps:
            key = (role, offset)
            if key not in stubs:
                stubs[key] = len(self.code)
                self.code += TEMPLATES["call"][0]
                layout.calls.append((len(self.code) - 4, role))
                layout.sites.append((len(self.code), offset))
            _DISPLACEMENT.pack_into(self.code, at, stubs[key] - (at + 4))
        for at, back, offset in self._checks:
            _DISPLACEMENT.pack_into(self.code, at, len(self.code) - (at + 4))
            entered = at != self._checks[0][0]  # at the first one no local has its register yet
            if entered:
                self.save_locals()
            self.code += TEMPLATES["call"][0]
            layout.calls.append((len(self.code) - 4, "interrupt"))
            layout.sites.append((len(self.code), offset))
            if entered:
                self.restore_locals()
            self.jump_back("jump", back)

    # -- calls

    def site(self, references: tuple[int, ...], kept: int) -> None:
        """Note the call whose return address is here: where it is in the module, its stack map.

        `references` are the heights of the operands that are references. Those below `kept` stay
        in the frame during the call; of these, what is not in its own slot is a local, or null.
        """
        layout = self.layout
        here = len(self.code)
        layout.sites.append((here, self._offset))
        slots = [
            self.slot(height)
            for height in references
            if height < kept and self.stack[height][0] == SLOT
        ]
        if slots or self._references:
            layout.stack_maps[here] = (*self._references, *slots)

    def arguments(self, functype: FuncType) -> None:
        """Take the operands of a call to the outgoing arguments; put the others in slots."""
        count = len(functype.params)
        kept = len(self.stack) - count
        for height in range(kept):
            if self.stack[height][0] >= ACC:
                self.spill(height)
        if self.stack and self.stack[-1][0] == FLAGS:
            self.pop_acc()
            self.push_acc()
        for i in range(count):
            kind, data = self.stack[kept + i]
            if kind == ACC:
                self.emit("argument.store", 8 * i)
                self.acc = -1
            elif kind == XMM:
                self.emit("argument.float.store", 8 * i)
                self.xmm = -1
            elif kind == CONST and signed_32(data):
                self.emit("argument.const", 8 * i, data)
            elif kind == CONST:
                self.emit_wide("argument.const.wide", data, 8 * i)
            elif kind == LOCAL and self.pinned[data]:
                self.emit("argument" + self.pinned[data], 8 * i)
            elif kind == OTHER:
                self.emit("argument" + data, 8 * i)
            else:
                at = self.local(data) if kind == LOCAL else self.slot(kept + i)
                self.emit("argument.copy", at, 8 * i)
        del self.stack[kept:]
        self.save_locals()
        self._outgoing = max(self._outgoing, count, len(functype.results))

    def results(self, functype: FuncType) -> None:
        """Put the results of a call on the stack."""
        self.acc_is = self.xmm_is = -1
        self.restore_locals()
        if len(functype.results) == 1:
            self.push(functype.results[0])
            return
        for i in range(len(functype.results)):
            self.emit("result.copy", 8 * i, self.slot(len(self.stack)))
            self.stack.append(_IN_SLOT)

    def libcall(
        self,
        name: str,
        arguments: tuple[int | None, ...],
        references: tuple[int, ...],
        result: int | None = None,
        externref: bool = False,
    ) -> None:
        """Call a libcall through the builtin array, with vmctx first.

        `arguments` are constants, or None for the operands on the stack, in their order. Two
        libcalls have a slot for each reference type: `externref` says which.
        """
        count = arguments.count(None)
        kept = len(self.stack) - count
        self.flush_registers()
        for height in range(kept, len(self.stack)):
            kind, data = self.stack[height]
            if kind == CONST and not 0 <= data <= 0x7FFFFFFF:
                self.spill(height)  # now: it takes rdx, which will be an argument
        self.save_locals()
        height = kept
        self.emit("libcall.vmctx")
        for i, argument in enumerate(arguments, 1):
            if argument is not None:
                self.emit(f"libcall.{i}.const", argument)
                continue
            kind, data = self.stack[height]
            if kind == CONST:
                self.emit(f"libcall.{i}.const", data)
            else:
                at = self.in_memory(self.stack[height], height)
                assert at is not None
                self.emit(f"libcall.{i}.slot", at)
            height += 1
        del self.stack[kept:]
        self.emit("libcall.builtin", self.layout.builtin(name, externref))
        self.site(references, kept)
        self.acc_is = self.xmm_is = -1
        self.restore_locals()
        if result is not None:
            if result == I32:
                self.emit("i32.wrap")  # the ABI does not clear the upper half
            self.push_acc()

    def numeric_libcall(self, name: str, float_: bool) -> None:
        """Call one of the 15 libcalls that work on numbers, at its address."""
        address = self.layout.addresses["wasmtime_" + name]
        if float_:
            self.pop_xmm()
            self.flush_registers()
            self.save_locals()
        else:
            self.settle(2, XMM)
            self.settle(2, OTHER)  # their registers will be arguments
            for height in range(len(self.stack) - 2):
                if self.stack[height][0] >= ACC:
                    self.spill(height)  # now: its register may be an argument's, or become one
            self.save_locals()
            right, left = self.stack.pop(), self.stack.pop()
            height = len(self.stack)
            operands = [(0, left, height), (1, right, height + 1)]
            if right[0] == ACC:
                operands.reverse()  # before anything else needs rax
            for i, operand, height in operands:
                at = self.in_memory(operand, height)
                if at is not None:
                    self.emit(f"libcall.{i}.slot", at)
                elif operand[0] == CONST and 0 <= operand[1] <= 0x7FFFFFFF:
                    self.emit(f"libcall.{i}.const", operand[1])
                else:
                    self.to_acc(operand, height)
                    self.emit(f"libcall.{i}.rax")
            self.flush_registers()
        self.emit_wide("const.wide", address)
        self.emit("call.rax")
        self.site((), 0)
        self.acc_is = self.xmm_is = -1
        self.restore_locals()
        if float_:
            self.push_xmm()
        else:
            self.push_acc()

    # -- branches

    def return_(self) -> None:
        """Emit the way out of the function, with the results on the stack."""
        results = self._results
        base = len(self.stack) - len(results)
        if len(results) == 1:
            operand = self.stack[-1]
            if results[0] in FLOATS:
                self.to_xmm(operand, base)
            else:
                self.to_acc(operand, base)
        elif results:
            # They go where the parameters are: first none of them may be a parameter any more.
            self.flush(base)
            for i in range(len(results)):
                self.emit("copy", self.slot(base + i), 16 + 8 * i)
        self.emit("epilogue")

    def move_label(self, frame: Frame) -> None:
        """Put what a branch carries where its target expects it."""
        count = len(frame.label)
        base = len(self.stack) - count
        self.flush(base)
        if base != frame.height:
            for i in range(count):
                self.emit("copy", self.slot(base + i), self.slot(frame.height + i))

    def jump_to(self, name: str, frame: Frame) -> None:
        """Jump to a frame's label, which everything is ready for."""
        if frame.opcode == op.LOOP:
            self.jump_back(name, frame.target)
        else:
            self.jump(name, frame.target)

    def branch(self, frame: Frame) -> None:
        """Emit an unconditional branch."""
        if frame.opcode == FUNCTION:
            self.return_()
        else:
            self.move_label(frame)
            self.jump_to("jump", frame)

    def branch_if(self, condition: str, frame: Frame) -> None:
        """Emit a branch that is taken if a condition holds."""
        count = len(frame.label)
        base = len(self.stack) - count
        if frame.opcode != FUNCTION:
            self.flush(base)
            if count == 0 or base == frame.height:
                self.jump_to("jump." + condition, frame)
                return
        elif count:
            self.flush(base)
        not_taken: list[tuple[int, int]] = []
        self.jump("jump." + NEGATED[condition], not_taken)
        state = (list(self.stack), self.acc, self.xmm, self.acc_is, self.xmm_is)
        self.branch(frame)
        self.stack, self.acc, self.xmm, self.acc_is, self.xmm_is = state
        self.land(not_taken)
