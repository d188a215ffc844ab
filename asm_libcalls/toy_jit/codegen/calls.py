"""Emitter: the code of calls, checks and branches, for the handlers of instructions.

Its base class ``Places`` knows the places of operands and locals.
"""

from __future__ import annotations

from asm_libcalls.calling_convention import INTEGER_REGISTERS
from asm_libcalls.libcalls import BUILTIN_ARRAY, DECLARATIONS, SYMBOL_PREFIX
from asm_libcalls.toy_jit.codegen.places import Places, constant, halves
from asm_libcalls.toy_jit.codegen.registers import NEGATED, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, I32, V128
from asm_libcalls.toy_jit.frontend.operands import FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from asm_libcalls.toy_jit.frontend.module import FuncType
    from asm_libcalls.toy_jit.frontend.operands import Frame
    from asm_libcalls.toy_jit.frontend.validator import Body

__all__ = ["Emitter"]


class Emitter(Places):
    """Emits the code of one function.

    Attributes
    ----------
    references : tuple of int
        The slots of externref locals, relative to rbp. All stack maps of the function have them.
    result_types : bytes
        The types of its results.
    outgoing : int
        The number of slots that its calls need for arguments and results.
    checks : list of (int, int, int, tuple of int)
        For each check: the offset of its jump, the offset where an interrupt returns to, its offset
        in the module, and the slots of references.
    """

    def begin_function(self, body: Body, functype: FuncType) -> None:
        """Begin a function."""
        self.begin(body, len(functype.params))
        self.references = tuple(
            home[1]
            for home, valtype in zip(self.homes, body.local_types, strict=True)
            if valtype == EXTERNREF
        )
        self.result_types = functype.results
        self.outgoing = 0
        self.checks: list[tuple[int, int, int, tuple[int, ...]]] = []

    def check_size(self) -> None:
        """Raise LimitExceeded if the code is too large."""
        self.layout.budget.check("max_code_size", len(self.code), self.offset)

    def stack_map(self, operands: list[int]) -> tuple[int, ...]:
        """Return a stack map: the slots of externref locals, and these of operands."""
        if not operands:
            return self.references  # shared, so that a thousand stack maps need no more than one
        # The validator has counted the operands in the budget.
        self.layout.budget.use("max_stack_map_slots", len(self.references), self.offset)
        return (*self.references, *operands)

    # -- calls

    def offsets(self, types: bytes) -> tuple[list[tuple[str, int]], int]:
        """Return a prefix and an offset for each of several values in memory, and their size.

        The prefix belongs to the name of the value's place: "" for 8 bytes, "v" for a vector.
        """
        return [("", 8 * i) for i in range(len(types))], 8 * len(types)

    def call(self, role: str) -> None:
        """Call a function or a stub of this module."""
        self.code += TEMPLATES["call"][0]
        self.layout.calls.append((len(self.code) - 4, role))

    def site_of(self, offset: int, slots: tuple[int, ...]) -> None:
        """Note a return address here: its offset in the module, and its stack map."""
        self.layout.sites.append((len(self.code), offset))
        if slots:
            self.layout.stack_maps[len(self.code)] = slots

    def site(self, references: tuple[int, ...]) -> None:
        """Note the return address of the current instruction's call.

        `references` are the heights of externref operands. Those that the call takes have been
        popped. Of the others, one that is not in its own slot is a local or null.
        """
        slots = [
            self.slots[height][1]
            for height in references
            if height < len(self.stack) and self.stack[height] == self.slots[height]
        ]
        self.site_of(self.offset, self.stack_map(slots))

    def call_other(self, references: tuple[int, ...]) -> None:
        """Call code that may be of another instance: its address is in rax, the vmctx in rcx."""
        self.emit("call.other")
        self.site(references)
        self.emit("call.back")

    def arguments(self, functype: FuncType) -> None:
        """Pop the operands of a call into the outgoing arguments; move the others to slots."""
        self.flush_registers(len(self.stack) - len(functype.params))
        offsets, size = self.offsets(functype.params)
        for prefix, offset in reversed(offsets):
            self.move((prefix + "argument", offset), self.pop())
        self.save_locals()
        self.outgoing = max(self.outgoing, size // 8, self.offsets(functype.results)[1] // 8)

    def results(self, functype: FuncType) -> None:
        """Push the results of a call."""
        self.restore_locals()
        if len(functype.results) == 1 and functype.results[0] != V128:
            self.push_result(functype.results[0])
            return
        for prefix, offset in self.offsets(functype.results)[0]:
            source = (prefix + "argument", offset)
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

        Parameters
        ----------
        name : str
            The libcall's, or that of a function in runtime/slots.py.
        arguments : sequence of int or str
            Constants, ``"vmctx"``, or letters for the operands: "a" is the lowest of `count`.
        count : int
            The number of operands to pop.
        references : tuple of int
            The heights of externref operands.
        results : bytes
            The value type of the result, if it has one.
        externref : bool
            Selects the slot of the builtin array: two libcalls have one for each reference type.
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
                self.emit("i32.wrap_i64")  # the ABI leaves the upper half undefined
            self.push_result(valtype)

    def call_libcall(
        self, name: str, references: tuple[int, ...] = (), externref: bool = False
    ) -> None:
        """Call a libcall whose arguments are in their registers, and count the call."""
        layout = self.layout
        if layout.counters is not None and name in DECLARATIONS:
            self.emit("call.count", *halves(layout.counter(name)))
        if name in BUILTIN_ARRAY:
            self.emit("call.builtin", layout.builtin(name, externref))
        else:
            address = layout.addresses.get(SYMBOL_PREFIX + name)
            self.emit("call.address", *halves(address or layout.addresses[name]))
        self.site(references)

    # -- branches

    def return_(self) -> None:
        """Emit a return of the operands on top of the stack."""
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

    def jump_to(self, name: str, frame: Frame) -> None:
        """Emit a jump to a frame's label; the operands are in place already."""
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
        self.check_size()
        base = len(self.stack) - len(frame.label)
        self.flush(base)
        if base != frame.height:
            for i, place in enumerate(self.stack[base:], frame.height):
                self.move(self.slot(i, place), place)
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
        state = self.state(base)
        self.branch(frame)
        self.restore(state)
        self.land(not_taken)

    # -- checks

    def check_of(self, slots: tuple[int, ...]) -> None:
        """Note the check that was emitted last, and its stack map."""
        at = len(self.code)  # behind the check, which ends with its jump
        # After an interrupt the check runs again: only then is it known that the stack suffices.
        self.checks.append((at - 4, at - len(TEMPLATES["check"][0]), self.offset, slots))

    def check(self, references: tuple[int, ...]) -> None:
        """Emit the check of a loop; the operands at the heights `references` are in their slots."""
        self.code += TEMPLATES["check"][0]
        self.check_of(self.stack_map([self.slots[height][1] for height in references]))
