"""Emit the instructions on locals and globals, and drop and select."""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import EXTERNREF
from asm_libcalls.toy_jit.places import (
    ACC,
    CONST,
    FLAGS,
    FLOATS,
    LOCAL,
    NEGATED,
    XMM,
    signed_32,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["HANDLERS"]


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


HANDLERS: dict[str, Handler] = {
    "drop": _drop,
    "select": _select,
    "local.get": _local_get,
    "local.set": _local_set,
    "local.tee": _local_set,
    "global.get": _global_get,
    "global.set": _global_set,
}
