"""Where a routine's caller is, at each of its instructions: derived from what they do to the stack.

The instructions are followed along every path, and what is known of rsp, of copies of it and of
the caller's registers is kept for each; where paths meet, what they agree on. So whoever writes a
routine declares nothing, and can forget nothing.

Works on PeachPy's instruction objects, and imports none of PeachPy.
"""

from __future__ import annotations

from asm_libcalls.x86_64.eh_frame import ENTERED, Frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["frames"]

# Registers by their numbers in instructions, and how DWARF numbers them.
_RBX, _RSP, _RBP = 3, 4, 5
_CALLEE_SAVED = frozenset({_RBX, _RBP, 12, 13, 14, 15})
_DWARF = (0, 2, 1, 3, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15)
_GENERAL_PURPOSE = 0xF  # PeachPy's mask of them
_WORD = 8

_LEAVE = frozenset({"JMP", "RET", "TAIL_JUMP", "TAIL_JUMP_SLOT", "UD2"})
"""What no instruction follows."""


class _State:
    """What is known before an instruction; distances are bytes below the CFA.

    Attributes
    ----------
    depth : int or None
        Of rsp.
    copies : dict of int to int
        Callee-saved registers that hold an address in the frame.
    saved : dict of int to int
        Where the caller's values are that were pushed.
    written : set of int
        Callee-saved registers that do not hold the caller's values any more.
    """

    __slots__ = ("copies", "depth", "saved", "written")

    def __init__(
        self, depth: int | None, copies: dict[int, int], saved: dict[int, int], written: set[int]
    ) -> None:
        self.depth = depth
        self.copies = copies
        self.saved = saved
        self.written = written

    def copy(self) -> _State:
        return _State(self.depth, dict(self.copies), dict(self.saved), set(self.written))

    def meet(self, other: _State) -> bool:
        """Keep what both know; return whether that changed anything."""
        before = self.depth, len(self.copies), len(self.saved), len(self.written)
        if self.depth != other.depth:
            self.depth = None
        for mine, its in ((self.copies, other.copies), (self.saved, other.saved)):
            for register in [r for r, at in mine.items() if its.get(r) != at]:
                del mine[register]
        self.written |= other.written
        return before != (self.depth, len(self.copies), len(self.saved), len(self.written))

    def frame(self) -> Frame:
        base = min(self.copies, key=lambda r: (r != _RBP, r), default=None)
        if base is not None and (base == _RBP or self.depth is None):
            register, offset = _DWARF[base], self.copies[base]
        elif self.depth is not None:
            register, offset = _DWARF[_RSP], self.depth
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
        """Note that a register is overwritten, with an address in the frame or anything."""
        if register == _RSP:
            self.put_stack_pointer(distance)
        elif register in _CALLEE_SAVED:
            self.written.add(register)
            self.copies.pop(register, None)
            if distance is not None:
                self.copies[register] = distance

    def distance(self, register: int) -> int | None:
        return self.depth if register == _RSP else self.copies.get(register)


def frames(instructions: Sequence[Any], *, framed: bool = False) -> tuple[tuple[int, Frame], ...]:
    """Return the frames of a routine: each with the offset of the instruction that it begins at.

    Parameters
    ----------
    instructions : sequence
        Encoded instructions of PeachPy.
    framed : bool
        The routine is not called but jumped to, with its caller's rbp pushed and rbp set.
    """
    if framed:
        entered = _State(2 * _WORD, {_RBP: 2 * _WORD}, {_RBP: 2 * _WORD}, {_RBP})
    elif any(map(_moves_the_stack, instructions)):
        entered = _State(_WORD, {}, {}, set())
    else:
        return ((0, ENTERED),)
    labels = {i.identifier: at for at, i in enumerate(instructions) if i.name == "LABEL"}
    known: dict[int, _State] = {}
    open_paths = [(0, entered)]
    while open_paths:
        at, state = open_paths.pop()
        while at < len(instructions):
            if at not in known:
                known[at] = state.copy()
            elif not known[at].meet(state):
                break
            state = known[at].copy()
            instruction = instructions[at]
            _step(instruction, state)
            target = getattr(instruction, "label_name", None)
            if target is not None:
                open_paths.append((labels[target], state.copy()))
            if instruction.name in _LEAVE:
                break
            at += 1
    result = [(0, known[0].frame())]
    offset = 0
    for at, instruction in enumerate(instructions):
        if at in known:  # else it is never reached
            frame = known[at].frame()
            if frame != result[-1][1]:
                result.append((offset, frame))
        offset += len(instruction.bytecode or b"")
    return tuple(result)


def _moves_the_stack(instruction: Any) -> bool:
    return instruction.name in ("PUSH", "POP") or any(
        register == _RSP or register in _CALLEE_SAVED for register in _written_by(instruction)
    )


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


def _step(instruction: Any, state: _State) -> None:
    name, operands = instruction.name, instruction.operands
    if name == "PUSH":
        if state.depth is not None:
            state.depth += _WORD
            register = operands[0].physical_id
            if register in _CALLEE_SAVED - state.written - state.saved.keys():
                state.saved[register] = state.depth
    elif name == "POP":
        register, slot = operands[0].physical_id, state.depth
        restored = slot is not None and state.saved.get(register) == slot
        state.write(register)
        if slot is not None:
            state.put_stack_pointer(slot - _WORD)
        if restored:
            state.written.discard(register)
    elif name in ("ADD", "SUB", "MOV", "LEA") and _is_general_purpose(operands[0]):
        state.write(operands[0].physical_id, _address(name, operands, state))
    else:
        for register in _written_by(instruction):
            state.write(register)


def _address(name: str, operands: Sequence[Any], state: _State) -> int | None:
    """Return what the destination is afterwards: bytes below the CFA, or None for anything."""
    target, source = operands
    if name == "LEA":
        address = source.address
        base = None if address.base is None else state.distance(address.base.physical_id)
        return None if base is None or address.index is not None else base - address.displacement
    if name == "MOV":
        if not _is_general_purpose(source) or source.mask != _GENERAL_PURPOSE:
            return None
        return state.distance(source.physical_id)
    distance = state.distance(target.physical_id)
    if distance is None or not isinstance(source, int):
        return None
    return distance - source if name == "ADD" else distance + source
