"""Loads and stores, with their bounds checks."""

from __future__ import annotations

from asm_libcalls.toy_jit.stencils.bodies import trap, wide
from asm_libcalls.traps import TrapCode
from asm_libcalls.vmcontext import VMMemoryDefinition

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.toy_jit.stencils.bodies import Body, Hole

__all__ = ["memory"]

_LENGTH = VMMemoryDefinition.current_length.offset


def memory() -> Iterator[tuple[str, Body]]:
    """Load from [rax], store to [rcx]: ``end`` is offset + size, checked against the length."""
    import peachpy.x86_64 as x

    loads = {
        "i32.load": lambda at: x.MOV(x.eax, x.dword[at]),
        "i64.load": lambda at: x.MOV(x.rax, x.qword[at]),
        "f32.load": lambda at: x.MOVSS(x.xmm0, x.dword[at]),
        "f64.load": lambda at: x.MOVSD(x.xmm0, x.qword[at]),
        "i32.load8_s": lambda at: x.MOVSX(x.eax, x.byte[at]),
        "i32.load8_u": lambda at: x.MOVZX(x.eax, x.byte[at]),
        "i32.load16_s": lambda at: x.MOVSX(x.eax, x.word[at]),
        "i32.load16_u": lambda at: x.MOVZX(x.eax, x.word[at]),
        "i64.load8_s": lambda at: x.MOVSX(x.rax, x.byte[at]),
        "i64.load8_u": lambda at: x.MOVZX(x.eax, x.byte[at]),
        "i64.load16_s": lambda at: x.MOVSX(x.rax, x.word[at]),
        "i64.load16_u": lambda at: x.MOVZX(x.eax, x.word[at]),
        "i64.load32_s": lambda at: x.MOVSXD(x.rax, x.dword[at]),
        "i64.load32_u": lambda at: x.MOV(x.eax, x.dword[at]),
    }
    for name, load in loads.items():
        yield name, _access(x.rax, x.rcx, load)
    stores = {
        "store8": lambda at: x.MOV(x.byte[at], x.al),
        "store16": lambda at: x.MOV(x.word[at], x.ax),
        "store32": lambda at: x.MOV(x.dword[at], x.eax),
        "store64": lambda at: x.MOV(x.qword[at], x.rax),
        "f32.store": lambda at: x.MOVSS(x.dword[at], x.xmm0),
        "f64.store": lambda at: x.MOVSD(x.qword[at], x.xmm0),
    }
    for name, store in stores.items():
        yield f"memory.{name}", _access(x.rcx, x.rdx, store)
    # An offset that a displacement can not hold goes into the address, which is then 33 bits.
    for name, register in (("rax", x.rax), ("rcx", x.rcx)):
        yield f"memory.offset.{name}", _large_offset(register)


def _access(address: Any, scratch: Any, access: Callable[[Any], object]) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        x.LEA(scratch, [address + hole("end")])
        x.CMP(scratch, [x.r13 + _LENGTH])
        trap("a", TrapCode.HEAP_OUT_OF_BOUNDS)
        access(x.r14 + address * 1 + hole("offset"))

    return body


def _large_offset(register: Any) -> Body:
    def body(hole: Hole) -> None:
        import peachpy.x86_64 as x

        x.MOV(x.rdx, wide(hole))
        x.ADD(register, x.rdx)

    return body
