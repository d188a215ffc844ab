"""What the compiler emits for each instruction: one small function for each kind of them.

``HANDLERS[opcode](compiler, opcode, immediate, height)``; the immediates are those of
:mod:`asm_libcalls.toy_jit.validator`. The rules of the operand states are the compiler's.
"""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.compiler import (
    ACC,
    CONST,
    FLAGS,
    FLOATS,
    LOCAL,
    NEGATED,
    OTHER,
    XMM,
    FunctionCompiler,
    signed_32,
)
from asm_libcalls.toy_jit.module import EXTERNREF, I32
from asm_libcalls.toy_jit.operands import FUNCTION
from asm_libcalls.toy_jit.templates import TEMPLATES
from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import Handler

__all__ = ["make_handlers"]

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


def make_handlers(inline: bool) -> list[Handler]:
    """Return the emitters by opcode.

    Parameters
    ----------
    inline : bool
        Whether 64-bit shifts are emitted as the CPU's own instruction instead of a libcall.
    """
    handlers: list[Handler] = [_unknown] * op.COUNT
    for opcode, name in enumerate(op.NAMES):
        if name is None:
            continue
        handlers[opcode] = _OTHERS.get(name) or _for_name(name, inline)
    return handlers


def _unknown(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    raise AssertionError(f"opcode {opcode:#x} was validated, but nobody emits it")


def _for_name(name: str, inline: bool) -> Handler:
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
            return _load(name, op.OPCODES[name])
        if verb.startswith("store"):
            size = int(verb[5:] or value_type[1:])
            return _store(f"memory.store{size}", size // 8)
    elif verb in ("add", "sub", "mul", "div"):
        return _float_binary(f"{value_type}.{verb}", verb in _COMMUTATIVE)
    elif verb in ("min", "max", "copysign"):
        return _float_by_xmm1(name)
    elif verb in ("eq", "ne", "lt", "gt", "le", "ge"):
        return _float_comparison(value_type, verb)
    elif verb in _ROUNDING:
        return _rounding(f"{value_type}_{verb}")
    elif verb == "load":
        return _load(name, op.OPCODES[name])
    elif verb == "store":
        return _store(f"memory.{name}", int(value_type[1:]) // 8)
    return _unary(name)


# -- numbers


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


def _to_rcx(c: FunctionCompiler, operand: tuple[int, Any], height: int) -> None:
    """Bring an operand, taken from the stack, to rcx."""
    source = c.source(operand, height)
    kind, data = operand
    if source is not None:
        c.emit("load.rcx" + source[0], *source[1])
    elif kind == CONST and 0 <= data <= 0x7FFFFFFF:
        c.emit("const.rcx", data)
    elif kind == CONST:
        c.emit_wide("const.rcx.wide", data)
    else:
        assert kind == ACC
        c.acc = -1
        c.emit("move.rcx")


def _integer_by_rcx(template: str) -> Handler:
    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        c.settle(2, XMM)
        right, left = c.take(), c.take()
        _to_rcx(c, right, len(c.stack) + 1)
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


# -- locals, globals, parametric instructions


def _local_get(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.stack.append((LOCAL, immediate))


def _local_set(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    stack = c.stack
    operand = c.take()
    mine = (LOCAL, immediate)
    if operand == mine:
        if opcode == op.LOCAL_TEE:
            stack.append(mine)
        return
    if operand[0] == FLAGS:
        c.to_acc(operand, len(stack))
        operand = (ACC, 0)
    if mine in stack:  # operands that were to be read from the local later
        for i, entry in enumerate(stack):
            if entry == mine:
                c.spill(i)
    if c.acc_is == immediate:
        c.acc_is = -1
    if c.xmm_is == immediate:
        c.xmm_is = -1
    _store_local(c, operand, immediate)
    if opcode == op.LOCAL_TEE:
        # From the local, which the accumulator may still hold.
        stack.append(operand if operand[0] == CONST else mine)


def _store_local(c: FunctionCompiler, operand: tuple[int, Any], index: int) -> None:
    """Put an operand, taken from the stack, into a local."""
    kind, data = operand
    place = c.pinned[index]
    target, holes = (place, ()) if place else (".slot", (c.local(index),))
    if kind == XMM and place[:2] == ".r":
        c.xmm = -1
        c.free_acc()
        c.emit("float.to_rax")
        kind = ACC
    if kind == ACC:
        c.emit("store" + target, *holes)
        c.acc, c.acc_is = -1, index
    elif kind == XMM:
        c.emit("float.store" + target, *holes)
        c.xmm, c.xmm_is = -1, index
    elif kind == CONST:
        if place and data == 0:
            c.emit("zero" + place)
        elif place[:2] == ".r" and 0 < data <= 0x7FFFFFFF:
            c.emit("const" + place, data)
        elif not place and signed_32(data):
            c.emit("store.const", *holes, data)
        else:
            c.emit_wide("const.rdx.wide", data)
            c.emit("from_rdx" + target, *holes)
    else:
        source = c.source(operand, len(c.stack))
        assert source is not None
        if place[:2] == ".x" and source[0][:2] != ".r":
            c.emit("float.load.xmm1" + source[0], *source[1])
            c.emit("float.from_xmm1" + place)
        else:
            c.emit("to_rdx" + source[0], *source[1])
            c.emit("from_rdx" + target, *holes)


def _global_get(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    valtype = c.layout.global_types[index]
    if valtype == EXTERNREF:
        c.libcall("externref_global_get", (index,), references, result=EXTERNREF)
        return
    imported, offset = c.layout.global_at(index)
    if valtype in FLOATS and not imported:
        c.free_xmm()
        c.emit("global.float.get", offset)
        c.push_xmm()
    else:
        c.free_acc()
        c.emit("global.imported.get" if imported else "global.get", offset)
        c.push_acc()


def _global_set(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    valtype = c.layout.global_types[index]
    if valtype == EXTERNREF:
        c.libcall("externref_global_set", (index, None), references)
        return
    imported, offset = c.layout.global_at(index)
    if c.stack[-1][0] == XMM and not imported:
        c.pop_xmm()
        c.emit("global.float.set", offset)
    else:
        c.pop_acc()
        c.emit("global.imported.set" if imported else "global.set", offset)


def _drop(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    kind, _ = c.stack.pop()
    if kind == ACC:
        c.acc = -1
    elif kind == XMM:
        c.xmm = -1


def _select(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    stack = c.stack
    top = len(stack) - 1
    for i in (top - 2, top - 1):
        if c.in_memory(stack[i], i) is None:
            c.spill(i)
    condition = c.pop_condition()
    c.free_acc()
    second, first = stack.pop(), stack.pop()
    first_at, second_at = c.in_memory(first, top - 2), c.in_memory(second, top - 1)
    assert first_at is not None
    assert second_at is not None
    c.emit("select." + NEGATED[condition], first_at, second_at)
    c.push_acc()


# -- memory


def _load(name: str, opcode_: int) -> Handler:
    signature = op.SIGNATURES[opcode_]
    assert signature is not None
    valtype = signature[2][0]
    digits = "".join(ch for ch in name.partition("load")[2] if ch.isdigit())
    size = int(digits or name[1:3]) // 8
    to_float = valtype in FLOATS

    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        c.pop_acc()
        if to_float:
            c.free_xmm()
        offset = immediate
        if offset + size > 0x7FFFFFFF:
            c.acc_is = -1
            c.emit_wide("memory.offset.rax", offset)
            offset = 0
        c.emit(name, offset + size, offset)
        c.push(valtype)

    return emit


def _store(template: str, size: int) -> Handler:
    to_memory_from_xmm = template.startswith("memory.f")

    def emit(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
        if to_memory_from_xmm:
            kind, data = c.stack[-2]
            if kind == XMM or (kind == OTHER and data[:2] == ".x"):
                c.spill(len(c.stack) - 2)
        else:
            c.settle(2, XMM)
        value, address = c.take(), c.take()
        at_height = len(c.stack)
        if address[0] == ACC:
            _to_rcx(c, address, at_height)
        if to_memory_from_xmm:
            c.to_xmm(value, at_height + 1)
        else:
            c.to_acc(value, at_height + 1)
        if address[0] != ACC:
            _to_rcx(c, address, at_height)
        offset = immediate
        if offset + size > 0x7FFFFFFF:
            c.emit_wide("memory.offset.rcx", offset)
            offset = 0
        c.emit(template, offset + size, offset)

    return emit


def _memory_size(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    prefix, index = c.layout.memory_0
    c.libcall(prefix + "memory32_size", (index,), immediate[0], result=I32)


def _memory_grow(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    prefix, index = c.layout.memory_0
    c.libcall(prefix + "memory32_grow", (None, index), immediate[0], result=I32)


def _memory_fill(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    prefix, index = c.layout.memory_0
    c.libcall(prefix + "memory_fill", (index, None, None, None), immediate[0])


def _memory_copy(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.libcall("memory_copy", (0, None, 0, None, None), immediate[0])


def _memory_init(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    c.libcall("memory_init", (0, index, None, None, None), references)


def _data_drop(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    c.libcall("data_drop", (index,), references)


# -- tables and references


def _table(c: FunctionCompiler, index: int) -> None:
    imported, offset = c.layout.table_at(index)
    c.emit("table.imported" if imported else "table.defined", offset)


def _is_externref(c: FunctionCompiler, index: int) -> bool:
    return c.layout.table_types[index] == EXTERNREF


def _table_get(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    if _is_externref(c, index):
        c.flush_registers()
        kept = len(c.stack) - 1
        c.spill(kept)
        c.save_locals()
        c.emit("libcall.vmctx")
        c.emit("libcall.1.const", index)
        c.emit("libcall.2.slot", c.slot(kept))
        c.stack.pop()
        c.emit_wide("const.wide", c.layout.addresses["toy_jit_table_get"])
        c.emit("call.rax")
        c.site(references, kept)
        c.acc_is = c.xmm_is = -1
        c.restore_locals()
    else:
        c.pop_acc()
        c.acc_is = -1
        _table(c, index)
        c.emit("table.get")
    c.push_acc()


def _table_set(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    c.libcall("table_fill", (index, None, None, 1), references, externref=_is_externref(c, index))


def _table_size(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.free_acc()
    _table(c, immediate[0])
    c.emit("table.size")
    c.push_acc()


def _table_grow(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    # The instruction has the value first, the libcall the number.
    stack = c.stack
    c.flush(len(stack) - 2)
    value, delta = c.slot(len(stack) - 2), c.slot(len(stack) - 1)
    kept = len(stack) - 2
    c.flush_registers()
    c.save_locals()
    c.emit("libcall.vmctx")
    c.emit("libcall.1.const", index)
    c.emit("libcall.2.slot", delta)
    c.emit("libcall.3.slot", value)
    del stack[kept:]
    c.emit("libcall.builtin", c.layout.builtin("table_grow", _is_externref(c, index)))
    c.site(references, kept)
    c.acc_is = c.xmm_is = -1
    c.restore_locals()
    c.emit("i32.wrap")
    c.push_acc()


def _table_fill(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    externref = _is_externref(c, index)
    c.libcall("table_fill", (index, None, None, None), references, externref=externref)


def _table_copy(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    target, source, references = immediate
    c.libcall("table_copy", (target, source, None, None, None), references)


def _table_init(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    segment, index, references = immediate
    c.libcall("table_init", (index, segment, None, None, None), references)


def _elem_drop(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    c.libcall("elem_drop", (index,), references)


def _ref_null(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.stack.append((CONST, 0))


def _ref_func(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.free_acc()
    c.emit("vmctx.address", c.layout.offsets.vmctx_anyfunc(immediate))
    c.push_acc()


# -- control


def _unreachable(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    patches: list[tuple[int, int]] = []
    c.jump("jump", patches)
    c.trap_at(patches[0][0], TrapCode.UNREACHABLE_CODE_REACHED)


def _block(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frame = immediate
    frame.target = []
    if frame.targeted:
        c.flush()


def _loop(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frame = immediate
    if frame.targeted:
        c.flush()
        c.clear_state(len(c.stack))
        frame.target = len(c.code)
        c.check()


def _if(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frame = immediate
    condition = c.pop_condition()
    c.flush()
    frame.target = []
    frame.otherwise = []
    c.jump("jump." + NEGATED[condition], frame.otherwise)


def _else(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frame = immediate
    if height >= 0:
        c.flush()
        c.jump("jump", frame.target)
    c.land(frame.otherwise)
    frame.otherwise = []
    c.clear_state(frame.height + len(frame.params))


def _end(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frame = immediate
    if frame.opcode == FUNCTION:
        if height >= 0:
            c.return_()
        return
    falls_through = height >= 0
    joined = frame.opcode == op.IF or (frame.opcode == op.BLOCK and frame.targeted)
    if falls_through and joined:
        c.flush()
    if frame.opcode != op.LOOP:
        c.land(frame.target)
        if frame.opcode == op.IF:
            c.land(frame.otherwise)
    if joined or not falls_through:
        c.clear_state(frame.height + len(frame.results))


def _br(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.branch(immediate)


def _br_if(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.branch_if(c.pop_condition(), immediate)


def _br_table(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    frames = immediate
    if c.stack[-1][0] == FLAGS:
        c.pop_acc()
        c.push_acc()
    index = c.take()
    c.flush()
    c.to_acc(index, len(c.stack))
    c.acc_is = -1
    bytes_, holes, jumps = TEMPLATES["branch_table"]
    start = len(c.code)
    c.code += bytes_
    c.patch(start + holes[0][0], len(frames) - 1)
    table = len(c.code)
    c.patch(start + jumps[0][0], table - (start + jumps[0][0] + 4))
    c.code += bytes(4 * len(frames))
    state = list(c.stack)
    stubs: dict[int, int] = {}
    for i, frame in enumerate(frames):
        at = table + 4 * i
        count = len(frame.label)
        direct = frame.opcode != FUNCTION and (count == 0 or len(state) - count == frame.height)
        if direct and frame.opcode == op.LOOP:
            c.patch(at, frame.target - table)
        elif direct:
            frame.target.append((at, table))
        else:
            if id(frame) not in stubs:
                stubs[id(frame)] = len(c.code)
                c.clear_state(len(state))
                c.branch(frame)
            c.patch(at, stubs[id(frame)] - table)


def _return(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.return_()


def _call(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, functype, references = immediate
    c.arguments(functype)
    kept = len(c.stack)
    layout = c.layout
    if index < layout.offsets.num_imported_functions:
        c.emit(
            "call.import",
            layout.offsets.vmctx_vmfunction_import_body(index),
            layout.offsets.vmctx_vmfunction_import_vmctx(index),
        )
        c.emit("call.other")
        c.site(references, kept)
        c.emit("call.back")
    else:
        c.code += TEMPLATES["call"][0]
        layout.calls.append((len(c.code) - 4, f"function.{index}"))
        c.site(references, kept)
    c.results(functype)


def _call_indirect(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    type_index, table_index, functype, references = immediate
    if c.stack[-1][0] == FLAGS:
        c.pop_acc()
        c.push_acc()
    # The index stays where it is while the arguments below it are moved.
    index_height = len(c.stack) - 1
    index = c.take()
    in_acc = index[0] == ACC
    if in_acc:
        c.acc = -1
    elif index[0] == XMM:
        c.stack.append(index)
        c.spill(index_height)
        index = c.stack.pop()
    c.arguments(functype)
    if not in_acc:
        c.to_acc(index, index_height)
    c.flush_registers()
    kept = len(c.stack)
    _table(c, table_index)
    c.emit("call.indirect", c.layout.type_ids[type_index])
    c.emit("call.other")
    c.site(references, kept)
    c.emit("call.back")
    c.results(functype)


_OTHERS: dict[str, Handler] = {
    "unreachable": _unreachable,
    "nop": _unknown,
    "block": _block,
    "loop": _loop,
    "if": _if,
    "else": _else,
    "end": _end,
    "br": _br,
    "br_if": _br_if,
    "br_table": _br_table,
    "return": _return,
    "call": _call,
    "call_indirect": _call_indirect,
    "drop": _drop,
    "select": _select,
    "select_t": _unknown,
    "local.get": _local_get,
    "local.set": _local_set,
    "local.tee": _local_set,
    "global.get": _global_get,
    "global.set": _global_set,
    "table.get": _table_get,
    "table.set": _table_set,
    "table.size": _table_size,
    "table.grow": _table_grow,
    "table.fill": _table_fill,
    "table.copy": _table_copy,
    "table.init": _table_init,
    "elem.drop": _elem_drop,
    "memory.size": _memory_size,
    "memory.grow": _memory_grow,
    "memory.fill": _memory_fill,
    "memory.copy": _memory_copy,
    "memory.init": _memory_init,
    "data.drop": _data_drop,
    "ref.null": _ref_null,
    "ref.is_null": _eqz("i64"),
    "ref.func": _ref_func,
    "i32.eqz": _eqz("i32"),
    "i64.eqz": _eqz("i64"),
    "i32.const": _constant,
    "i64.const": _constant,
    "f32.const": _constant,
    "f64.const": _constant,
}
