"""Unwind information for code composed from stencils.

At run time the PeachPy instructions of a stencil do not exist. So their stack effects are recorded
as text when the stencil is assembled, and stored beside its holes. The call frames of a composition
are derived from these texts on demand.
"""

from __future__ import annotations

from asm_libcalls.emitter import call_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from asm_libcalls.emitter.stencils import Part
    from asm_libcalls.emitter.call_frames import Effect, Frames

_JUMPS = ("JUMP_IF", "TAIL_JUMP")  # to another stencil, by its role
_LEAVES, _NONE = "leaves", "-"


def describe(instructions: Sequence[Any], holes: Mapping[int, str]) -> str:
    """Return a text with the stack effects of a stencil's instructions, for :func:`frames`.

    The text has a word for each instruction with an effect: where it begins and ends, whether
    control never reaches the next one, the role that it jumps to, and the effects of
    ``call_frames.py``, separated by commas. A displacement is a number or the name of a hole, a
    ``-`` before it. `holes` are the names of the holes, by their placeholder numbers.
    """
    words = []
    start = 0
    for instruction in instructions:
        end = start + len(instruction.bytecode or b"")
        # A jump to a label of the stencil does not leave: the depth is equal on all its paths.
        leaves = call_frames.leaves(instruction) and not getattr(instruction, "label_name", None)
        jumps = instruction.name.startswith(_JUMPS) and not instruction.is_slot
        effects = call_frames.effects_of(instruction)
        if effects or leaves or jumps:
            target = instruction.symbol if jumps else _NONE
            parts = [str(start), str(end), _LEAVES if leaves else _NONE, target]
            for operation, register, base, value in effects:
                sign, size = "-" * (value < 0), abs(value)
                parts += [operation, str(register), str(base), sign + holes.get(size, str(size))]
            words.append(",".join(parts))
        start = end
    return " ".join(words)


def frames(parts: Iterable[Part]) -> Frames:
    """Return the call frames of a composition, as those of a routine.

    Its stencils must have been assembled with ``has_effects``.
    """
    nodes: list[call_frames.Node] = []
    roles: dict[str, int] = {}
    jumps: list[tuple[call_frames.Node, str]] = []
    start = 0
    for part in parts:
        if part.role:
            roles[part.role] = len(nodes)
        nodes.append(call_frames.Node(start))
        for word in part.stencil.effects.split():
            begin, end, leaves, target, *effects = word.split(",")
            node = call_frames.Node(start + int(begin), list(_effects(effects, part.numbers)))
            node.leaves = leaves == _LEAVES
            if target != _NONE:
                jumps.append((node, part.slots.get(target, target)))
            nodes += [node, call_frames.Node(start + int(end))]
        start += len(part.stencil.code)
    for node, role in jumps:
        node.target = roles[role]
    return call_frames.follow(nodes)


def _effects(words: list[str], numbers: Mapping[str, int]) -> Iterator[Effect]:
    for operation, register, base, displacement in zip(*[iter(words)] * 4, strict=True):
        name = displacement.lstrip("-")
        value = int(name) if name.isdigit() else numbers[name]
        yield operation, int(register), int(base), -value if displacement[0] == "-" else value
