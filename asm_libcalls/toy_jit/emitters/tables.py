"""Emit the instructions on tables, element segments and references."""

from __future__ import annotations

from asm_libcalls.toy_jit.module import EXTERNREF
from asm_libcalls.toy_jit.places import (
    CONST,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.compiler import FunctionCompiler, Handler

__all__ = ["HANDLERS", "load_table"]


def load_table(c: FunctionCompiler, index: int) -> None:
    """Emit: rcx = the address of a table's definition."""
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
        load_table(c, index)
        c.emit("table.get")
    c.push_acc()


def _table_set(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    index, references = immediate
    c.libcall("table_fill", (index, None, None, 1), references, externref=_is_externref(c, index))


def _table_size(c: FunctionCompiler, opcode: int, immediate: Any, height: int) -> None:
    c.free_acc()
    load_table(c, immediate[0])
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


HANDLERS: dict[str, Handler] = {
    "table.get": _table_get,
    "table.set": _table_set,
    "table.size": _table_size,
    "table.grow": _table_grow,
    "table.fill": _table_fill,
    "table.copy": _table_copy,
    "table.init": _table_init,
    "elem.drop": _elem_drop,
    "ref.null": _ref_null,
    "ref.func": _ref_func,
}
