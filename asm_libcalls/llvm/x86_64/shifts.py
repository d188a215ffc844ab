"""128-bit shifts. The count, an ``int``, is taken modulo 128; LLVM passes no larger one.

Source: System V ABI for AMD64, 3.2.3 (__int128); Intel SDM volume 2, SHLD, SHLX (counts are taken
modulo 64).
"""

from __future__ import annotations

from functools import partial

from peachpy.x86_64 import (
    ADD, CMOVNZ, MOV, NOT, OR, RET, SAR, SARX, SHL, SHLD, SHLX, SHR, SHRD, SHRX, TEST, XOR, cl, dl,
    ecx, edi, edx, esi, r8, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip

from asm_libcalls.x86_64.assembler import sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    bmi2 = "bmi2" in features
    yield sequence("__ashlti3", _left_bmi2 if bmi2 else _left)
    for name, copies_sign in (("lshrti3", False), ("ashrti3", True)):
        yield sequence(f"__{name}", partial(_right_bmi2 if bmi2 else _right, copies_sign))


def _left() -> None:
    MOV(ecx, edx)
    MOV(rdx, rsi)
    MOV(rax, rdi)
    SHLD(rdx, rdi, cl)
    SHL(rax, cl)
    XOR(edi, edi)
    TEST(cl, 64)
    CMOVNZ(rdx, rax)
    CMOVNZ(rax, rdi)
    RET()


def _left_bmi2() -> None:
    SHLX(rax, rdi, rdx)
    SHLX(rcx, rsi, rdx)
    MOV(rsi, rdx)
    NOT(rsi)  # modulo 64: 63 - count
    SHR(rdi, 1)
    SHRX(rdi, rdi, rsi)
    OR(rcx, rdi)
    XOR(esi, esi)
    TEST(dl, 64)
    CMOVNZ(rcx, rax)
    CMOVNZ(rax, rsi)
    MOV(rdx, rcx)
    RET()


def _right(copies_sign: bool) -> None:
    MOV(ecx, edx)
    MOV(rax, rdi)
    MOV(rdx, rsi)
    SHRD(rax, rsi, cl)
    if copies_sign:
        SAR(rdx, cl)
        SAR(rsi, 63)
    else:
        SHR(rdx, cl)
        XOR(esi, esi)
    TEST(cl, 64)
    CMOVNZ(rax, rdx)
    CMOVNZ(rdx, rsi)
    RET()


def _right_bmi2(copies_sign: bool) -> None:
    SHRX(rax, rdi, rdx)
    (SARX if copies_sign else SHRX)(rcx, rsi, rdx)
    MOV(rdi, rdx)
    NOT(rdi)  # modulo 64: 63 - count
    MOV(r8, rsi)
    ADD(r8, r8)
    SHLX(r8, r8, rdi)
    OR(rax, r8)
    if copies_sign:
        SAR(rsi, 63)
    else:
        XOR(esi, esi)
    TEST(dl, 64)
    CMOVNZ(rax, rcx)
    CMOVNZ(rcx, rsi)
    MOV(rdx, rcx)
    RET()
