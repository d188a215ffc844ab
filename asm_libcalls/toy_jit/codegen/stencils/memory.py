"""Stencils of loads and stores, with their bounds checks."""

from __future__ import annotations

from asm_libcalls.vmcontext import VMMemoryDefinition

__all__ = ["check", "memory"]

# {} is the value's register.
_ACCESSES = {
    "i32.load": "mov eax, dword{}", "i64.load": "mov rax, qword{}",
    "f32.load": "movss xmm0, dword{}", "f64.load": "movsd xmm0, qword{}",
    "i32.load8_s": "movsx eax, byte{}", "i32.load8_u": "movzx eax, byte{}",
    "i32.load16_s": "movsx eax, word{}", "i32.load16_u": "movzx eax, word{}",
    "i64.load8_s": "movsx rax, byte{}", "i64.load8_u": "movzx eax, byte{}",
    "i64.load16_s": "movsx rax, word{}", "i64.load16_u": "movzx eax, word{}",
    "i64.load32_s": "movsxd rax, dword{}", "i64.load32_u": "mov eax, dword{}",
    "i32.store": "mov dword{}, ecx", "i64.store": "mov qword{}, rcx",
    "f32.store": "movss dword{}, xmm0", "f64.store": "movsd qword{}, xmm0",
    "i32.store8": "mov byte{}, cl", "i32.store16": "mov word{}, cx",
    "i64.store8": "mov byte{}, cl", "i64.store16": "mov word{}, cx",
    "i64.store32": "mov dword{}, ecx",
}  # fmt: skip


def check(address: str = "rax") -> str:
    """Return the check of an access: `end` is the offset plus the size."""
    length = VMMemoryDefinition.current_length.offset
    return f"lea rdx, [{address} + end]; cmp rdx, [r13 + {length}]; ja >trap.HEAP_OUT_OF_BOUNDS; "


def memory() -> dict[str, str]:
    """Return the stencils of loads and stores, and one for large offsets."""
    found = {
        name: check() + row.format("[r14 + rax * 1 + offset]") for name, row in _ACCESSES.items()
    }
    # An offset that does not fit a displacement is added to the address, which then has 33 bits.
    return found | {"memory.far": "mov rdx, wide; add rax, rdx"}
