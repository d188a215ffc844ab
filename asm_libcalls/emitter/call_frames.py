"""Derives the call frame at each instruction of a routine from its effects on the stack.

The analysis follows every path. For each instruction it keeps what is known of rsp, of copies of
rsp and of the caller's registers; where paths meet, it keeps what they agree on. So a routine's
source declares no unwind information.

It works on PeachPy's instruction objects and imports nothing of PeachPy. An instruction is reduced
to its *effects*; code composed from stencils at run time is followed by effects alone.
"""

from __future__ import annotations

from asm_libcalls.emitter.eh_frame import ENTERED, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Frames = tuple[tuple[int, Frame], ...]
    """Frames, each with the offset from which it holds."""

    Effect = tuple[str, int, int, int]
    """``("push", R, 0, 0)``, ``("pop", R, 0, 0)``, ``("set", R, BASE, DISPLACEMENT)`` for
    R = BASE + DISPLACEMENT, or ``("write", R, 0, 0)`` for R = anything."""

# Registers by their numbers in instructions, and how DWARF numbers them.
_RBX, RSP, RBP = 3, 4, 5
CALLEE_SAVED = frozenset({_RBX, RBP, 12, 13, 14, 15})
_DWARF = (0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
_GENERAL_PURPOSE = 0xF  # PeachPy's mask of them
_WORD = 8

_LEAVE = frozenset({"JMP", "RET", "TAIL_JUMP", "TAIL_JUMP_SLOT", "UD2"})
"""Instructions after which control does not reach the next one."""


class _State:
    """What is known before an instruction; distances are bytes below the CFA."""

    __slots__ = ("copies", "depth", "saved", "written")

    def __init__(
        self, depth: int | None, copies: dict[int, int], saved: dict[int, int], written: set[int]
    ) -> None:
        self.depth = depth  # distance of rsp
        # callee-saved registers that hold an address in the frame, and its distance
        self.copies = copies
        # callee-saved registers whose caller's value was pushed, and its distance
        self.saved = saved
        self.written = written  # callee-saved registers that no longer hold the caller's values

    def copy(self) -> _State:
        return _State(self.depth, dict(self.copies), dict(self.saved), set(self.written))

    def meet(self, other: _State) -> bool:
        """Keep what both states know; return whether this state changed."""
        before = self.depth, len(self.copies), len(self.saved), len(self.written)
        if self.depth != other.depth:
            self.depth = None
        for mine, its in ((self.copies, other.copies), (self.saved, other.saved)):
            for register in [r for r, at in mine.items() if its.get(r) != at]:
                del mine[register]
        self.written |= other.written
        return before != (self.depth, len(self.copies), len(self.saved), len(self.written))

    def frame(self) -> Frame:
        base = min(self.copies, key=lambda r: (r != RBP, r), default=None)
        if base is not None and (base == RBP or self.depth is None):
            register, offset = _DWARF[base], self.copies[base]
        elif self.depth is not None:
            register, offset = _DWARF[RSP], self.depth
        else:
            return Frame(None, 0)
        saved = sorted((_DWARF[r], at) for r, at in self.saved.items())
        lost = sorted(_DWARF[r] for r in self.written - self.saved.keys())
        return Frame(register, offset, tuple(saved), tuple(lost))

    def put_stack_pointer(self, depth: int | None) -> None:
        self.depth = depth
        if depth is not None:  # what was popped may be overwritten at any time
            self.saved = {r: at for r, at in self.saved.items() if at <= depth}

    def write(self, register: int, distance: int | None = None) -> None:
        """Note that a register is overwritten: with an address in the frame, or with anything."""
        if register == RSP:
            self.put_stack_pointer(distance)
        elif register in CALLEE_SAVED:
            self.written.add(register)
            self.copies.pop(register, None)
            if distance is not None:
                self.copies[register] = distance

    def distance(self, register: int) -> int | None:
        return self.depth if register == RSP else self.copies.get(register)


class Node:
    """An instruction in the control-flow graph: its effects on the stack and its successors."""

    __slots__ = ("effects", "leaves", "offset", "target")

    def __init__(
        self,
        offset: int,
        effects: Sequence[Effect] = (),
        target: int | None = None,
        leaves: bool = False,
    ) -> None:
        self.offset = offset  # offset of its first byte
        self.effects = effects
        self.target = target  # number of the node that it may jump to
        self.leaves = leaves  # whether control never reaches the next node


def frames(instructions: Sequence[Any], *, framed: bool = False) -> Frames:
    """Return the frames of a routine, each with the offset of the first instruction it holds at.

    The instructions are PeachPy's, encoded. A `framed` routine is jumped to, not called, with its
    caller's rbp pushed and rbp set.
    """
    labels = {i.identifier: at for at, i in enumerate(instructions) if i.name == "LABEL"}
    nodes = []
    offset = 0
    for instruction in instructions:
        label = getattr(instruction, "label_name", None)
        target = None if label is None else labels[label]
        nodes.append(Node(offset, effects_of(instruction), target, leaves(instruction)))
        offset += len(instruction.bytecode or b"")
    return follow(nodes, framed=framed)


def follow(nodes: Sequence[Node], *, framed: bool = False) -> Frames:
    """Return the frames of code that is entered at its first node."""
    if framed:
        entered = _State(2 * _WORD, {RBP: 2 * _WORD}, {RBP: 2 * _WORD}, {RBP})
    elif any(node.effects for node in nodes):
        entered = _State(_WORD, {}, {}, set())
    else:
        return ((0, ENTERED),)
    known: dict[int, _State] = {}
    open_paths = [(0, entered)]
    while open_paths:
        at, state = open_paths.pop()
        while at < len(nodes):
            if at not in known:
                known[at] = state.copy()
            elif not known[at].meet(state):
                break
            state = known[at].copy()
            node = nodes[at]
            for effect in node.effects:
                _apply(effect, state)
            if node.target is not None:
                open_paths.append((node.target, state.copy()))
            if node.leaves:
                break
            at += 1
    result = [(0, known[0].frame())]
    for at, node in enumerate(nodes):
        if at in known:  # else it is never reached
            frame = known[at].frame()
            if frame != result[-1][1]:
                result.append((node.offset, frame))
    return tuple(result)


def leaves(instruction: Any) -> bool:
    """Return whether control never reaches the instruction after an instruction of PeachPy."""
    return instruction.name in _LEAVE


def effects_of(instruction: Any) -> list[Effect]:
    """Return what an instruction of PeachPy does to the stack and to callee-saved registers."""
    name, operands = instruction.name, instruction.operands
    if name in ("PUSH", "POP"):
        return [(name.lower(), operands[0].physical_id, 0, 0)]
    if name in ("ADD", "SUB", "MOV", "LEA") and _is_general_purpose(operands[0]):
        target = operands[0].physical_id
        if not _is_kept(target):
            return []
        base, displacement = _address(name, operands)
        return [("write", target, 0, 0) if base is None else ("set", target, base, displacement)]
    return [("write", r, 0, 0) for r in sorted(_written_by(instruction)) if _is_kept(r)]


def _apply(effect: Effect, state: _State) -> None:
    operation, register, base, displacement = effect
    if operation == "push":
        if state.depth is not None:
            state.depth += _WORD
            if register in CALLEE_SAVED - state.written - state.saved.keys():
                state.saved[register] = state.depth
    elif operation == "pop":
        slot = state.depth
        restored = slot is not None and state.saved.get(register) == slot
        state.write(register)
        if slot is not None:
            state.put_stack_pointer(slot - _WORD)
        if restored:
            state.written.discard(register)
    elif operation == "set":
        distance = state.distance(base)
        state.write(register, None if distance is None else distance - displacement)
    else:
        state.write(register)


def _is_kept(register: int) -> bool:
    return register == RSP or register in CALLEE_SAVED


def _written_by(instruction: Any) -> set[int]:
    found = {
        operand.physical_id
        for written, operand in zip(instruction.out_regs, instruction.operands, strict=False)
        if written and _is_general_purpose(operand)
    }
    for register, mask in instruction._implicit_out_regs.items():
        if mask & _GENERAL_PURPOSE:
            found.add(register)
    return found


def _is_general_purpose(operand: Any) -> bool:
    mask = getattr(operand, "mask", 0)
    return isinstance(mask, int) and mask & _GENERAL_PURPOSE != 0


def _address(name: str, operands: Sequence[Any]) -> tuple[int | None, int]:
    """Return the register and displacement of the result; None where it may be any address."""
    target, source = operands
    if name == "LEA":
        address = source.address
        if address.base is None or address.index is not None:
            return None, 0
        return address.base.physical_id, address.displacement
    if name == "MOV":
        if not _is_general_purpose(source) or source.mask != _GENERAL_PURPOSE:
            return None, 0
        return source.physical_id, 0
    if not isinstance(source, int):
        return None, 0
    return target.physical_id, source if name == "ADD" else -source
