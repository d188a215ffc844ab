"""One pass over a validated function: prologue, instructions, and what is out of line.

The instructions are emitted by :mod:`asm_libcalls.toy_jit.codegen.handlers`, which call what is
here for calls and branches, and ``Places`` for where things are.
"""

from __future__ import annotations

from asm_libcalls.calling_convention import INTEGER_REGISTERS
from asm_libcalls.libcalls import BUILTIN_ARRAY, DECLARATIONS, SYMBOL_PREFIX
from asm_libcalls.toy_jit.codegen.handlers import make_handlers
from asm_libcalls.toy_jit.codegen.places import NEGATED, Places, constant, halves
from asm_libcalls.toy_jit.codegen.registers import is_brief, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, I32
from asm_libcalls.toy_jit.frontend.operands import FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.toy_jit.codegen.handlers import Handler
    from asm_libcalls.toy_jit.frontend.module import FuncType
    from asm_libcalls.toy_jit.frontend.operands import Frame
    from asm_libcalls.toy_jit.frontend.validator import Body

__all__ = ["FunctionCompiler"]

_CLEARED_ONE_BY_ONE = 8  # locals; more of them take a loop


class FunctionCompiler(Places):
    """Compiles one function behind another into one piece of code."""

    # -- a function

    def compile(self, body: Body, functype: FuncType) -> None:
        """Compile a function."""
        layout, code = self.layout, self.code
        code += b"\xcc" * (-len(code) % 16)
        start = len(code)
        self.begin(body, len(functype.params))
        self._references = [
            home[1]
            for home, valtype in zip(self.homes, body.local_types, strict=True)
            if valtype == EXTERNREF
        ]
        self.result_types = functype.results
        self.outgoing = 0
        # Jumps to be patched, where to go on, the place in the module, the slots of references.
        self._checks: list[tuple[int, int, int, list[int]]] = []

        frame_hole = self._prologue(len(functype.params))
        handlers, marks = self.handlers(), layout.marks
        instructions = body.instructions
        last = len(instructions) - 1
        for i, (opcode, immediate, height, offset) in enumerate(instructions):
            self.opcode, self.height, self.offset = opcode, height, offset
            self.next_opcode = instructions[i + 1][0] if i < last else op.END
            if marks is not None:
                marks.append((len(code), offset, opcode, immediate))
            handlers[opcode](self, immediate)
        size = 8 * self.outgoing - self.slots[-1][1]
        size = -(-size // 16) * 16
        self.patch(frame_hole, size)
        layout.ends.append(len(code))
        self._out_of_line(size)

        layout.functions.append((start, len(code)))
        layout.brief.append(is_brief(body))

    def handlers(self) -> list[Handler]:
        """Return the emitters by opcode."""
        return make_handlers(self.layout.inline)

    def _prologue(self, parameters: int) -> int:
        at = len(self.code)
        bytes_, holes, _ = TEMPLATES["prologue"]
        self.code += bytes_
        # The stack map: of the locals only parameters are there yet.
        self._check([slot for slot in self._references if slot > 0])
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

    def _check(self, slots: list[int]) -> None:
        at = len(self.code)  # behind the check, whose jump is the last of it
        # What was interrupted checks again: only then is it known that the stack is deep enough.
        self._checks.append((at - 4, at - len(TEMPLATES["check"][0]), self.offset, slots))

    def check(self, references: tuple[int, ...]) -> None:
        """Let a loop be stopped from outside; `references` are heights, all in their slots."""
        self.code += TEMPLATES["check"][0]
        self._check([*self._references, *(self.slots[height][1] for height in references)])

    def _out_of_line(self, frame_size: int) -> None:
        """Emit what is rarely run behind the function: its traps and interrupts."""
        stubs: dict[tuple[str, int], int] = {}
        for at, role, offset in self.traps:
            if (role, offset) not in stubs:
                stubs[role, offset] = len(self.code)
                self.call(role)
                self._site(offset, [])
            self.patch_jump(at, stubs[role, offset])
        for i, (at, back, offset, slots) in enumerate(self._checks):
            self.land([at])
            entered = i > 0  # at the first one no local has its register yet
            if entered:
                self.save_locals()
            self.emit("interrupt.loop" if entered else "interrupt.enter")
            self.call("interrupt")
            self._site(offset, slots)
            if entered:
                self.restore_locals()
            else:
                self.emit("interrupt.entered", -frame_size)
            self.jump("jump", [])
            self.patch_jump(len(self.code) - 4, back)

    # -- calls

    def call(self, role: str) -> None:
        """Call a function or a stub of this module."""
        self.code += TEMPLATES["call"][0]
        self.layout.calls.append((len(self.code) - 4, role))

    def _site(self, offset: int, slots: list[int]) -> None:
        self.layout.sites.append((len(self.code), offset))
        if slots:
            self.layout.stack_maps[len(self.code)] = tuple(slots)

    def site(self, references: tuple[int, ...]) -> None:
        """Note the call whose return address is here: where it is in the module, its stack map.

        `references` are the heights of the operands that are references. Those that the call takes
        are off the stack; of the others, what is not in its own slot is a local, or null.
        """
        slots = [
            self.slots[height][1]
            for height in references
            if height < len(self.stack) and self.stack[height] == self.slots[height]
        ]
        self._site(self.offset, self._references + slots)

    def call_other(self, references: tuple[int, ...]) -> None:
        """Call code that may be another instance's: its address is in rax, its vmctx in rcx."""
        self.emit("call.other")
        self.site(references)
        self.emit("call.back")

    def arguments(self, functype: FuncType) -> None:
        """Take the operands of a call to the outgoing arguments; put the others in slots."""
        count = len(functype.params)
        self.flush_registers(len(self.stack) - count)
        for i in reversed(range(count)):
            self.move(("argument", 8 * i), self.pop())
        self.save_locals()
        self.outgoing = max(self.outgoing, count, len(functype.results))

    def results(self, functype: FuncType) -> None:
        """Put the results of a call on the stack."""
        self.restore_locals()
        if len(functype.results) == 1:
            self.push_result(functype.results[0])
            return
        for i in range(len(functype.results)):
            slot = self.slots[len(self.stack)]
            self.move(slot, ("argument", 8 * i))
            self.stack.append(slot)

    def libcall(
        self,
        name: str,
        arguments: Sequence[int | str],
        count: int,
        references: tuple[int, ...] = (),
        results: bytes = b"",
        externref: bool = False,
    ) -> None:
        """Call a libcall: in C's registers, with its result in rax or xmm0.

        Parameters
        ----------
        name : str
            Of the libcall, or of what toy_jit has beside them.
        arguments : sequence of int or str
            Constants, ``"vmctx"``, or letters for the operands: "a" is the lowest of `count`.
        count : int
            The operands that it takes from the stack.
        references : tuple of int
            The heights of the operands that are references.
        results : bytes
            The value type of the result, if there is one.
        externref : bool
            Which slot of the builtin array: two libcalls have one for each reference type.
        """
        self.flush_registers(len(self.stack))
        self.save_locals()
        operands = [self.pop() for _ in range(count)][::-1]
        if self.layout.counters is not None and name in DECLARATIONS:
            self.emit("call.count", *halves(self.layout.counter(name)))
        # The operands are constants or in memory now, so no argument overwrites another.
        for register, argument in zip(INTEGER_REGISTERS, arguments, strict=False):
            if argument == "vmctx":
                self.move((register,), ("r15",))
            elif isinstance(argument, int):
                self.move((register,), constant(argument))
            else:
                place = operands["abc".index(argument)]
                # A function of floats has one argument, and a result of its type.
                target = "xmm0" if operand_registers(results) == ("xmm0",) else register
                self.move((target,), self.saved.get(place, place))
        if name in BUILTIN_ARRAY:
            self.emit("call.builtin", self.layout.builtin(name, externref))
        else:
            address = self.layout.addresses.get(SYMBOL_PREFIX + name)
            self.emit("call.address", *halves(address or self.layout.addresses[name]))
        self.site(references)
        self.restore_locals()
        for valtype in results:
            if valtype == I32:
                self.emit("i32.wrap_i64")  # the ABI does not clear the upper half
            self.push_result(valtype)

    # -- branches

    def return_(self) -> None:
        """Emit the way out of the function, with the results on the stack."""
        results = self.result_types
        if len(results) == 1:
            self.take(operand_registers(results))
        elif results:
            # They go where the parameters are: first none of them may be a parameter any more.
            base = len(self.stack) - len(results)
            self.flush(base)
            for i in range(len(results)):
                self.move(("slot", 16 + 8 * i), self.slots[base + i])
        self.layout.epilogues.append(len(self.code))
        self.emit("epilogue")

    def jump_to(self, name: str, frame: Frame) -> None:
        """Jump to a frame's label, which everything is ready for."""
        if frame.opcode == op.LOOP:
            self.jump(name, [])
            self.patch_jump(len(self.code) - 4, frame.target)
        else:
            self.jump(name, frame.target)

    def branch(self, frame: Frame) -> None:
        """Emit an unconditional branch."""
        if frame.opcode == FUNCTION:
            self.return_()
            return
        base = len(self.stack) - len(frame.label)
        self.flush(base)
        for i in range(len(frame.label)):
            self.move(self.slots[frame.height + i], self.slots[base + i])
        self.jump_to("jump", frame)

    def branch_if(self, condition: str, frame: Frame) -> None:
        """Emit a branch that is taken if a condition holds."""
        base = len(self.stack) - len(frame.label)
        self.flush(base)
        if frame.opcode != FUNCTION and (base == frame.height or not frame.label):
            self.jump_to("jump." + condition, frame)
            return
        not_taken: list[int] = []
        self.jump("jump." + NEGATED[condition], not_taken)
        state = list(self.stack), dict(self.held)
        self.branch(frame)
        self.stack, self.held = state
        self.land(not_taken)
