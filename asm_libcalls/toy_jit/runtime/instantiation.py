"""Instantiation: make the parts of an instance, and copy its segments.

Source: WebAssembly 2.0, 4.5.4 (instantiation) and 4.4.13 (constant expressions).
"""

from __future__ import annotations

import operator
from contextlib import contextmanager

from asm_libcalls.fallback import memories as memory_libcalls
from asm_libcalls.fallback import tables as table_libcalls
from asm_libcalls.runtime.element_segment import ElementSegment
from asm_libcalls.runtime.global_ import Global
from asm_libcalls.runtime.memory import Memory
from asm_libcalls.runtime.table import Table
from asm_libcalls.toy_jit.codegen.layout import type_id
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES
from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance
from asm_libcalls.toy_jit.runtime.functions import Func
from asm_libcalls.traps import Trap
from asm_libcalls.vmcontext import WASM_PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.frontend import module as decoded_module
    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode
    from asm_libcalls.toy_jit.store_limits import StoreLimits

    Imports = Mapping[str, Sequence[Any]]

_SPACES = {"func": "functions", "table": "tables", "memory": "memories", "global": "globals"}


def make_runtime(
    decoded: decoded_module.Module, code: CompiledCode, imports: Imports, limits: StoreLimits
) -> CompiledInstance:
    """Make the runtime instance of a module, with its memories, tables, globals and functions.

    `limits` are for the memories and tables. LimitExceeded is raised if the initial size of one is
    above its limit.
    """
    functions = decoded.functions[decoded.imported_functions :]
    memories = decoded.memories[decoded.imported_memories :]
    tables = decoded.tables[decoded.imported_tables :]
    runtime = CompiledInstance(
        code,
        memories=[_memory(declared, limits) for declared in memories],
        tables=[_table(declared, limits) for declared in tables],
        globals=[_global(g, imports) for g in decoded.globals[decoded.imported_globals :]],
        functions=[(code.function_address(i), type_id(f.type)) for i, f in enumerate(functions)],
        data=[segment.init for segment in decoded.data],
        elements=[
            ElementSegment(_name(e.type), [_constant(item, imports) for item in e.init])
            for e in decoded.elements
        ],
        imports={_SPACES[kind]: values for kind, values in imports.items()},
        signature_ids=[type_id(functype) for functype in decoded.types],
        function_class=Func,
    )
    for entry, global_ in zip(decoded.globals, runtime.globals, strict=True):
        if entry.init is not None and entry.init[0] == op.REF_FUNC:
            func = runtime.functions[entry.init[1]]
            global_.swap_raw([func.as_raw()], func.instance)
    return runtime


def _memory(declared: decoded_module.Limits, limits: StoreLimits) -> Memory:
    limits.check_size("memory_size", declared.minimum * WASM_PAGE_SIZE, "a memory")
    reserve = None if limits.memory_size is None else limits.memory_size // WASM_PAGE_SIZE
    return Memory(declared.minimum, declared.maximum, reserve=_u32(reserve))


def _table(declared: decoded_module.TableType, limits: StoreLimits) -> Table:
    size = declared.limits
    limits.check_size("table_elements", size.minimum, "a table")
    reserve = _u32(limits.table_elements)
    return Table(_name(declared.element), size.minimum, size.maximum, reserve=reserve)


def _u32(limit: int | None) -> int | None:
    return None if limit is None else min(limit, 0xFFFFFFFF)


def copy_segments(
    decoded: decoded_module.Module, runtime: CompiledInstance, imports: Imports
) -> None:
    """Copy the active segments in their order. If one does not fit, a Trap names it."""
    vmctx = runtime.vmctx
    for i, element in enumerate(decoded.elements):
        if element.mode == "active":
            assert element.offset is not None
            start = _constant(element.offset, imports) & 0xFFFFFFFF
            count = len(element.init)
            with _naming(f"element segment {i}", count, start, runtime.tables[element.table]):
                table_libcalls.table_init(vmctx, element.table, i, start, 0, count)
        if element.mode != "passive":
            table_libcalls.elem_drop(vmctx, i)
    for i, data in enumerate(decoded.data):
        if data.mode == "active":
            assert data.offset is not None
            start = _constant(data.offset, imports) & 0xFFFFFFFF
            size = len(data.init)
            with _naming(f"data segment {i}", size, start, runtime.memories[data.memory]):
                memory_libcalls.memory_init(vmctx, data.memory, i, start, 0, size)
            memory_libcalls.data_drop(vmctx, i)


@contextmanager
def _naming(segment: str, count: int, start: int, target: Memory | Table) -> Iterator[None]:
    """Add the segment that did not fit to a trap's message."""
    try:
        yield
    except Trap as error:
        size = target.current_size()  # a destructor or another thread may have closed it
        what, unit = "table", "elements"
        if isinstance(target, Memory):
            size, what, unit = size * WASM_PAGE_SIZE, "memory", "bytes"
        error.args = (
            f"{error.args[0]}: {segment} has {count} {unit} for {start:#x}, and the {what} "
            f"{size} {unit}",
        )
        raise


def _name(valtype: int) -> str:
    return VALUE_TYPE_NAMES[valtype]


def _global(entry: decoded_module.Global, imports: Imports) -> Global:
    # The functions do not exist yet: make_runtime sets globals that refer to one afterwards.
    value = None if entry.init[0] == op.REF_FUNC else _constant(entry.init, imports)
    return Global.from_bits_or_reference(_name(entry.type.value), value, entry.type.mutable)


def _constant(expression: decoded_module.ConstExpr, imports: Imports) -> Any:
    """Evaluate a constant expression; the value of a function reference is its index."""
    opcode, immediate = expression
    if opcode == op.BLOCK:
        return _extended_constant(immediate, imports)
    if opcode == op.GLOBAL_GET:
        global_ = imports["global"][immediate]
        is_float = global_.value_type in ("f32", "f64")
        return global_.bits if is_float else global_.value
    return None if opcode == op.REF_NULL else immediate


_ARITHMETIC = {
    op.I32_ADD: (operator.add, 32), op.I32_SUB: (operator.sub, 32), op.I32_MUL: (operator.mul, 32),
    op.I64_ADD: (operator.add, 64), op.I64_SUB: (operator.sub, 64), op.I64_MUL: (operator.mul, 64),
}  # fmt: skip


def _extended_constant(expressions: Sequence[decoded_module.ConstExpr], imports: Imports) -> int:
    stack: list[int] = []
    for opcode, immediate in expressions:
        if immediate is not None:
            stack.append(_constant((opcode, immediate), imports))
            continue
        second, first = stack.pop(), stack.pop()
        calculate, bits = _ARITHMETIC[opcode]
        value = calculate(first, second) & (1 << bits) - 1
        stack.append(value - (value >> bits - 1 << bits))  # signed, as constants are
    return stack[0]
