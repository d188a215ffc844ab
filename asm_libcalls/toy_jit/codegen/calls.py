"""Emitter: the code of calls, checks and branches, for the handlers of instructions.

Its base class ``Places`` has the places of operands and locals.
"""

from __future__ import annotations

from asm_libcalls.calling_convention import INTEGER_REGISTERS
from asm_libcalls.libcalls import BUILTIN_ARRAY, DECLARATIONS, SYMBOL_PREFIX
from asm_libcalls.toy_jit.codegen.function_code import constant
from asm_libcalls.toy_jit.codegen.places import Places
from asm_libcalls.toy_jit.codegen.registers import NEGATED, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, I32, V128
from asm_libcalls.toy_jit.frontend.operands import FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.toy_jit.codegen.function_code import Place
    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.body import Body
    from asm_libcalls.toy_jit.frontend.module import FuncType
    from asm_libcalls.toy_jit.frontend.operands import Frame

_CALL = TEMPLATES["call"][0]


class Emitter(Places):
    """Emits the code of one function."""

    def __init__(self, layout: CodeLayout) -> None:
        super().__init__(layout)
        self._arguments: dict[bytes, tuple[list[Place], int]] = {}

    def begin_function(self, body: Body, functype: FuncType) -> None:
        """Begin a function."""
        self.begin(body, len(functype.params))
        types = body.local_types
        # the slots of externref locals, relative to rbp; all stack maps of the function have them
        self.references: tuple[int, ...] = ()
        if EXTERNREF in types:
            homes = zip(self.homes, types, strict=True)
            self.references = tuple(home[1] for home, type_ in homes if type_ == EXTERNREF)
        self.result_types = functype.results
        self.outgoing = 0  # the number of slots that its calls need for arguments and results
        # for each check: the offset of its jump, the offset where an interrupt returns to, its
        # offset in the module, and the slots of references
        self.checks: list[tuple[int, int, int, tuple[int, ...]]] = []

    def check_size(self) -> None:
        """Raise LimitExceeded if the code is too large.

        Instructions whose code may be long call this: calls, branches and returns.
        """
        if len(self.code) > self.layout.most_code:
            self.layout.budget.check("max_code_size", len(self.code), self.origin())

    def stack_map(self, operands: list[int]) -> tuple[int, ...]:
        """Return a stack map: the slots of externref locals, and these of operands."""
        if not operands:
            return self.references  # shared, so that a thousand stack maps need no more than one
        # The validator has counted the operands in the budget.
        self.layout.budget.use("max_stack_map_slots", len(self.references), self.origin())
        return (*self.references, *operands)

    # -- locals that have registers

    def save_locals(self) -> None:
        """Copy the locals that have registers to their slots, before a call."""
        self.forget()
        if self.saved:
            saving, _ = self.transfers or self.make_transfers()
            self.code += saving

    def restore_locals(self) -> None:
        """Load the locals that have registers from their slots, after a call."""
        if self.saved:
            _, restoring = self.transfers or self.make_transfers()
            self.code += restoring

    def make_transfers(self) -> tuple[bytes, bytes]:
        """Make and keep the code of :meth:`save_locals` and :meth:`restore_locals`."""
        saving = self.moves([(home, local) for local, home in self.saved.items()])
        self.transfers = saving, self.moves([*self.saved.items()])
        return self.transfers

    def moves(self, pairs: list[tuple[Place, Place]]) -> bytes:
        """Return the code that copies values: targets and sources."""
        start = len(self.code)
        for target, source in pairs:
            self.move(target, source)
        code = bytes(self.code[start:])
        del self.code[start:]
        return code

    # -- calls

    def offsets(self, types: bytes) -> tuple[list[tuple[str, int]], int]:
        """Return a prefix and an offset for each of several values in memory, and their size.

        The prefix belongs to the name of the value's place: "" for 8 bytes, "v" for a vector.
        """
        return [("", 8 * i) for i in range(len(types))], 8 * len(types)

    def call(self, target: int | str) -> None:
        """Call a function or a stub of this module; see `CodeLayout.calls`."""
        self.code += _CALL
        self.layout.calls[target].append(len(self.code) - 4)

    def site_of(self, offset: int, slots: tuple[int, ...]) -> None:
        """Note a return address here: its offset in the module, and its stack map."""
        layout, at = self.layout, len(self.code)
        if at > layout.most_code:
            self.check_size()
        layout.returns.append(at)
        layout.origins.append(offset)
        if slots:
            layout.stack_maps[at] = slots

    def site(self, references: tuple[int, ...]) -> None:
        """Note the return address of the current instruction's call.

        `references` are the heights of externref operands. Those that the call takes have been
        popped. Of the others, one that is not in its own slot is a local or null.
        """
        if not references:
            self.site_of(self.layout.start + self.current[2], self.references)
            return
        slots = [
            self.slots[height][1]
            for height in references
            if height < len(self.stack) and self.stack[height] == self.slots[height]
        ]
        self.site_of(self.origin(), self.stack_map(slots))

    def call_other(self, references: tuple[int, ...]) -> None:
        """Call code that may be of another instance: its address is in rax, the vmctx in rcx."""
        self.emit("call.other")
        self.site(references)
        self.emit("call.back")

    def arguments(self, functype: FuncType) -> None:
        """Pop the operands of a call into the outgoing arguments; move the others to slots."""
        params, stack = functype.params, self.stack
        base = len(stack) - len(params)
        if self.held:
            self.flush_registers(base)
        targets, slots = self.arguments_of(params)
        for target in reversed(targets):
            self.move(target, stack.pop())
        self.held.clear()  # the others were flushed
        if self.flushed > base:
            self.flushed = base
        self.save_locals()
        if functype.results:
            slots = max(slots, self.arguments_of(functype.results)[1])
        if slots > self.outgoing:
            self.outgoing = slots

    def arguments_of(self, types: bytes) -> tuple[list[Place], int]:
        """Return the places of outgoing arguments, or results, and the number of their slots."""
        found = self._arguments.get(types)
        if found is None:
            offsets, size = self.offsets(types)
            places: list[Place] = [(prefix + "argument", offset) for prefix, offset in offsets]
            found = self._arguments[types] = places, size // 8
        return found

    def results(self, functype: FuncType) -> None:
        """Push the results of a call."""
        self.restore_locals()
        results = functype.results
        if not results:
            return
        if len(results) == 1 and results[0] != V128:
            self.push_result(results[0])
            return
        for source in self.arguments_of(results)[0]:
            slot = self.slot(len(self.stack), source)
            self.move(slot, source)
            self.push(slot)

    def libcall(
        self,
        name: str,
        arguments: Sequence[int | str],
        count: int,
        references: tuple[int, ...] = (),
        results: bytes = b"",
        externref: bool = False,
    ) -> None:
        """Emit the call of a libcall, by the System V calling convention; push its result.

        `name` may also be that of a function in runtime/slots.py. The arguments are constants,
        ``"vmctx"``, or letters for the `count` operands to pop: "a" is the lowest. `references` are
        the heights of externref operands; `results` is the result's value type, if it has one.
        `externref` selects the slot of the builtin array: two libcalls have one for each reference
        type.
        """
        self.flush_registers(len(self.stack))
        self.save_locals()
        operands = [self.pop() for _ in range(count)][::-1]
        # All operands are constants or in memory now, so no argument overwrites another.
        for register, argument in zip(INTEGER_REGISTERS, arguments, strict=False):
            if argument == "vmctx":
                self.move((register,), ("r15",))
            elif isinstance(argument, int):
                self.move((register,), constant(argument))
            else:
                place = operands["abc".index(argument)]
                # A libcall on floats has one argument, and a result of the same type.
                target = "xmm0" if operand_registers(results) == ("xmm0",) else register
                self.move((target,), self.saved.get(place, place))
        self.call_libcall(name, references, externref)
        self.restore_locals()
        for valtype in results:
            if valtype == I32:
                # The ABI leaves the upper half undefined.
                self.form("i32.wrap_i64", "rax", right="rax")
            self.push_result(valtype)

    def call_libcall(
        self, name: str, references: tuple[int, ...] = (), externref: bool = False
    ) -> None:
        """Call a libcall whose arguments are in their registers, and count the call."""
        layout = self.layout
        is_libcall = name in DECLARATIONS
        if layout.counts_libcalls and is_libcall:
            self.emit_symbol("call.count", f"counter {name}")
        if name in BUILTIN_ARRAY:
            self.emit("call.builtin", layout.builtin(name, externref))
        else:
            self.emit_symbol("call.address", SYMBOL_PREFIX + name if is_libcall else name)
        self.site(references)

    # -- branches

    def return_(self) -> None:
        """Emit a return of the operands on top of the stack."""
        self.check_size()
        results = self.result_types
        if len(results) == 1 and results[0] != V128:
            self.take(operand_registers(results))
        elif results:
            # They overwrite the parameters, so first move all that are read from a parameter.
            base = len(self.stack) - len(results)
            self.flush(base)
            offsets, _ = self.offsets(results)
            for place, (prefix, offset) in zip(self.stack[base:], offsets, strict=True):
                self.move((prefix + "slot", 16 + offset), place)
        self.layout.epilogues.append(len(self.code))
        self.emit("epilogue")

    def jump_to(self, condition: str, frame: Frame) -> None:
        """Emit a jump to a frame's label; the operands are in place already."""
        if frame.opcode == op.LOOP:
            self.jump_back(condition, frame.target)
        else:
            self.jump(condition, frame.target)

    def branch(self, frame: Frame) -> None:
        """Emit an unconditional branch."""
        if frame.opcode == FUNCTION:
            self.return_()
            return
        self.check_size()
        base = len(self.stack) - len(frame.label)
        self.flush(base)
        if base != frame.height:
            for i, place in enumerate(self.stack[base:], frame.height):
                self.move(self.slot(i, place), place)
        self.jump_to("", frame)

    def branch_if(self, condition: str, frame: Frame) -> None:
        """Emit a branch that is taken if a condition holds."""
        base = len(self.stack) - len(frame.label)
        if len(self.stack) != self.flushed:
            self.flush(base)
        if frame.opcode != FUNCTION and (base == frame.height or not frame.label):
            self.jump_to(condition, frame)
            return
        not_taken: list[int] = []
        self.jump(NEGATED[condition], not_taken)
        state = self.state(base)
        self.branch(frame)
        self.restore(state)
        self.land(not_taken)

    # -- checks

    def check_of(self, slots: tuple[int, ...]) -> None:
        """Note the check that was emitted last, and its stack map."""
        at = len(self.code)  # behind the check, which ends with its jump
        # After an interrupt the check runs again: the stack may still not suffice.
        self.checks.append((at - 4, at - len(TEMPLATES["check"][0]), self.origin(), slots))

    def check(self, references: tuple[int, ...]) -> None:
        """Emit the check of a loop; the operands at the heights `references` are in their slots."""
        self.forget()
        self.code += TEMPLATES["check"][0]
        self.check_of(self.stack_map([self.slots[height][1] for height in references]))
