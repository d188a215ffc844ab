"""Handlers of loads and stores of numbers. ``Places.address`` emits their bounds checks."""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.copies import copies_of
from asm_libcalls.toy_jit.codegen.registers import ACCUMULATORS
from asm_libcalls.toy_jit.codegen.templates import INSTRUCTIONS
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.calls import Emitter

    Handler = Callable[[Emitter, Any], object]


def access(name: str, opcode: int) -> Handler:
    """Make the handler of a load or store."""
    size = 1 << op.ALIGNMENTS[opcode]
    return _store(name, size) if "store" in name else _load(name, size)


def _users(name: str) -> frozenset[int]:
    """Return the instructions whose right operand may be a memory operand of this load."""
    if name[4:] != "load":
        return frozenset()
    verbs = ["add", "sub", "mul", "eq", "ne"]
    if name[0] == "i":
        verbs += ["and", "or", "xor"]
        verbs += [f"{verb}_{sign}" for verb in ("lt", "gt", "le", "ge") for sign in "su"]
    else:
        verbs += ["div", "gt", "ge"]  # lt and le swap their operands
    return frozenset(op.OPCODES[name[:4] + verb] for verb in verbs)


def _load(name: str, size: int) -> Handler:
    kind = ACCUMULATORS[name[0]][0]
    users = _users(name)
    copies = copies_of(name, "to", "index", "offset")

    def emit(c: Emitter, offset: int) -> None:
        index, offset = c.address(c.pop(), offset, size)
        if c.following[0] in users:
            # Not pushed as others: that may move all operands to slots.
            c.stack.append(("memory", index, offset))
            return
        target = c.target(kind)
        key = target, index, offset
        c.code += copies.kept.get(key) or copies.add(key)
        c.push_target(target)

    return emit


def _store(name: str, size: int) -> Handler:
    second = (ACCUMULATORS[name[0]][1],)
    # A constant of 64 bits must be one of 32 bits, sign-extended; of others the lower bits count.
    constants = {"const"} if size == 8 else {"const", "wide"}
    of_constant = f"{name}.const"
    if of_constant not in INSTRUCTIONS:
        constants = set()
    most = 0xFF if size == 1 else -1
    copies = copies_of(name, "to", "index", "offset")
    copies_of_constant = copies_of(of_constant, "index", "offset", "value")

    def emit(c: Emitter, offset: int) -> None:
        value, address = c.pop_two()
        if value[0] in constants:
            index, offset = c.address(address, offset, size)
            numbers = index, offset, value[1] & most
            c.code += copies_of_constant.kept.get(numbers) or copies_of_constant.add(numbers)
            return
        if len(value) > 1:
            c.move(second, value)
            value = second
        index, offset = c.address(address, offset, size, value)
        key = value[0], index, offset
        c.code += copies.kept.get(key) or copies.add(key)

    return emit
