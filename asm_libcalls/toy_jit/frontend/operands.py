"""The two stacks of the validation algorithm (spec 2.0, appendix A.3): operands and frames.

The operand stack is a ``bytearray`` of value types. In unreachable code (behind a branch that is
always taken) it has any number of operands of any type below the known ones. The *unknown* type 0
means such an operand, after an instruction has popped it.

Unreachable and dead differ. A *frame* is ``unreachable`` by the typing rules, from an unconditional
branch to the end of its block. *Code* is ``live`` if control can reach it, as far as one pass can
tell: it is also dead after a block that control never leaves.
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

UNKNOWN = 0
FUNCTION = -1  # the "opcode" of the outermost frame


_KNOWN = bytes([UNKNOWN, *[0xFF] * 255])


def _match(have: bytes | bytearray, need: bytes) -> bool:
    """Return whether each type is the needed one or unknown; fast for long sequences."""
    differences = int.from_bytes(have, "little") ^ int.from_bytes(need, "little")
    return not differences & int.from_bytes(have.translate(_KNOWN), "little")


class Frame:
    """A control frame: a function, `block`, `loop` or `if` whose `end` has not been read."""

    def __init__(self, opcode: int, functype: FuncType, height: int, live: bool) -> None:
        self.opcode = opcode  # FUNCTION, BLOCK, LOOP or IF
        # `params`, `results`: the types that the block takes from the operand stack, and leaves on
        # it
        self.params = functype.params
        self.results = functype.results
        # the types that a branch to it takes: the parameters of a loop, else the results
        self.label = functype.params if opcode == op.LOOP else functype.results
        self.height = height  # the number of operands below the block's own
        # Whether control can reach its beginning. The validated list has live frames only.
        self.live = live
        # whether live code jumps to its label: by `br`, `br_if` or `br_table`, or from the end of
        # an `if`'s first part over its `else`
        self.targeted = False
        self.has_else = False  # whether an `if` has an `else` (so far)
        # whether control falls through to its `else` and `end`
        self.reaches_else = self.reaches_end = True
        self.unreachable = False  # whether the rest of the block has a polymorphic stack
        # the operand slots that hold externrefs at the beginning of a loop
        self.references: tuple[int, ...] = ()
        # for the compiler, `target` and `otherwise`: its label or lists of patches; None at first
        self.target: Any = None
        self.otherwise: Any = None

    def __repr__(self) -> str:
        name = "function" if self.opcode == FUNCTION else op.NAMES[self.opcode]
        types = f"{type_names(self.params)} -> {type_names(self.results)}"
        return f"<Frame {name} {types} at height {self.height}>"


class Operands:
    """Both stacks of a function, and the state that its instructions refer to."""

    def __init__(self, module: Module, reader: Reader, local_types: bytes, budget: Budget) -> None:
        self.module = module
        self.budget = budget  # the limits on compiling the module
        self.reader = reader  # reads the function's instructions
        self.local_types = local_types
        self.vals = bytearray()  # the operands' types
        self.ctrls: list[Frame] = []
        self.live = True  # whether control can reach the next instruction
        # `opcode`, `offset`: the instruction that is being validated, and its offset in the module
        self.opcode = self.offset = 0

    # -- operands

    def pop(self, types: bytes) -> None:
        """Pop operands of these types."""
        if types:
            self.check(types)
            vals = self.vals
            del vals[max(self.ctrls[-1].height, len(vals) - len(types)) :]

    def pop_any(self) -> int:
        """Pop one operand, and return its type or UNKNOWN."""
        frame, vals = self.ctrls[-1], self.vals
        if len(vals) > frame.height:
            return vals.pop()
        if not frame.unreachable:
            raise self.mismatch("[_]")
        return UNKNOWN

    def check(self, types: bytes) -> None:
        """Check that operands of these types are on top of the stack, without popping them."""
        frame, vals = self.ctrls[-1], self.vals
        bottom = len(vals) - len(types)
        if bottom >= frame.height and vals.endswith(types):
            return
        # Check those that are there. In unreachable code the stack has any others below.
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
        """List the operand slots that hold externrefs, for a stack map."""
        vals = self.vals
        slot = vals.find(EXTERNREF)  # fast even if hostile input makes the stack deep
        if slot < 0:
            return ()
        slots = []
        while slot >= 0:
            slots.append(slot)
            slot = vals.find(EXTERNREF, slot + 1)
        self.budget.use("max_stack_map_slots", len(slots), self.offset)
        return tuple(slots)

    # -- frames

    def enter(self, opcode: int, functype: FuncType) -> Frame:
        """Push a frame, whose parameters have been popped, and push them again."""
        frame = Frame(opcode, functype, len(self.vals), self.live)
        self.ctrls.append(frame)
        self.vals += functype.params
        return frame

    def leave(self) -> Frame:
        """Check that the innermost block may end here, and pop its results."""
        frame, vals = self.ctrls[-1], self.vals
        if len(vals) == frame.height and not frame.results:
            return frame
        self.check(frame.results)
        if len(vals) - len(frame.results) > frame.height:
            raise self.mismatch(f"{type_names(frame.results)} and nothing else")
        del vals[frame.height :]
        return frame

    def set_unreachable(self) -> None:
        """Note that control does not go on to the next instruction of this block."""
        frame = self.ctrls[-1]
        del self.vals[frame.height :]
        frame.unreachable = True
        self.live = False
