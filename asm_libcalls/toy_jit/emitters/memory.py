"""Emit loads and stores, and the libcalls on memories and data segments."""

from __future__ import annotations

from asm_libcalls.toy_jit import opcodes as op
from asm_libcalls.toy_jit.module import I32
from asm_libcalls.toy_jit.places import (
    ACC,
    FLOATS,
    OTHER,
    XMM,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["HANDLERS", "load", "store"]


def load(name: str, opcode_: int) -> Handler:
    """Make the emitter of a load."""
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


def store(template: str, size: int) -> Handler:
    """Make the emitter of a store of `size` bytes."""
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
            c.to_rcx(address, at_height)
        if to_memory_from_xmm:
            c.to_xmm(value, at_height + 1)
        else:
            c.to_acc(value, at_height + 1)
        if address[0] != ACC:
            c.to_rcx(address, at_height)
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


HANDLERS: dict[str, Handler] = {
    "memory.size": _memory_size,
    "memory.grow": _memory_grow,
    "memory.fill": _memory_fill,
    "memory.copy": _memory_copy,
    "memory.init": _memory_init,
    "data.drop": _data_drop,
}
