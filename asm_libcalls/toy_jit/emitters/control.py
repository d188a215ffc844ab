"""Emit blocks, branches and calls."""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.emitters.tables import load_table
from asm_libcalls.toy_jit.operands import FUNCTION
from asm_libcalls.toy_jit.places import (
    ACC,
    FLAGS,
    NEGATED,
    XMM,
)
from asm_libcalls.toy_jit.templates import TEMPLATES
from asm_libcalls.traps import TrapCode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["HANDLERS"]


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
        c.check(frame.references)


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
    load_table(c, table_index)
    c.emit("call.indirect", c.layout.type_ids[type_index])
    c.emit("call.other")
    c.site(references, kept)
    c.emit("call.back")
    c.results(functype)


HANDLERS: dict[str, Handler] = {
    "unreachable": _unreachable,
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
}
