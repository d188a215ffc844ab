"""The compiler of one function: the prologue, the loop over its instructions, out-of-line code.

The code of instructions is emitted by :mod:`asm_libcalls.toy_jit.codegen.handlers`. They use
``Emitter`` (calls and branches) and ``Places`` (operands and locals), the compiler's base classes.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.calls import Emitter
from asm_libcalls.toy_jit.codegen.handlers import make_handlers
from asm_libcalls.toy_jit.codegen.places import constant
from asm_libcalls.toy_jit.codegen.registers import is_brief
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import FuncType
    from asm_libcalls.toy_jit.frontend.validator import Body

__all__ = ["FunctionCompiler"]

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
        handlers, marks = self.handlers(), layout.marks
        instructions = body.instructions
        last = len(instructions) - 1
        most = layout.budget.limits["max_code_size"]
        for i, (opcode, immediate, height, offset) in enumerate(instructions):
            self.opcode, self.height, self.offset = opcode, height, offset
            self.next_opcode = instructions[i + 1][0] if i < last else op.END
            if marks is not None:
                marks.append((len(code), offset, opcode, immediate))
            handlers[opcode](self, immediate)
            if len(code) > most:
                self.check_size()
        size = 8 * self.outgoing - self.slots[-1][1]
        size = -(-size // 16) * 16
        self.patch(frame_hole, size)
        layout.ends.append(len(code))
        self._out_of_line(size)
        self.check_size()

        layout.functions.append((start, len(code)))
        layout.brief.append(is_brief(body))

    def handlers(self) -> Sequence[Callable[[Any, Any], None]]:
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
        for i, (local, home) in enumerate(zip(self.locals, self.homes, strict=True)):
            if i < parameters:
                self.move(local, home)
            elif local != home or cleared <= _CLEARED_ONE_BY_ONE:
                self.move(local, constant(0))
        return at + holes[0][0]

    def _out_of_line(self, frame_size: int) -> None:
        """Emit the code that rarely runs behind the function: its traps and interrupts."""
        stubs: dict[tuple[str, int], int] = {}
        for at, role, offset in self.traps:
            if (role, offset) not in stubs:
                stubs[role, offset] = len(self.code)
                self.call(role)
                self.site_of(offset, ())
            self.patch_jump(at, stubs[role, offset])
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
            self.jump("jump", [])
            self.patch_jump(len(self.code) - 4, back)
