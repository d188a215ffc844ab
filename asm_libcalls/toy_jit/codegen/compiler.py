"""The compiler of one function: the prologue, the loop over its instructions, out-of-line code.

The code of instructions is emitted by :mod:`asm_libcalls.toy_jit.codegen.handlers`. They use
``Emitter`` (calls and branches) and ``Places`` (operands and locals), the compiler's base classes.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.calls import Emitter
from asm_libcalls.toy_jit.codegen.copies import CONSTANTS, fill_in
from asm_libcalls.toy_jit.codegen.function_code import constant
from asm_libcalls.toy_jit.codegen.handlers import make_handlers
from asm_libcalls.toy_jit.codegen.places import MOST_UNFLUSHED
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend.body import Body, Instruction
    from asm_libcalls.toy_jit.frontend.module import FuncType

_LAST: Instruction = (op.END, None, 0)
_CLEARED_ONE_BY_ONE = 8  # locals; more are cleared by a loop


class FunctionCompiler(Emitter):
    """Compiles functions, one behind another, into the code of a module."""

    def compile(self, body: Body, functype: FuncType) -> None:
        """Compile a function."""
        layout, code = self.layout, self.code
        code += b"\xcc" * (-len(code) % 16)
        start = len(code)
        self.begin_function(body, functype)
        frame_hole = self._prologue(len(functype.params))
        handlers, stack, locals_ = self.handlers(), self.stack, self.locals
        following: Iterable[Instruction] = [*body.instructions[1:], _LAST]
        if layout.marks is not None:
            following = self._marked(following, layout.marks)
        local_get, i32_const, most = op.LOCAL_GET, op.I32_CONST, MOST_UNFLUSHED
        constants = CONSTANTS.kept.get
        may_flush = body.max_height > most
        for current, after in zip(body.instructions, following, strict=True):
            opcode, immediate, _ = current
            # Two instructions, almost half of all code, are handled here, as push() does.
            if opcode == local_get:
                stack.append(locals_[immediate])
            elif opcode == i32_const:
                stack.append(constants(immediate) or CONSTANTS.add(immediate))
            else:
                self.current, self.following = current, after
                handlers[opcode](self, immediate)
                continue
            if may_flush and len(stack) - self.flushed > most:
                self.flush()
        size = 8 * self.outgoing - self.slots[-1][1]
        size = -(-size // 16) * 16
        fill_in(code, frame_hole, size)
        layout.ends.append(len(code))
        self._out_of_line(size)
        self.check_size()

        layout.functions.append((start, len(code)))

    def _marked(
        self, instructions: Iterable[Instruction], marks: array[int]
    ) -> Iterator[Instruction]:
        """Note where the code of each instruction begins."""
        for each in instructions:
            marks.append(len(self.code))
            yield each

    def handlers(self) -> Sequence[Callable[[Any, Any], object]]:
        """Return the handlers by opcode."""
        return make_handlers(self.layout.inline)

    def _prologue(self, parameters: int) -> int:
        at = len(self.code)
        bytes_, holes, _ = TEMPLATES["prologue"]
        self.code += bytes_
        # In the stack map: only parameters, since the other locals are not cleared yet.
        self.check_of(tuple(slot for slot in self.references if slot > 0))
        cleared = self.cleared
        if cleared > _CLEARED_ONE_BY_ONE:
            # [rbp + 8 * rcx + offset] for rcx from the number of slots down to 1
            self.emit("clear", cleared, -16 - 8 * cleared)
        for i in self.in_registers:
            if i < parameters:
                self.move(self.locals[i], self.homes[i])
        # The loop has cleared all slots, so that only registers are cleared here.
        all_ = cleared <= _CLEARED_ONE_BY_ONE
        zero = constant(0)
        for i in range(parameters, len(self.homes)) if all_ else self.in_registers:
            if i >= parameters:
                self.move(self.locals[i], zero)
        return at + holes[0][0]

    def _out_of_line(self, frame_size: int) -> None:
        """Emit the code that rarely runs behind the function: its traps and interrupts."""
        code, layout, start = self.code, self.layout, self.layout.start
        call, first = TEMPLATES["call"][0], len(code)
        size, end = len(call), first
        last = role_of_last = None
        calls, note_origin = layout.calls, layout.origins.append
        for at, role, offset in self.traps:
            # The jumps of one instruction with the same role are one after another.
            if offset != last or role != role_of_last:
                last, role_of_last = offset, role
                end += size
                calls[role].append(end - 4)
                note_origin(start + offset)
            fill_in(code, at, end - size - at - 4)
        code += call * ((end - first) // size)
        layout.returns.extend(range(first + size, end + 1, size))
        for i, (at, back, offset, slots) in enumerate(self.checks):
            self.land([at])
            entered = i > 0  # the first is the prologue's, where no local is in its register yet
            if entered:
                self.save_locals()
            self.emit("interrupt.loop" if entered else "interrupt.enter")
            self.call("interrupt")
            self.site_of(offset, slots)
            if entered:
                self.restore_locals()
            else:
                self.emit("interrupt.entered", -frame_size)
            self.jump_back("", back)
