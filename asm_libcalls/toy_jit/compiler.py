"""One pass over a validated function: prologue, instructions, and what is out of line.

The instructions are emitted by :mod:`asm_libcalls.toy_jit.emitters`, which call what is here for
calls and branches, and :class:`~asm_libcalls.toy_jit.places.Places` for where things are.
"""

from __future__ import annotations

import struct

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import EXTERNREF, I32
from asm_libcalls.toy_jit.operands import FUNCTION
from asm_libcalls.toy_jit.places import (
    ACC,
    CONST,
    FLAGS,
    FLOATS,
    LOCAL,
    NEGATED,
    OTHER,
    SLOT,
    XMM,
    Places,
    signed_32,
)
from asm_libcalls.toy_jit.registers import is_brief
from asm_libcalls.toy_jit.templates import TEMPLATES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Handler = Callable[["FunctionCompiler", int, Any, int], None]

    from asm_libcalls.toy_jit.layout import CodeLayout
    from asm_libcalls.toy_jit.module import FuncType
    from asm_libcalls.toy_jit.operands import Frame
    from asm_libcalls.toy_jit.validator import Body

__all__ = ["FunctionCompiler"]

_DISPLACEMENT = struct.Struct("<i")
_IN_SLOT = (SLOT, 0)


class FunctionCompiler(Places):
    """Compiles one function behind another into one piece of code."""

    def __init__(self, layout: CodeLayout, handlers: Sequence[Handler]) -> None:
        super().__init__(layout)
        self._handlers = handlers

    # -- a function

    def compile(self, body: Body, functype: FuncType) -> int:
        """Compile a function; return the offset of its code."""
        layout, code = self.layout, self.code
        code += b"\xcc" * (-len(code) % 16)
        start = len(code)
        types = body.local_types
        self.begin(body, len(functype.params))
        self._references = [
            self.local(i) for i, valtype in enumerate(types) if valtype == EXTERNREF
        ]
        self._results = functype.results
        self._outgoing = 0
        self._checks: list[tuple[int, int, int, tuple[int, ...]]] = []

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
        size = 16 + 8 * (len(types) - self._parameters + body.max_height) + 8 * self._outgoing
        size = -(-size // 16) * 16
        _DISPLACEMENT.pack_into(code, frame_hole, size)
        layout.ends.append(len(code))
        self._out_of_line(size)

        layout.functions.append((start, len(code)))
        layout.brief.append(is_brief(body))
        return start

    def _prologue(self, locals_: int) -> int:
        at = len(self.code)
        bytes_, holes, jumps = TEMPLATES["prologue"]
        self.code += bytes_
        # The stack map: of the locals only parameters are there yet.
        slots = tuple(slot for slot in self._references if slot > 0)
        self._checks.append((at + jumps[0][0], len(self.code), self._offset, slots))
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

    def check(self, references: tuple[int, ...]) -> None:
        """Let a loop be stopped from outside; `references` are heights, all in their slots."""
        at = len(self.code)
        bytes_, _, jumps = TEMPLATES["check"]
        self.code += bytes_
        slots = (*self._references, *map(self.slot, references))
        self._checks.append((at + jumps[0][0], len(self.code), self._offset, slots))

    def _out_of_line(self, frame_size: int) -> None:
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
        for at, back, offset, slots in self._checks:
            _DISPLACEMENT.pack_into(self.code, at, len(self.code) - (at + 4))
            entered = at != self._checks[0][0]  # at the first one no local has its register yet
            if entered:
                self.save_locals()
            self.emit("interrupt.loop" if entered else "interrupt.enter")
            self.code += TEMPLATES["call"][0]
            layout.calls.append((len(self.code) - 4, "interrupt"))
            layout.sites.append((len(self.code), offset))
            if slots:
                layout.stack_maps[len(self.code)] = slots
            if entered:
                self.restore_locals()
            else:
                self.emit("interrupt.entered", -frame_size)
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
