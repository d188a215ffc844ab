"""Handlers of instructions on numbers: of one or two operands, and comparisons.

A handler emits the code of an instruction. It gets the emitter and the instruction's immediate.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.copies import copies_of
from asm_libcalls.toy_jit.codegen.function_code import constant, pattern
from asm_libcalls.toy_jit.codegen.registers import (
    ACCUMULATORS,
    NEGATED,
    SETS,
    SWAPPED,
    operand_registers,
)
from asm_libcalls.toy_jit.codegen.templates import INSTRUCTIONS, TEMPLATES, THREE_OPERANDS
from asm_libcalls.toy_jit.frontend import opcodes as op

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.calls import Emitter
    from asm_libcalls.toy_jit.codegen.function_code import Place

    Handler = Callable[[Emitter, Any], object]

CONDITIONS = {
    "eq": "z", "ne": "nz", "lt_s": "l", "lt_u": "c", "gt_s": "g", "gt_u": "a", "le_s": "le",
    "le_u": "be", "ge_s": "ge", "ge_u": "nc",
    # a < b is compared as b > a: "above" is false if one of them is a NaN.
    "gt": "a", "ge": "nc", "lt": "a", "le": "nc",
}  # fmt: skip
_COMMUTATIVE = ("add", "mul", "and", "or", "xor")
_SETS_ZERO_FLAG = ("add", "sub", "and", "or", "xor")
_SIGNS = ("neg", "abs")
_MOST_KEPT = 1 << 13
_SHIFTS = ("shl", "shr_s", "shr_u", "rotl", "rotr")


def number(name: str, opcode: int) -> Handler:
    """Make the handler of an instruction on numbers that calls no libcall."""
    verb = name[4:]
    is_float = name[:1] == "f"
    if verb in CONDITIONS:
        return _compare_floats(name, verb) if is_float else _compare_integers(name, verb)
    if verb in _SIGNS:
        return _sign(name, verb)
    if f"{name}.register" in INSTRUCTIONS:
        return _float(name, verb) if is_float else _integer(name, verb)
    if verb in _SHIFTS:
        return _shift(name, opcode)
    if name in INSTRUCTIONS:
        return _unary(name)
    return simple(name, opcode)


def simple(name: str, opcode: int) -> Handler:
    """Make the handler of an instruction that is one stencil with operands in accumulators."""
    params, _, results = op.SIGNATURES[opcode] or (b"", 0, b"")
    registers = operand_registers(params)

    def emit(c: Emitter, immediate: Any) -> None:
        c.take(registers)
        c.emit(name)
        for valtype in results:
            c.push_result(valtype)

    return emit


def _unary(name: str) -> Handler:
    """Make the handler of an instruction from one register to another."""
    params, _, results = op.SIGNATURES[op.OPCODES[name]] or (b"", 0, b"")
    clears = ".convert_" in name
    (source_kind,), (kind,) = operand_registers(params), operand_registers(results)

    def emit(c: Emitter, immediate: Any) -> None:
        source = c.to_register(c.pop(), source_kind)
        target = c.target(kind)
        if clears:
            c.form("move.f.zero", target)
        c.form(name, target, right=source)
        c.push_target(target)

    return emit


# -- two operands


def _immediates(half: bool) -> tuple[str, ...]:
    """Return the kinds of known operands that are immediates of 32 bits."""
    return ("const", "wide") if half else ("const",)


def _with_right(name: str) -> Callable[[Emitter, Place, str, str], None]:
    """Return a function that emits an instruction with a right operand that is no constant.

    It gets the emitter, the right operand, and the registers of the target and the left operand.
    """
    of_register = copies_of(name + ".register", "to", "left", "right")
    of_slot = copies_of(name + ".slot", "to", "left", "offset")
    of_memory = copies_of(name + ".memory", "to", "left", "index", "offset")
    second = ACCUMULATORS[name[0]][1]

    def emit(c: Emitter, place: Place, to: str, left: str = "") -> None:
        kind = place[0]
        if len(place) == 1:
            key = to, left, kind
            c.code += of_register.kept.get(key) or of_register.add(key)
        elif kind == "slot":
            key = to, left, place[1]
            c.code += of_slot.kept.get(key) or of_slot.add(key)
        elif kind == "memory":
            key = to, left, *place[1:]
            c.code += of_memory.kept.get(key) or of_memory.add(key)
        elif name[0] == "f" and place != ("const", 0):
            c.with_constant(name + ".memory", pattern(place), to, left)
        else:
            c.move((second,), place)
            key = to, left, second
            c.code += of_register.kept.get(key) or of_register.add(key)

    return emit


def _is_better_left(c: Emitter, left: Place, right: Place, wanted: str) -> bool:
    """Return whether to swap the operands of an instruction that overwrites its left one.

    The right one is in a register.
    """
    if len(left) > 1 or right[0] == wanted:
        return True
    return left[0] != wanted and right[0] in c.for_operands and left[0] not in c.for_operands


def _integer(name: str, verb: str) -> Handler:
    half = name[1] == "3"
    commutative, is_sum = verb in _COMMUTATIVE, verb in ("add", "sub")
    sets_flag = verb in _SETS_ZERO_FLAG
    of_constant, sum_ = name + ".const", name[:4] + "sum."
    with_right = _with_right(name)
    immediates = _immediates(half)
    kept: dict[tuple[str, Place, Place], tuple[bytes, bool]] = {}

    def emit(c: Emitter, immediate: Any) -> None:
        # The most frequent handler: it does itself what pop_two() and push_target() do.
        stack, held = c.stack, c.held
        right, left = stack.pop(), stack.pop()
        height = len(stack)
        if c.flushed > height:
            c.flushed = height
        if held:
            held.pop(right[0], None)
            held.pop(left[0], None)
        wanted = c.wanted() if c.following[0] in SETS else ""
        if commutative:
            if len(right) == 1:
                if _is_better_left(c, left, right, wanted):
                    left, right = right, left
            elif right[0] == "slot" and left[0] in ("const", "wide"):
                left, right = right, left
        # A register in a place is read by the instruction, so others may not be overwritten first.
        if wanted and (wanted not in right or left[0] == wanted):
            target = wanted
        else:
            target = left[0] if left[0] in c.for_operands else c.fresh("rax", right)
        key = (target, left, right)
        known = kept.get(key)  # another thread may clear it
        if known is not None:
            code, flags_are_set = known
            c.code += code
        else:
            start = len(c.code)
            flags_are_set = operate(c, target, left, right)
            if len(kept) >= _MOST_KEPT:
                kept.clear()
            kept[key] = bytes(c.code[start:]), flags_are_set
        if flags_are_set:
            c.flags = len(c.code), target
        if target in c.for_operands:
            held[target] = height
            stack.append((target,))
        else:
            c.push((target,))

    def operate(c: Emitter, target: str, left: Place, right: Place) -> bool:
        """Emit code, which depends on these places only; return whether it sets the zero flag."""
        value = right[1] if right[0] in immediates else None
        if is_sum and len(left) == 1 and left[0] != target:
            addend = value if verb == "add" or value is None else -value
            if addend is not None and -0x80000000 <= addend <= 0x7FFFFFFF:
                c.form(sum_ + "const", target, left[0], offset=addend)
                return False
            if verb == "add" and len(right) == 1:
                c.form(sum_ + "register", target, left[0], right[0])
                return False
        if verb == "mul" and value is not None and len(left) == 1:
            c.form(of_constant, target, right=left[0], value=value)
        elif verb == "mul" and value is not None and left[0] == "slot":
            c.form("i32.mul.slot.const" if half else "i64.mul.slot.const", target,
                   offset=left[1], value=value)  # fmt: skip
        else:
            c.move((target,), left)
            if value is None:
                with_right(c, right, target, "")
            elif verb == "mul":
                c.form(of_constant, target, right=target, value=value)
            else:
                c.form(of_constant, target, value=value)
            return sets_flag
        return False

    return emit


def _float(name: str, verb: str) -> Handler:
    commutative = verb in _COMMUTATIVE
    with_right = _with_right(name)

    def emit(c: Emitter, immediate: Any) -> None:
        right, left = c.pop_two()
        if commutative and len(left) > 1 and len(right) == 1:
            left, right = right, left
        if right[0] == "xmm0" and not c.free["xmm0"]:
            # In functions with vectors, xmm0 alone is for operands.
            c.move(("xmm1",), right)
            right = ("xmm1",)
        if THREE_OPERANDS:
            source = c.to_register(left, "xmm0", right)
            target = c.target("xmm0")
            with_right(c, right, target, source)
        else:
            target = c.overwritten(left, "xmm0", right)
            c.move((target,), left)
            with_right(c, right, target, "")
        c.push_target(target)

    return emit


def _sign(name: str, verb: str) -> Handler:
    """Make the handler of f32.neg and others, which change the sign bit only."""
    bits = int(name[1:3])
    sign = 1 << (bits - 1)
    mask = sign if verb == "neg" else sign - 1

    def emit(c: Emitter, immediate: Any) -> None:
        operand = c.pop()
        if THREE_OPERANDS:
            source = c.to_register(operand, "xmm0")
            target = c.target("xmm0")
            c.with_constant(name, mask, target, source)
        else:
            target = c.overwritten(operand, "xmm0")
            c.move((target,), operand)
            c.with_constant(name, mask, target)
        c.push_target(target)

    return emit


def _shift(name: str, opcode: int) -> Handler:
    by_register = simple(name, opcode)
    most = int(name[1:3]) - 1
    rotation = name[:4] + "rotr.three"
    is_rotation = name[4:] in ("rotl", "rotr") and rotation in INSTRUCTIONS
    sign = -1 if name.endswith("rotl") else 1
    three = name + ".three"
    of_any = three in INSTRUCTIONS and not is_rotation

    def emit(c: Emitter, immediate: Any) -> None:
        if c.stack[-1][0] in ("const", "wide"):
            count = c.pop()[1] & most
            left = c.pop()
            if is_rotation and left[0] not in c.for_operands and left[0] != c.wanted():
                source = c.to_register(left, "rax")
                target = c.target("rax")
                c.form(rotation, target, right=source, value=sign * count & most)
            else:
                target = c.overwritten(left, "rax")
                c.move((target,), left)
                c.form(name + ".const", target, value=count)
            c.push_target(target)
        elif of_any:
            right, left = c.pop_two()
            source = c.to_register(left, "rax", right)
            count_register = c.to_register(right, "rax", (source,))
            target = c.target("rax")
            c.form(three, target, source, count_register)
            c.push_target(target)
        else:
            by_register(c, immediate)

    return emit


# -- comparisons


def _compare_integers(name: str, verb: str) -> Handler:
    half = name[1] == "3"
    compare, test = name[:4] + "cmp", name[:4] + "test"
    condition = CONDITIONS[verb]
    swapped = SWAPPED.get(condition, condition)
    with_right = _with_right(compare)
    immediates = _immediates(half)
    of_slot = copies_of(compare + ".slot.const", "offset", "value")
    of_constant = copies_of(compare + ".const", "to", "value")
    of_zero = copies_of(test, "to")

    def emit(c: Emitter, immediate: Any) -> None:
        right, left = c.pop_two()
        flags = condition
        if (left[0] in immediates and right[0] not in ("const", "wide", "memory")) or (
            left[0] == "slot" and len(right) == 1
        ):
            left, right, flags = right, left, swapped
        if right[0] not in immediates:
            with_right(c, right, c.to_register(left, "rax", right), "")
        elif left[0] == "slot":
            key = left[1], right[1]
            c.code += of_slot.kept.get(key) or of_slot.add(key)
        elif right[1]:
            key = c.to_register(left, "rax", right), right[1]
            c.code += of_constant.kept.get(key) or of_constant.add(key)
        else:
            register = c.to_register(left, "rax", right)
            c.code += of_zero.kept.get(register) or of_zero.add(register)
        c.push_condition(flags)

    return emit


def _compare_floats(name: str, verb: str) -> Handler:
    compare = name[:4] + "cmp"
    condition = CONDITIONS[verb]
    is_swapped = verb in ("lt", "le")
    with_right = _with_right(compare)

    def emit(c: Emitter, immediate: Any) -> None:
        right, left = c.pop_two()
        if is_swapped:
            left, right = right, left
        if len(left) > 1:
            # xmm1, since in functions with vectors only xmm0 is for operands.
            c.move(("xmm1",), left)
            left = ("xmm1",)
        if right == ("const", 0):
            second = c.fresh("xmm0") if left[0] == "xmm1" else "xmm1"
            c.move((second,), right)
            right = (second,)
        with_right(c, right, left[0], "")
        if name in TEMPLATES:  # eq and ne need two flags
            c.make_room(0)
            c.emit(name)
            c.push_register("rax")
        else:
            c.push_condition(condition)

    return emit


def is_zero(valtype: str) -> Handler:
    """Make the handler of a test for zero. If a comparison precedes, it negates that."""

    def emit(c: Emitter, immediate: Any) -> None:
        if c.condition:
            c.push_condition(NEGATED[c.pop_condition()])
        else:
            c.test(c.pop(), valtype)
            c.push_condition("z")

    return emit


def constant_operand(c: Emitter, immediate: Any) -> None:
    """Push a constant of 64 bits or a float, which emits no code."""
    c.push(constant(immediate))
