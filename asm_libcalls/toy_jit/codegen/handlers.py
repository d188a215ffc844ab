"""Handlers: for each instruction the function that emits its code.

A handler is ``make_handlers(inline)[opcode](emitter, immediate)``, with the immediates of
:mod:`asm_libcalls.toy_jit.frontend.body`. Instructions that are a stencil of their name, and all on
numbers, are in ``arithmetic.py``, loads and stores in ``accesses.py``, ``local.get`` and
``i32.const`` in ``compiler.py``. The others are here.
"""

from __future__ import annotations

from array import array
from functools import cache

from asm_libcalls.toy_jit.codegen.accesses import access
from asm_libcalls.toy_jit.codegen.arithmetic import constant_operand, is_zero, number
from asm_libcalls.toy_jit.codegen.copies import fill_in
from asm_libcalls.toy_jit.codegen.function_code import constant
from asm_libcalls.toy_jit.codegen.registers import KINDS, NEGATED, RESULTS, operand_registers
from asm_libcalls.toy_jit.codegen.templates import TEMPLATES
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import EXTERNREF, V128
from asm_libcalls.toy_jit.frontend.operands import FUNCTION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.calls import Emitter
    from asm_libcalls.toy_jit.codegen.function_code import Place
    from asm_libcalls.toy_jit.frontend.operands import Frame

    Handler = Callable[[Emitter, Any], object]

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
_IMPORTED = ("memory32_size", "memory32_grow", "memory_fill")  # have a variant for imports


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


def local_set(c: Emitter, immediate: Any) -> Place:
    """Emit local.set, and return the place of the value."""
    local, stack = c.locals[immediate], c.stack
    value = stack.pop()  # as pop() does
    if c.flushed > len(stack):
        c.flushed = len(stack)
    if c.held:
        c.held.pop(value[0], None)
    if value != local:
        if len(stack) > c.flushed and local in stack[c.flushed :]:
            _keep_readers(c, local, value)
        c.move(local, value)
    if c.checked:
        c.checked.pop(local, None)
    return value


def local_tee(c: Emitter, immediate: Any) -> None:
    """Emit local.tee."""
    value, local = local_set(c, immediate), c.locals[immediate]
    if value[0] in c.for_operands and local[0] == "slot":
        c.push_register(value[0])
    else:
        c.push(value if value[0] in ("const", "wide") else local)


def _keep_readers(c: Emitter, local: Place, value: Place) -> None:
    """Move the operands whose place is a local, before the local is set."""
    for i in range(c.flushed, len(c.stack)):
        if c.stack[i] != local:
            continue
        kind = {"i": "rax", "f": "xmm0"}.get(KINDS.get(local[0], ""), "")
        free = (r for r in c.free.get(kind, ()) if r[0] not in c.held and r != value)
        register = next(free, None)
        if register is None:
            c.spill(i)
        else:
            c.move(register, local)
            c.stack[i] = register
            c.held[register[0]] = i


def _nothing(c: Emitter, immediate: Any) -> None:
    """Emit i64.extend_i32_u: an i32 in a slot or a register is zero-extended."""


def _unless_externref(types: str, handler: Handler) -> Handler:
    """Make the handler of an instruction that calls a libcall if it moves an externref."""

    def emit(c: Emitter, immediate: Any) -> None:
        is_externref = getattr(c.layout, types)[immediate[0]] == EXTERNREF
        (_CALLED[c.current[0]] if is_externref else handler)(c, immediate)

    return emit


def _global_get(c: Emitter, immediate: Any) -> None:
    valtype = c.layout.global_types[immediate[0]]
    register = RESULTS[valtype]
    address, offset = c.layout.address_of("global", immediate[0])
    if address == "address.defined" and valtype != V128:
        target = c.target(register)
        c.form("global.get." + KINDS[register], target, offset=offset)
        c.push_target(target)
        return
    c.make_room(0)
    c.emit(address, offset)
    c.emit("global.get." + register)
    c.push_register(register)


def _global_set(c: Emitter, immediate: Any) -> None:
    valtype = c.layout.global_types[immediate[0]]
    register = RESULTS[valtype]
    address, offset = c.layout.address_of("global", immediate[0])
    if address == "address.defined" and valtype != V128:
        source = c.to_register(c.pop(), register)
        c.form("global.set." + KINDS[register], source, offset=offset)
        return
    c.take((register,))
    c.emit(address, offset)
    c.emit("global.set." + register)


def _select(c: Emitter, immediate: Any) -> None:
    condition = NEGATED[c.pop_condition()]
    if RESULTS[immediate] != "rax":
        registers = operand_registers(bytes([immediate, immediate]))
        c.take(registers)
        c.emit(f"select.{condition}" if registers[0] == "xmm0" else f"select.v14.{condition}")
        c.push_register(registers[0])
        return
    # Until the flags are read, only moves.
    right, left = c.pop_two()
    target = c.overwritten(left, "rax", right)
    c.move((target,), left)
    if right[0] == "slot":
        c.form(f"select.{condition}.slot", target, offset=right[1])
    else:
        if len(right) > 1:
            c.move(("rcx",), right)
            right = ("rcx",)
        c.form(f"select.{condition}.register", target, right=right[0])
    c.push_target(target)


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
    c.jump(NEGATED[condition], frame.otherwise)


def _else(c: Emitter, frame: Frame) -> None:
    if frame.reaches_else:
        c.flush()
        c.jump("", frame.target)
    c.land(frame.otherwise)
    frame.otherwise = []
    c.clear(frame.height, frame.params)


def _end(c: Emitter, frame: Frame) -> None:
    opcode, falls_through = frame.opcode, frame.reaches_end
    if opcode == op.LOOP:
        if falls_through:
            return
    elif opcode == FUNCTION:
        if falls_through:
            c.return_()
        return
    else:
        if falls_through:
            c.flush()
        if frame.target:
            c.land(frame.target)
        if opcode == op.IF and frame.otherwise:
            c.land(frame.otherwise)
    c.clear(frame.height, frame.results)


def _br_table(c: Emitter, frames: tuple[Frame, ...]) -> None:
    c.take(("rax",))
    c.flush()
    bytes_, holes, jumps = TEMPLATES["branch_table"]
    start = len(c.code)
    c.code += bytes_
    fill_in(c.code, start + holes[0][0], len(frames) - 1)
    table = len(c.code)
    c.patch_jump(start + jumps[0][0], table)
    c.code += bytes(4 * len(frames))
    branches: dict[Frame, int] = dict.fromkeys(frames, 0)
    for frame in branches:
        branches[frame] = len(c.code) - table
        state = c.state(len(c.stack) - len(frame.label))
        c.branch(frame)
        c.restore(state)
    c.code[table : table + 4 * len(frames)] = array("i", map(branches.__getitem__, frames))


def _call(c: Emitter, immediate: Any) -> None:
    index, functype, references = immediate
    offsets = c.layout.offsets
    c.arguments(functype)
    if index < offsets.num_imported_functions:
        body = offsets.vmctx_vmfunction_import_body(index)
        c.emit("call.import", body, offsets.vmctx_vmfunction_import_vmctx(index))
        c.call_other(references)
    else:
        c.call(index - offsets.num_imported_functions)
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
    c.emit_symbol("call.indirect", f"type {type_index}")
    c.call_other(references)
    c.results(functype)


# -- the handlers by opcode

_HANDLERS: dict[str, Handler] = {
    "i32.eqz": is_zero("i32"), "i64.eqz": is_zero("i64"), "ref.is_null": is_zero("i64"),
    "i64.extend_i32_u": _nothing,
    "i64.const": constant_operand,
    "f32.const": constant_operand, "f64.const": constant_operand,
    "local.set": local_set, "local.tee": local_tee,
    "global.get": _unless_externref("global_types", _global_get),
    "global.set": _unless_externref("global_types", _global_set),
    "table.get": _unless_externref("table_types", _table_get), "table.size": _table_size,
    "ref.null": lambda c, _: c.push(constant(0)), "ref.func": _ref_func,
    "drop": lambda c, _: c.pop(), "select": _select,
    "unreachable": lambda c, _: c.emit("unreachable"),
    "block": _block, "loop": _loop, "if": _if, "else": _else, "end": _end,
    "br": lambda c, frame: c.branch(frame),
    "br_if": lambda c, frame: c.branch_if(c.pop_condition(), frame),
    "br_table": _br_table, "return": lambda c, _: c.return_(),
    "call": _call, "call_indirect": _call_indirect,
}  # fmt: skip


@cache  # 0.4 ms
def make_handlers(inline: bool) -> list[Handler]:
    """Return the handlers by opcode.

    With `inline`, they emit instructions of the CPU instead of libcalls, for 64-bit shifts and
    divisions and (with SSE4.1) for rounding.
    """
    names = op.NAMES[: op.VECTORS]
    return [_handler(name or "", opcode, inline) for opcode, name in enumerate(names)]


def _handler(name: str, opcode: int, inline: bool) -> Handler:
    if name in _HANDLERS:
        return _HANDLERS[name]
    if opcode in _CALLED and not (inline and name in TEMPLATES):
        return _CALLED[opcode]
    if opcode in op.ALIGNMENTS:
        return access(name, opcode)
    return number(name, opcode)
