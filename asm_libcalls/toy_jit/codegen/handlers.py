"""Handlers: for each instruction the function that emits its code.

A handler is ``make_handlers(inline)[opcode](emitter, immediate)``, with the immediates of
:mod:`asm_libcalls.toy_jit.frontend.validator`. Instructions that are a stencil of their name, and
all on numbers, are in ``arithmetic.py``. The others are here.
"""

from __future__ import annotations

from functools import cache

from asm_libcalls.toy_jit.codegen.arithmetic import (
    CONDITIONS,
    binary,
    comparison,
    constant_operand,
    is_zero,
    simple,
)
from asm_libcalls.toy_jit.codegen.places import constant
from asm_libcalls.toy_jit.codegen.registers import NEGATED, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF
from asm_libcalls.toy_jit.frontend.operands import FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.calls import Emitter
    from asm_libcalls.toy_jit.frontend.operands import Frame

    Handler = Callable[[Emitter, Any], None]

__all__ = ["local_set", "make_handlers"]

# -- libcalls

# The instruction, the libcall, its arguments ("v" is the vmctx, a digit a constant, "i" and "j" are
# the indices in the instruction, "a", "b" and "c" its operands), and the type of its result.
_LIBCALLS = """
    i64.div_s    i64_sdiv              ab      I
    i64.div_u    i64_udiv              ab      I
    i64.rem_s    i64_srem              ab      I
    i64.rem_u    i64_urem              ab      I
    i64.shl      i64_ishl              ab      I
    i64.shr_s    i64_sshr              ab      I
    i64.shr_u    i64_ushr              ab      I
    f32.ceil     f32_ceil              a       f
    f32.floor    f32_floor             a       f
    f32.trunc    f32_trunc             a       f
    f32.nearest  f32_nearest           a       f
    f64.ceil     f64_ceil              a       F
    f64.floor    f64_floor             a       F
    f64.trunc    f64_trunc             a       F
    f64.nearest  f64_nearest           a       F
    memory.size  memory32_size         v0      i
    memory.grow  memory32_grow         va0     i
    memory.fill  memory_fill           v0abc   -
    memory.copy  memory_copy           v0a0bc  -
    memory.init  memory_init           v0iabc  -
    data.drop    data_drop             vi      -
    table.get    toy_jit_table_get     via     x
    table.set    table_fill            viab1   -
    table.grow   table_grow            viba    i
    table.fill   table_fill            viabc   -
    table.copy   table_copy            vijabc  -
    table.init   table_init            vjiabc  -
    elem.drop    elem_drop             vi      -
    global.get   externref_global_get  vi      x
    global.set   externref_global_set  via     -
"""
_IMPORTED = ("memory32_size", "memory32_grow", "memory_fill")  # have a variant for imported ones


def _libcall(libcall: str, letters: str, results: bytes) -> Handler:
    count = sum(letter in "abc" for letter in letters)

    def emit(c: Emitter, immediate: Any) -> None:
        *indices, references = immediate or ((),)
        values = {"v": "vmctx", **dict(zip("ij", indices, strict=False))}
        arguments = [int(a) if a.isdigit() else values.get(a, a) for a in letters]
        name = libcall
        if name in _IMPORTED and c.layout.offsets.num_imported_memories:
            name = "imported_" + name
        by_type = libcall in ("table_grow", "table_fill")
        externref = by_type and c.layout.table_types[indices[0]] == EXTERNREF
        c.libcall(name, arguments, count, references, results, externref)

    return emit


_CALLED = {
    op.OPCODES[name]: _libcall(libcall, letters, op.value_types(result.strip("-")))
    for name, libcall, letters, result in map(str.split, _LIBCALLS.strip().splitlines())
}


# -- variables, references and tables


def _local_get(c: Emitter, immediate: Any) -> None:
    c.push(c.locals[immediate])


def local_set(c: Emitter, immediate: Any) -> None:
    """Emit local.set and local.tee."""
    local, value = c.locals[immediate], c.pop()
    if value != local and c.reads(local):
        for i in range(c.flushed, len(c.stack)):
            if c.stack[i] == local:
                c.spill(i)
    c.move(local, value)
    if c.opcode == op.LOCAL_TEE:
        c.push(value if value[0] in ("const", "wide") else local)


def _unless_externref(types: str, handler: Handler) -> Handler:
    """Make the handler of an instruction that calls a libcall if it moves an externref."""

    def emit(c: Emitter, immediate: Any) -> None:
        is_externref = getattr(c.layout, types)[immediate[0]] == EXTERNREF
        (_CALLED[c.opcode] if is_externref else handler)(c, immediate)

    return emit


def _global_get(c: Emitter, immediate: Any) -> None:
    valtype = c.layout.global_types[immediate[0]]
    c.make_room(0)
    c.emit(*c.layout.address_of("global", immediate[0]))
    c.emit("global.get." + operand_registers(bytes([valtype]))[0])
    c.push_result(valtype)


def _global_set(c: Emitter, immediate: Any) -> None:
    registers = operand_registers(bytes([c.layout.global_types[immediate[0]]]))
    c.take(registers)
    c.emit(*c.layout.address_of("global", immediate[0]))
    c.emit("global.set." + registers[0])


def _drop(c: Emitter, immediate: Any) -> None:
    c.pop()


def _select(c: Emitter, immediate: Any) -> None:
    condition = c.pop_condition()
    registers = operand_registers(bytes([immediate, immediate]))
    c.take(registers)
    c.emit(f"select.{registers[0]}.{NEGATED[condition]}")
    c.push_register(registers[0])


def _ref_null(c: Emitter, immediate: Any) -> None:
    c.push(constant(0))


def _ref_func(c: Emitter, immediate: Any) -> None:
    c.make_room(0)
    c.emit("ref.func", c.layout.offsets.vmctx_anyfunc(immediate))
    c.push_register("rax")


def _table_get(c: Emitter, immediate: Any) -> None:
    c.take(("rax",))
    c.emit(*c.layout.address_of("table", immediate[0]))
    c.emit("table.get")
    c.push_register("rax")


def _table_size(c: Emitter, immediate: Any) -> None:
    c.make_room(0)
    c.emit(*c.layout.address_of("table", immediate[0]))
    c.emit("table.size")
    c.push_register("rax")


# -- blocks, branches and calls


def _unreachable(c: Emitter, immediate: Any) -> None:
    c.emit("unreachable")


def _block(c: Emitter, frame: Frame) -> None:
    frame.target = []
    c.flush()


def _loop(c: Emitter, frame: Frame) -> None:
    c.flush()
    frame.target = len(c.code)
    c.check(frame.references)


def _if(c: Emitter, frame: Frame) -> None:
    condition = c.pop_condition()
    c.flush()
    frame.target, frame.otherwise = [], []
    c.jump("jump." + NEGATED[condition], frame.otherwise)


def _else(c: Emitter, frame: Frame) -> None:
    if c.height >= 0:
        c.flush()
        c.jump("jump", frame.target)
    c.land(frame.otherwise)
    frame.otherwise = []
    c.clear(frame.height, frame.params)


def _end(c: Emitter, frame: Frame) -> None:
    falls_through = c.height >= 0
    if frame.opcode == FUNCTION and falls_through:
        c.return_()
    elif frame.opcode in (op.BLOCK, op.IF):
        if falls_through:
            c.flush()
        c.land(frame.target + (frame.otherwise or []))
    if frame.opcode != op.LOOP or not falls_through:
        c.clear(frame.height, frame.results)


def _br(c: Emitter, frame: Frame) -> None:
    c.branch(frame)


def _br_if(c: Emitter, frame: Frame) -> None:
    c.branch_if(c.pop_condition(), frame)


def _br_table(c: Emitter, frames: tuple[Frame, ...]) -> None:
    c.take(("rax",))
    c.flush()
    bytes_, holes, jumps = TEMPLATES["branch_table"]
    start = len(c.code)
    c.code += bytes_
    c.patch(start + holes[0][0], len(frames) - 1)
    table = len(c.code)
    c.patch_jump(start + jumps[0][0], table)
    c.code += bytes(4 * len(frames))
    branches: dict[Frame, int] = {}
    for i, frame in enumerate(frames):
        if frame not in branches:
            branches[frame] = len(c.code)
            state = c.state(len(c.stack) - len(frame.label))
            c.branch(frame)
            c.restore(state)
        c.patch(table + 4 * i, branches[frame] - table)


def _return(c: Emitter, immediate: Any) -> None:
    c.return_()


def _call(c: Emitter, immediate: Any) -> None:
    index, functype, references = immediate
    offsets = c.layout.offsets
    c.arguments(functype)
    if index < offsets.num_imported_functions:
        body = offsets.vmctx_vmfunction_import_body(index)
        c.emit("call.import", body, offsets.vmctx_vmfunction_import_vmctx(index))
        c.call_other(references)
    else:
        c.call(f"function.{index}")
        c.site(references)
    c.results(functype)


def _call_indirect(c: Emitter, immediate: Any) -> None:
    type_index, table_index, functype, references = immediate
    # The index must stay in its place while the arguments below it are moved.
    c.flush_registers(len(c.stack))
    index = c.pop()
    c.arguments(functype)
    c.move(("rax",), index)
    c.emit(*c.layout.address_of("table", table_index))
    c.emit("call.indirect", c.layout.type_ids[type_index])
    c.call_other(references)
    c.results(functype)


# -- the handlers by opcode

_HANDLERS: dict[str, Handler] = {
    "i32.eqz": is_zero("i32.test"), "i64.eqz": is_zero("i64.test"),
    "ref.is_null": is_zero("i64.test"),
    "i32.const": constant_operand, "i64.const": constant_operand,
    "f32.const": constant_operand, "f64.const": constant_operand,
    "local.get": _local_get, "local.set": local_set, "local.tee": local_set,
    "global.get": _unless_externref("global_types", _global_get),
    "global.set": _unless_externref("global_types", _global_set),
    "table.get": _unless_externref("table_types", _table_get), "table.size": _table_size,
    "ref.null": _ref_null, "ref.func": _ref_func, "drop": _drop, "select": _select,
    "unreachable": _unreachable, "block": _block, "loop": _loop, "if": _if, "else": _else,
    "end": _end, "br": _br, "br_if": _br_if, "br_table": _br_table, "return": _return,
    "call": _call, "call_indirect": _call_indirect,
}  # fmt: skip


@cache  # 0.4 ms
def make_handlers(inline: bool) -> list[Handler]:
    """Return the handlers by opcode.

    Parameters
    ----------
    inline : bool
        Whether to emit instructions of the CPU instead of libcalls, for 64-bit shifts and divisions
        and (with SSE4.1) for rounding.
    """
    names = op.NAMES[: op.VECTORS]
    return [_handler(name or "", opcode, inline) for opcode, name in enumerate(names)]


def _handler(name: str, opcode: int, inline: bool) -> Handler:
    if name in _HANDLERS:
        return _HANDLERS[name]
    if opcode in _CALLED and not (inline and name in TEMPLATES):
        return _CALLED[opcode]
    if name[4:] in CONDITIONS:
        return comparison(name)
    if f"{name}.slot" in TEMPLATES:
        return binary(name)
    return simple(name, opcode)
