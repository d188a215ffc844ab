"""The two stacks of the validation algorithm (spec 2.0, appendix A.3): operands and frames.

The operand stack is a ``bytearray`` of value types. In code that cannot be reached (behind a
branch that is always taken) it has any number of operands of any type below those that are known:
the *unknown* type 0 stands for one of them, once something has asked for it.

Two things that sound alike are kept apart. A *frame* is ``unreachable`` by the typing rules, from
an unconditional branch to the end of its block. The *code* is ``live`` if control can come there,
as far as one pass can see: it is dead, too, after a block that nothing leaves.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import InvalidModule
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, type_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.frontend.budget import Budget
    from asm_libcalls.toy_jit.frontend.module import FuncType, Module
    from asm_libcalls.toy_jit.frontend.reader import Reader

__all__ = ["FUNCTION", "UNKNOWN", "Frame", "Operands"]

UNKNOWN = 0
FUNCTION = -1  # the "opcode" of the outermost frame


_KNOWN = bytes([UNKNOWN, *[0xFF] * 255])


def _match(have: bytes | bytearray, need: bytes) -> bool:
    """Return whether types are those that are needed, or unknown: by arithmetic, for long ones."""
    differences = int.from_bytes(have, "little") ^ int.from_bytes(need, "little")
    return not differences & int.from_bytes(have.translate(_KNOWN), "little")


class Frame:
    """A control frame: a function, `block`, `loop` or `if` that is open.

    Attributes
    ----------
    opcode : int
        FUNCTION, BLOCK, LOOP or IF.
    params, results : bytes
        What the block takes from the operand stack and leaves on it.
    label : bytes
        What a branch to it carries: the parameters of a loop, else the results.
    height : int
        The operands below the block's own.
    live : bool
        Whether control can come to its beginning. A frame that is not live is not in the stream.
    targeted : bool
        Whether live code jumps to its label: a `br`, `br_if` or `br_table`, or the first part of an
        `if` over its `else`.
    has_else : bool
        For an `if`, whether it has an `else` (so far).
    unreachable : bool
        Of the validator: whether the rest of the block has a polymorphic stack.
    references : tuple of int
        Of a loop: the operand slots that hold externrefs at its beginning.
    target, otherwise : Any
        Free for the compiler, which may keep its label or lists of patches here; None at first.
    """

    def __init__(self, opcode: int, functype: FuncType, height: int, live: bool) -> None:
        self.opcode = opcode
        self.params = functype.params
        self.results = functype.results
        self.label = functype.params if opcode == op.LOOP else functype.results
        self.height = height
        self.live = live
        self.targeted = self.has_else = self.unreachable = False
        self.references: tuple[int, ...] = ()
        self.target: Any = None
        self.otherwise: Any = None

    def __repr__(self) -> str:
        name = "function" if self.opcode == FUNCTION else op.NAMES[self.opcode]
        types = f"{type_names(self.params)} -> {type_names(self.results)}"
        return f"<Frame {name} {types} at height {self.height}>"


class Operands:
    """Both stacks of a function, and what its instructions refer to.

    Attributes
    ----------
    module : Module
    budget : Budget
        What compiling the module may use.
    reader : Reader
        Of the function's instructions.
    local_types : bytes
    vals : bytearray
        The operands' types.
    ctrls : list of Frame
    live : bool
        Whether control can come to the next instruction.
    opcode, offset : int
        The instruction that is being validated, and where it is.
    """

    def __init__(self, module: Module, reader: Reader, local_types: bytes, budget: Budget) -> None:
        self.module = module
        self.budget = budget
        self.reader = reader
        self.local_types = local_types
        self.vals = bytearray()
        self.ctrls: list[Frame] = []
        self.live = True
        self.opcode = self.offset = 0

    # -- operands

    def pop(self, types: bytes) -> None:
        """Take operands of these types from the stack."""
        self.check(types)
        vals = self.vals
        del vals[max(self.ctrls[-1].height, len(vals) - len(types)) :]

    def pop_any(self) -> int:
        """Take one operand, and return its type or UNKNOWN."""
        frame, vals = self.ctrls[-1], self.vals
        if len(vals) > frame.height:
            return vals.pop()
        if not frame.unreachable:
            raise self.mismatch("[_]")
        return UNKNOWN

    def check(self, types: bytes) -> None:
        """Check that operands of these types are on top of the stack, and leave them there."""
        frame, vals = self.ctrls[-1], self.vals
        bottom = len(vals) - len(types)
        if bottom >= frame.height and vals.endswith(types):
            return
        # What is there of them; in unreachable code the stack has all that is missing below.
        present = vals[max(bottom, frame.height) :]
        missing = len(types) - len(present)
        if (missing and not frame.unreachable) or not _match(present, types[missing:]):
            raise self.mismatch(type_names(types))

    def mismatch(self, needed: str) -> InvalidModule:
        """Make the error for an instruction that needs other operands."""
        frame = self.ctrls[-1]
        have = type_names(bytes(self.vals[frame.height :][-10:]))
        if frame.unreachable:
            have = have.replace("[", "[... ", 1)
        what = f"type mismatch: {op.NAMES[self.opcode]} requires {needed} but stack has {have}"
        return InvalidModule(what, self.offset)

    def references(self) -> tuple[int, ...]:
        """List the operand slots that hold externrefs: what a stack map is made from."""
        vals = self.vals
        slots = []
        slot = vals.find(EXTERNREF)  # a machine loop, for stacks that are deep for no good reason
        while slot >= 0:
            slots.append(slot)
            slot = vals.find(EXTERNREF, slot + 1)
        self.budget.use("max_stack_map_slots", len(slots), self.offset)
        return tuple(slots)

    # -- frames

    def enter(self, opcode: int, functype: FuncType) -> Frame:
        """Open a frame, whose parameters have been taken from the stack."""
        frame = Frame(opcode, functype, len(self.vals), self.live)
        self.ctrls.append(frame)
        self.vals += functype.params
        return frame

    def leave(self) -> Frame:
        """Check that the innermost block may end here, and take its results from the stack."""
        frame, vals = self.ctrls[-1], self.vals
        self.check(frame.results)
        if len(vals) - len(frame.results) > frame.height:
            raise self.mismatch(f"{type_names(frame.results)} and nothing else")
        del vals[frame.height :]
        return frame

    def set_unreachable(self) -> None:
        """Say that control does not go on to the next instruction of this block."""
        frame = self.ctrls[-1]
        del self.vals[frame.height :]
        frame.unreachable = True
        self.live = False
