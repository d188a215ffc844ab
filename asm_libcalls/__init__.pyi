"""Types of the public names. Made by tools/make_stubs.py from the table: do not edit."""

# The parameters' names, the sentences and the order are the table's.
# ruff: noqa: A002, D401, RUF022

from asm_libcalls import llvm as llvm
from asm_libcalls import toy_jit as toy_jit
from asm_libcalls import ufuncs as ufuncs
from asm_libcalls.binding import BackendUnavailable as BackendUnavailable
from asm_libcalls.emitter.code import Code as Code
from asm_libcalls.emitter.load_code import load_code as load_code
from asm_libcalls.libcall import Libcall as Libcall
from asm_libcalls.native.catch_traps import catch_traps as catch_traps
from asm_libcalls.native.host_function import HostFunction as HostFunction
from asm_libcalls.native.native_function import native_function as native_function
from asm_libcalls.report import BackendReport as BackendReport
from asm_libcalls.runtime.element_segment import ElementSegment as ElementSegment
from asm_libcalls.runtime.externref import VMExternRef as VMExternRef
from asm_libcalls.runtime.funcref import FuncRef as FuncRef
from asm_libcalls.runtime.global_ import Global as Global
from asm_libcalls.runtime.instance import Instance as Instance
from asm_libcalls.runtime.instance import gc as gc
from asm_libcalls.runtime.memory import Memory as Memory
from asm_libcalls.runtime.stack_maps import StackMapRegistry as StackMapRegistry
from asm_libcalls.runtime.table import Table as Table
from asm_libcalls.signatures import Signature as Signature
from asm_libcalls.trap_codes import TrapCode as TrapCode
from asm_libcalls.traps import BadConversionToInteger as BadConversionToInteger
from asm_libcalls.traps import BadSignature as BadSignature
from asm_libcalls.traps import HeapOutOfBounds as HeapOutOfBounds
from asm_libcalls.traps import IndirectCallToNull as IndirectCallToNull
from asm_libcalls.traps import IntegerDivisionByZero as IntegerDivisionByZero
from asm_libcalls.traps import IntegerOverflow as IntegerOverflow
from asm_libcalls.traps import Interrupt as Interrupt
from asm_libcalls.traps import StackOverflow as StackOverflow
from asm_libcalls.traps import TableOutOfBounds as TableOutOfBounds
from asm_libcalls.traps import Trap as Trap
from asm_libcalls.traps import UndefinedElement as UndefinedElement
from asm_libcalls.traps import UnreachableCodeReached as UnreachableCodeReached
from asm_libcalls.vmcontext import VMOffsets as VMOffsets

LIBCALLS: dict[str, Libcall]
__version__: str

def backend_report() -> BackendReport:
    """Return the backend of each libcall and the reason, as a dict; ``str()`` gives a text."""

def runtime_symbols() -> dict[str, int]:
    """Return the C addresses of other routines that generated code calls."""

def symbols() -> dict[str, int]:
    """Return the C address of each libcall by its symbol, ``"wasmtime_f64_nearest"`` and so on."""

def f32_ceil(x: float, /) -> float:
    """Round up to an integral value."""

def f32_floor(x: float, /) -> float:
    """Round down to an integral value."""

def f32_trunc(x: float, /) -> float:
    """Round towards zero to an integral value."""

def f32_nearest(x: float, /) -> float:
    """Round to the nearest integral value, ties to even."""

def f64_ceil(x: float, /) -> float:
    """Round up to an integral value."""

def f64_floor(x: float, /) -> float:
    """Round down to an integral value."""

def f64_trunc(x: float, /) -> float:
    """Round towards zero to an integral value."""

def f64_nearest(x: float, /) -> float:
    """Round to the nearest integral value, ties to even."""

def i64_ishl(x: int, count: int, /) -> int:
    """Shift left; the count is taken modulo 64."""

def i64_sshr(x: int, count: int, /) -> int:
    """Shift right, copying the sign; the count is taken modulo 64."""

def i64_ushr(x: int, count: int, /) -> int:
    """Shift right, filling with zeros; the count is taken modulo 64."""

def i64_sdiv(dividend: int, divisor: int, /) -> int:
    """Signed quotient, truncated towards zero."""

def i64_srem(dividend: int, divisor: int, /) -> int:
    """Signed remainder, with the sign of the dividend."""

def i64_udiv(dividend: int, divisor: int, /) -> int:
    """Unsigned quotient, truncated."""

def i64_urem(dividend: int, divisor: int, /) -> int:
    """Unsigned remainder."""

def memory32_grow(vmctx: Instance | int, delta: int, defined_memory_index: int, /) -> int:
    """Grow a defined memory by delta pages; the previous size, or 0xFFFFFFFF."""

def imported_memory32_grow(vmctx: Instance | int, delta: int, memory_index: int, /) -> int:
    """Grow an imported memory by delta pages; the previous size, or 0xFFFFFFFF."""

def memory32_size(vmctx: Instance | int, defined_memory_index: int, /) -> int:
    """The size of a defined memory, in pages of 64 KiB."""

def imported_memory32_size(vmctx: Instance | int, memory_index: int, /) -> int:
    """The size of an imported memory, in pages of 64 KiB."""

def memory_copy(
    vmctx: Instance | int,
    dst_memory_index: int,
    dst: int,
    src_memory_index: int,
    src: int,
    len: int,
    /,
) -> None:
    """Copy len bytes within or between memories; the ranges may overlap."""

def memory_fill(
    vmctx: Instance | int, defined_memory_index: int, dst: int, val: int, len: int, /
) -> None:
    """Set len bytes of a defined memory to the low byte of val."""

def imported_memory_fill(
    vmctx: Instance | int, memory_index: int, dst: int, val: int, len: int, /
) -> None:
    """Set len bytes of an imported memory to the low byte of val."""

def memory_init(
    vmctx: Instance | int, memory_index: int, data_index: int, dst: int, src: int, len: int, /
) -> None:
    """Copy len bytes from a passive data segment."""

def data_drop(vmctx: Instance | int, data_index: int, /) -> None:
    """Drop a passive data segment: its length becomes 0."""

def table_grow(
    vmctx: Instance | int,
    table_index: int,
    delta: int,
    init_value: VMExternRef | FuncRef | int | None,
    /,
) -> int:
    """Grow a table by delta elements; the previous size, or 0xFFFFFFFF."""

def table_fill(
    vmctx: Instance | int,
    table_index: int,
    dst: int,
    val: VMExternRef | FuncRef | int | None,
    len: int,
    /,
) -> None:
    """Set len elements of a table to one reference."""

def table_copy(
    vmctx: Instance | int,
    dst_table_index: int,
    src_table_index: int,
    dst: int,
    src: int,
    len: int,
    /,
) -> None:
    """Copy len elements within or between tables; the ranges may overlap."""

def table_init(
    vmctx: Instance | int, table_index: int, elem_index: int, dst: int, src: int, len: int, /
) -> None:
    """Copy len elements from a passive element segment."""

def elem_drop(vmctx: Instance | int, elem_index: int, /) -> None:
    """Drop a passive element segment: its length becomes 0."""

def drop_externref(externref: VMExternRef | int, /) -> None:
    """Drop the value of an externref whose count has reached 0, and free its box."""

def activations_table_insert_with_gc(
    vmctx: Instance | int, externref: VMExternRef | int, /
) -> None:
    """Insert an externref into the activations table; when that is full, GC first."""

def externref_global_get(vmctx: Instance | int, global_index: int, /) -> int:
    """The externref of a global, kept alive by the activations table."""

def externref_global_set(
    vmctx: Instance | int, global_index: int, externref: VMExternRef | int | None, /
) -> None:
    """Put an externref into a global, then drop the one that was there."""

__all__ = [
    "LIBCALLS", "BackendUnavailable", "Libcall", "Signature", "__version__", "backend_report",
    "runtime_symbols", "symbols", "BadConversionToInteger", "BadSignature", "HeapOutOfBounds",
    "IndirectCallToNull", "IntegerDivisionByZero", "IntegerOverflow", "Interrupt", "StackOverflow",
    "TableOutOfBounds", "Trap", "UndefinedElement", "UnreachableCodeReached", "f32_ceil",
    "f32_floor", "f32_trunc", "f32_nearest", "f64_ceil", "f64_floor", "f64_trunc", "f64_nearest",
    "i64_ishl", "i64_sshr", "i64_ushr", "i64_sdiv", "i64_srem", "i64_udiv", "i64_urem",
    "memory32_grow", "imported_memory32_grow", "memory32_size", "imported_memory32_size",
    "memory_copy", "memory_fill", "imported_memory_fill", "memory_init", "data_drop", "table_grow",
    "table_fill", "table_copy", "table_init", "elem_drop", "drop_externref",
    "activations_table_insert_with_gc", "externref_global_get", "externref_global_set",
    "BackendReport", "Code", "ElementSegment", "FuncRef", "Global", "HostFunction", "Instance",
    "Memory", "StackMapRegistry", "Table", "TrapCode", "VMExternRef", "VMOffsets", "catch_traps",
    "gc", "load_code", "native_function",
]  # fmt: skip
