"""The two stacks of the validation algorithm (spec 2.0, appendix A.3): operands and frames.

The operand stack is a ``bytearray`` of value types. In code that cannot be reached (behind a
branch that is always taken) it has any number of operands of any type below those that are known:
the *unknown* type 0 stands for one of them, once something has asked for it.

Two things that sound alike are kept apart. A *frame* is ``unreachable`` by the typing rules, from
an unconditional branch to the end of its block. The *code* is ``live`` if control can come there,
as far as one pass can see: it is dead, too, after a block that nothing leaves.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import leb128
from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.errors import InvalidModule, LimitExceeded
from asm_libcalls.toy_jit.module import EXTERNREF, type_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.module import FuncType, Module

    # (opcode, immediate, height, offset); see the validator's docstring
    Instruction = tuple[int, Any, int, int]
    # the stacks, where the immediates are, where the opcode is -> where the next instruction is
    Rule = Callable[["Operands", int, int], int]

__all__ = ["FUNCTION", "UNKNOWN", "Frame", "Operands"]

UNKNOWN = 0
FUNCTION = -1  # the "opcode" of the outermost frame

# All operands that are references, summed over the instructions of a function that may call: keeps
# a hostile function from making a list of thousands of references for each of thousands of calls.
MAX_REFERENCES = 1 << 20


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

    __slots__ = (
        "has_else",
        "height",
        "label",
        "live",
        "opcode",
        "otherwise",
        "params",
        "references",
        "results",
        "target",
        "targeted",
        "unreachable",
    )

    def __init__(self, opcode: int, functype: FuncType, height: int, live: bool) -> None:
        self.opcode = opcode
        self.params = functype.params
        self.results = functype.results
        self.label = functype.params if opcode == op.LOOP else functype.results
        self.height = height
        self.live = live
        self.targeted = False
        self.has_else = False
        self.unreachable = False
        self.references: tuple[int, ...] = ()
        self.target: Any = None
        self.otherwise: Any = None

    def __repr__(self) -> str:
        name = "function" if self.opcode == FUNCTION else op.NAMES[self.opcode]
        types = f"{type_names(self.params)} -> {type_names(self.results)}"
        return f"<Frame {name} {types} at height {self.height}>"


def _ignore(instruction: Instruction) -> None:
    """Drop an instruction that control cannot come to."""


class Operands:
    """Both stacks, and the instructions that have been validated so far."""

    __slots__ = (
        "code",
        "ctrls",
        "emit",
        "end",
        "instructions",
        "live",
        "local_types",
        "module",
        "references_left",
        "vals",
    )

    def __init__(self, module: Module, end: int, local_types: bytes) -> None:
        self.module = module
        self.code = module.binary
        self.end = end  # of the function in `code`
        self.local_types = local_types
        self.vals = bytearray()
        self.ctrls: list[Frame] = []
        self.instructions: list[Instruction] = []
        # Takes an instruction: to the list, or nowhere while the code is dead.
        self.emit: Callable[[Instruction], None] = self.instructions.append
        self.live = True
        self.references_left = MAX_REFERENCES

    def set_live(self, live: bool) -> None:
        """Say whether control can come to the next instruction."""
        self.live = live
        self.emit = self.instructions.append if live else _ignore

    # -- immediates: read at `pos`, returned with the position behind them

    def u32(self, pos: int) -> tuple[int, int]:
        """Read an unsigned integer."""
        byte = self.code[pos]
        if byte < 0x80:
            return byte, pos + 1
        return leb128.unsigned(self.code, pos, self.end)

    def index(self, pos: int, space: Sequence[object], noun: str) -> tuple[int, int]:
        """Read an index into `space`."""
        index, after = self.u32(pos)
        if index >= len(space):
            raise InvalidModule(f"unknown {noun} {index}", pos)
        return index, after

    # -- operands

    def pop(self, types: bytes, offset: int) -> None:
        """Take operands of these types from the stack, for the instruction at `offset`."""
        self.check(types, offset)
        vals = self.vals
        del vals[max(self.ctrls[-1].height, len(vals) - len(types)) :]

    def pop_any(self, offset: int) -> int:
        """Take one operand, and return its type or UNKNOWN."""
        frame, vals = self.ctrls[-1], self.vals
        if len(vals) > frame.height:
            return vals.pop()
        if not frame.unreachable:
            raise self.mismatch("[_]", offset)
        return UNKNOWN

    def check(self, types: bytes, offset: int) -> None:
        """Check that operands of these types are on top of the stack, and leave them there."""
        frame, vals = self.ctrls[-1], self.vals
        bottom = len(vals) - len(types)
        if bottom >= frame.height and vals.endswith(types):
            return
        # What is there of them; in unreachable code the stack has all that is missing below.
        present = vals[max(bottom, frame.height) :]
        missing = len(types) - len(present)
        if missing and not frame.unreachable:
            raise self.mismatch(type_names(types), offset)
        for have, need in zip(present, types[missing:], strict=True):
            if have != need and have != UNKNOWN:
                raise self.mismatch(type_names(types), offset)

    def mismatch(self, needed: str, offset: int) -> InvalidModule:
        """Make the error for an instruction that needs other operands."""
        frame, code = self.ctrls[-1], self.code
        opcode = code[offset]
        if opcode == op.PREFIX and code[offset + 1] < len(op.NAMES) - 0x100:
            opcode = 0x100 + code[offset + 1]
        have = type_names(bytes(self.vals[frame.height :][-10:]))
        if frame.unreachable:
            have = have.replace("[", "[... ", 1)
        name = op.NAMES[opcode] or "instruction"
        what = f"type mismatch: {name} requires {needed} but stack has {have}"
        return InvalidModule(what, offset)

    def references(self, offset: int) -> tuple[int, ...]:
        """List the operand slots that hold externrefs: what a stack map is made from."""
        vals = self.vals
        if EXTERNREF not in vals:
            return ()
        slots = []
        slot = vals.find(EXTERNREF)  # a machine loop, for stacks that are deep for no good reason
        while slot >= 0:
            slots.append(slot)
            slot = vals.find(EXTERNREF, slot + 1)
        self.references_left -= len(slots)
        if self.references_left < 0:
            raise LimitExceeded("too many references on the operand stack", offset)
        return tuple(slots)

    # -- frames

    def enter(self, opcode: int, functype: FuncType) -> Frame:
        """Open a frame, whose parameters have been taken from the stack."""
        frame = Frame(opcode, functype, len(self.vals), self.live)
        self.ctrls.append(frame)
        self.vals += functype.params
        return frame

    def leave(self, offset: int) -> Frame:
        """Check that the innermost block may end here, and take its results from the stack."""
        frame, vals = self.ctrls[-1], self.vals
        self.check(frame.results, offset)
        if len(vals) - len(frame.results) > frame.height:
            needed = f"{type_names(frame.results)} and nothing else"
            raise self.mismatch(needed, offset)
        del vals[frame.height :]
        return frame

    def label(self, pos: int, offset: int) -> tuple[Frame, int]:
        """Read the label of a branch at `offset`: the frame that it goes to."""
        depth, pos = self.u32(pos)
        if depth >= len(self.ctrls):
            raise InvalidModule(f"unknown label {depth}", offset)
        frame = self.ctrls[-1 - depth]
        frame.targeted = frame.targeted or self.live
        return frame, pos

    def set_unreachable(self) -> None:
        """Say that control does not go on to the next instruction of this block."""
        frame = self.ctrls[-1]
        del self.vals[frame.height :]
        frame.unreachable = True
        self.set_live(False)
