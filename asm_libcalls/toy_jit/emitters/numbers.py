"""Emit constants, and the instructions on numbers: arithmetic, comparisons, conversions."""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.emitters import memory
from asm_libcalls.toy_jit.places import (
    ACC,
    CONST,
    FLAGS,
    FLOATS,
    LOCAL,
    NEGATED,
    OTHER,
    XMM,
    signed_32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["HANDLERS", "handler_for"]

_EXCHANGED = {"z": "z", "nz": "nz", "c": "a", "a": "c", "be": "nc", "nc": "be", "l": "g", "g": "l"}
_EXCHANGED |= {"le": "ge", "ge": "le"}
"""The condition that holds when the two operands of the comparison are exchanged."""

_INTEGER_CONDITIONS = dict(
    zip("eq ne lt_s lt_u gt_s gt_u le_s le_u ge_s ge_u".split(),  # noqa: SIM905
        "z nz l c g a le be ge nc".split(), strict=True)  # noqa: SIM905
)  # fmt: skip
_COMMUTATIVE = frozenset(("add", "and", "or", "xor", "mul"))
_NUMERIC_LIBCALLS = {
    "div_s": "sdiv", "div_u": "udiv", "rem_s": "srem", "rem_u": "urem",
    "shl": "ishl", "shr_s": "sshr", "shr_u": "ushr",
}  # fmt: skip
_ROUNDING = ("ceil", "floor", "trunc", "nearest")


def _integer_operands(c: FunctionCompiler, name: str, commutative: bool) -> bool:
    """Emit ``rax OP= operand``; return whether the operands were exchanged."""
    stack = c.stack
    c.settle(2, XMM)
    right, left = c.take(), c.take()
    height = len(stack)  # of the left one
    kind, data = right
    if kind == CONST:
        value = data - (1 << 32) if name[1] == "3" and data >= 1 << 31 else data
        if signed_32(value):
            c.to_acc(left, height)
            c.emit(name + ".const", value)
            return False
        c.emit_wide("const.rcx.wide", data)
    elif kind == ACC:
        source = c.source(left, height) if commutative else None
        if source is not None:
            c.acc = -1
            c.emit(name + source[0], *source[1])
            return True
        if commutative and left[0] == CONST:
            value = left[1] - (1 << 32) if name[1] == "3" and left[1] >= 1 << 31 else left[1]
            if signed_32(value):
                c.acc = -1
                c.emit(name + ".const", value)
                return True
        c.acc = c.acc_is = -1
        c.emit("move.rcx")
    else:
        source = c.source(right, height + 1)
        assert source is not None
        c.to_acc(left, height)
        c.emit(name + source[0], *source[1])
        return False
    c.to_acc(left, height)
    c.emit(name + ".rcx")
    return False


def _integer_binary(name: str, commutative: bool) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        _integer_operands(c, name, commutative)
        c.push_acc()

    return emit


def _integer_comparison(value_type: str, condition: str) -> Handler:
    name = f"{value_type}.cmp"

    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        # A comparison leaves rax as it is: a local that is there stays there.
        exchanged = _integer_operands(c, name, True)
        c.push_flags(_EXCHANGED[condition] if exchanged else condition)

    return emit


def _integer_by_rcx(template: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        c.settle(2, XMM)
        right, left = c.take(), c.take()
        c.to_rcx(right, len(c.stack) + 1)
        c.to_acc(left, len(c.stack))
        c.emit(template)
        c.push_acc()

    return emit


def _integer_libcall(name: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        c.numeric_libcall(name, float_=False)

    return emit


def _rounding(name: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        c.numeric_libcall(name, float_=True)

    return emit


def _eqz(value_type: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        kind, data = c.stack[-1]
        if kind == FLAGS:
            c.stack.pop()
            c.push_flags(NEGATED[data])
        else:
            c.pop_acc()
            c.emit(value_type + ".test")
            c.push_flags("z")

    return emit


_RETYPED = {"i64.extend_i32_u", "i64.reinterpret_f64", "f32.reinterpret_i32", "f64.reinterpret_i64"}
"""Conversions that change nothing: the accumulators take either kind of bits."""

_TEMPLATE_NAMES = {"i32.wrap_i64": "i32.wrap", "i64.extend_i32_s": "i64.extend32_s"}


def _unary(name: str) -> Handler:
    params, _, results = op.SIGNATURES[op.OPCODES[name]] or (b"", 0, b"")
    template = _TEMPLATE_NAMES.get(name, name)
    from_float, to_float = params[0] in FLOATS, results[0] in FLOATS

    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        if name in _RETYPED:
            if c.stack[-1][0] in (FLAGS, LOCAL, OTHER):
                # A register other than the accumulators is of the type that it was taken for.
                c.spill(len(c.stack) - 1)
            return
        if from_float:
            c.pop_xmm()
            c.xmm_is = -1
            if not to_float:
                c.free_acc()
        else:
            c.pop_acc()
            if to_float:
                c.free_xmm()
        c.emit(template)
        c.acc_is = -1 if not (from_float and to_float) else c.acc_is
        c.push(results[0])

    return emit


def _float_operands(c: FunctionCompiler) -> tuple[tuple[int, Any], tuple[int, Any], int]:
    c.settle(2, ACC)
    right, left = c.take(), c.take()
    return left, right, len(c.stack)


def _to_xmm1(c: FunctionCompiler, right: tuple[int, Any], height: int) -> None:
    kind, data = right
    source = c.source(right, height)
    if source is not None:
        c.emit("float.load.xmm1" + source[0], *source[1])
    elif kind == CONST:
        c.emit_wide("float.xmm1.const", data)
    else:
        c.emit("float.move.xmm1")
        c.xmm = c.xmm_is = -1


def _float_binary(name: str, commutative: bool) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        left, right, at_height = _float_operands(c)
        right_at, left_at = c.source(right, at_height + 1), c.source(left, at_height)
        if right_at is not None:
            c.to_xmm(left, at_height)
            c.emit(name + right_at[0], *right_at[1])
        elif right[0] == XMM and commutative and left_at is not None:
            c.xmm = -1
            c.emit(name + left_at[0], *left_at[1])
        else:
            _to_xmm1(c, right, at_height + 1)
            c.to_xmm(left, at_height)
            c.emit(name + ".xmm1")
        c.push_xmm()

    return emit


def _float_by_xmm1(name: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        left, right, at_height = _float_operands(c)
        _to_xmm1(c, right, at_height + 1)
        c.to_xmm(left, at_height)
        c.emit(name)
        c.push_xmm()

    return emit


def _float_comparison(value_type: str, verb: str) -> Handler:
    compare = f"{value_type}.cmp"

    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        left, right, at_height = _float_operands(c)
        if verb in ("lt", "le"):
            # a < b is b > a: "above" is false where one of them is a NaN.
            left_at = c.source(left, at_height)
            if left_at is not None:
                c.to_xmm(right, at_height + 1)
                c.emit(compare + left_at[0], *left_at[1])
            else:
                _to_xmm1(c, right, at_height + 1)
                c.to_xmm(left, at_height)
                c.emit(compare + ".swapped")
        else:
            if verb in ("eq", "ne"):
                c.free_acc()
                c.acc_is = -1
            right_at = c.source(right, at_height + 1)
            if right_at is not None:
                c.to_xmm(left, at_height)
                c.emit(compare + right_at[0], *right_at[1])
            else:
                _to_xmm1(c, right, at_height + 1)
                c.to_xmm(left, at_height)
                c.emit(compare + ".xmm1")
        if verb in ("eq", "ne"):
            c.emit(f"{value_type}.{verb}")
            c.push_acc()
        else:
            c.push_flags("a" if verb in ("lt", "gt") else "nc")

    return emit


def _constant(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    # An i32 in a slot or a register is zero-extended.
    c.stack.append((CONST, immediate & 0xFFFFFFFF if opcode == op.I32_CONST else immediate))


def handler_for(name: str, inline: bool) -> Handler:
    """Return the emitter of an instruction on numbers, a load or a store."""
    value_type, _, verb = name.partition(".")
    if value_type in ("i32", "i64"):
        if verb in _INTEGER_CONDITIONS:
            return _integer_comparison(value_type, _INTEGER_CONDITIONS[verb])
        if verb in ("add", "sub", "and", "or", "xor", "mul"):
            return _integer_binary(f"{value_type}.{verb}", verb in _COMMUTATIVE)
        inlined = value_type == "i32" or (inline and verb.startswith("sh"))
        if verb in _NUMERIC_LIBCALLS and not inlined:
            return _integer_libcall("i64_" + _NUMERIC_LIBCALLS[verb])
        if verb in ("div_s", "div_u", "rem_s", "rem_u", "shl", "shr_s", "shr_u", "rotl", "rotr"):
            return _integer_by_rcx(f"{value_type}.{verb}.rcx")
        if verb.startswith("load"):
            return memory.load(name, op.OPCODES[name])
        if verb.startswith("store"):
            size = int(verb[5:] or value_type[1:])
            return memory.store(f"memory.store{size}", size // 8)
    elif verb in ("add", "sub", "mul", "div"):
        return _float_binary(f"{value_type}.{verb}", verb in _COMMUTATIVE)
    elif verb in ("min", "max", "copysign"):
        return _float_by_xmm1(name)
    elif verb in ("eq", "ne", "lt", "gt", "le", "ge"):
        return _float_comparison(value_type, verb)
    elif verb in _ROUNDING:
        return _rounding(f"{value_type}_{verb}")
    elif verb == "load":
        return memory.load(name, op.OPCODES[name])
    elif verb == "store":
        return memory.store(f"memory.{name}", int(value_type[1:]) // 8)
    return _unary(name)


HANDLERS: dict[str, Handler] = {
    "ref.is_null": _eqz("i64"),
    "i32.eqz": _eqz("i32"),
    "i64.eqz": _eqz("i64"),
    "i32.const": _constant,
    "i64.const": _constant,
    "f32.const": _constant,
    "f64.const": _constant,
}
