"""Filling ranges: C's ``memset`` without a result, and the same with 8-byte words, for tables.

``asm_libcalls_fill_bytes`` takes the destination in rdi, the value in sil (the bits above are
ignored) and the length in rdx. It touches no byte outside the range, changes caller-saved registers
only and never sets DF. The memory libcalls jump to it after their bounds checks.
``asm_libcalls_fill_words`` takes an 8-byte value in rsi and the number of such words in rdx; its
destination is a multiple of 8.

The method is that of ``copying.py``. Up to eight vectors, stores from both ends overlap in the
middle. Above, a loop of aligned stores runs between four vectors at each end. The bytes in a short
last page are filled separately; without the tuning ``ice_lake``, those in a short first page too.
``rep stosb`` is used where it is as fast.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD, AND, CMP, IMUL, JAE, JB, JBE, JE, JMP, LABEL, LEA, MOV, MOVQ, MOVZX, NEG, PUNPCKLQDQ, RET,
    SHL, SHR, SUB, TEST, VMOVD, VMOVQ, VPBROADCASTB, VPBROADCASTQ, Label, al, ax, eax, ecx, edi,
    edx, r8, r9, r10, r10d, rax, rcx, rdi, rdx, rsi, sil, xmm0,
)  # fmt: skip

from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE, REP_STOSB, REP_STOSQ
from asm_libcalls.x86_64.bytes.vectors import LONG_FROM, PAGE, UNROLL, Vectors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILL_BYTES = "asm_libcalls_fill_bytes"
FILL_WORDS = "asm_libcalls_fill_words"

_EACH_BYTE = 0x0101_0101_0101_0101
"""Multiplied by a byte: that byte eight times."""


def fill(vectors: Vectors) -> None:
    """Emit ``asm_libcalls_fill_bytes`` for these vectors."""
    _fill(vectors)


def fill_words(vectors: Vectors) -> None:
    """Emit ``asm_libcalls_fill_words`` for these vectors."""
    _fill(vectors, words=True)


def _fill(vectors: Vectors, words: bool = False) -> None:
    start, from_v, loop = Label("start"), Label("from_v"), Label("loop")
    long, string = Label("long"), Label("string")

    if words:
        SHL(rdx, 3)  # from here on bytes
    LABEL(start)
    if not words:
        MOVZX(eax, sil)
    CMP(rdx, vectors.width)
    JAE(from_v)
    if words:
        _less_words_than_a_vector(vectors)
    else:
        _less_than_a_vector(vectors)
    LABEL(from_v)
    vector = _without_loop(vectors, words)
    if vectors.wide is not vectors:
        vectors = vectors.wide
        vector = _without_loop(vectors, words)
    CMP(rdx, LONG_FROM)
    JAE(long)
    LABEL(loop)
    _loop(vectors, vector)
    LABEL(long)
    if vectors.tuning.rep_stosb_from is not None:
        CMP(rdx, vectors.tuning.rep_stosb_from)
        JAE(string)
    routine = FILL_WORDS if words else FILL_BYTES
    if not vectors.tuning.ice_lake:  # with it, a store across a page boundary costs less
        _fill_first_page(vectors, routine, start)
    vectors.jump_unless_end_crosses_page(loop, UNROLL)
    _fill_to_page(routine)
    JMP(start)
    if vectors.tuning.rep_stosb_from is not None:
        LABEL(string)
        MOV(rcx, rdx)
        if words:
            SHR(rcx, 3)
            MOV(rax, rsi)
            REP_STOSQ()
        else:
            REP_STOSB()
        vectors.leave()


def _without_loop(vectors: Vectors, words: bool) -> Any:
    """Emit: fill up to 8 V bytes, for which these vectors serve, and return.

    For more bytes, leaves a vector of the value, which is the result.
    """
    vector = _broadcast(vectors, words)
    for count in vectors.without_loop():
        for i in (*range(count), *range(-count, 0)):
            base = rdi if i >= 0 else rdi + rdx * 1
            vectors.move([base + i * vectors.width], vector)
    return vector


def _broadcast(vectors: Vectors, words: bool) -> Any:
    """Emit: rsi, or the byte in eax, to all of a vector; return the vector. Clobbers rax and r8."""
    vector = vectors.registers[0]
    to_xmm, broadcast, value = (VMOVQ, VPBROADCASTQ, rsi) if words else (VMOVD, VPBROADCASTB, eax)
    if vectors.width == 16:
        if not words:
            MOV(r8, _EACH_BYTE)
            IMUL(rax, r8)
        MOVQ(vector, rsi if words else rax)
        PUNPCKLQDQ(vector, vector)
    elif vectors.dirty:
        to_xmm(xmm0, value)
        broadcast(vector, xmm0)
    else:
        broadcast(vector, value)  # AVX-512 takes it from a general-purpose register
    return vector


def _less_words_than_a_vector(vectors: Vectors) -> None:
    """Emit: fill less than V bytes, a multiple of 8, with rsi, and return."""
    nothing = Label("nothing")

    TEST(edx, edx)
    JE(nothing)
    MOV([rdi], rsi)
    MOV([rdi + rdx * 1 - 8], rsi)
    if vectors.width > 16:
        CMP(edx, 16)
        JBE(nothing)
        MOV([rdi + 8], rsi)
    LABEL(nothing)
    RET()


def _less_than_a_vector(vectors: Vectors) -> None:
    """Emit: fill less than V bytes with the byte in eax, and return."""
    from_16, from_8, from_4 = Label("from_16"), Label("from_8"), Label("from_4")
    nothing = Label("nothing")

    if vectors.width > 16:
        CMP(edx, 16)
        JAE(from_16)
    MOV(r8, _EACH_BYTE)
    IMUL(rax, r8)
    CMP(edx, 8)
    JAE(from_8)
    CMP(edx, 4)
    JAE(from_4)
    CMP(edx, 1)
    JB(nothing)
    MOV([rdi], al)
    JE(nothing)
    MOV([rdi + rdx * 1 - 2], ax)
    LABEL(nothing)
    RET()
    for label, size, register in ((from_4, 4, eax), (from_8, 8, rax)):
        LABEL(label)
        MOV([rdi], register)
        MOV([rdi + rdx * 1 - size], register)
        RET()
    if vectors.width > 16:
        LABEL(from_16)
        VMOVD(xmm0, eax)
        VPBROADCASTB(xmm0, xmm0)  # a VEX instruction clears the upper half
        vectors.move_16([rdi], xmm0)
        vectors.move_16([rdi + rdx * 1 - 16], xmm0)
        RET()


def _loop(vectors: Vectors, vector: Any) -> None:
    """Emit: fill more than 8 V bytes, and return. Preserves all but rcx and r8."""
    turn = Label("turn")
    width, row = vectors.width, UNROLL * vectors.width

    # Four vectors at each end: an aligned destination is not stored to twice.
    for i in range(UNROLL):
        vectors.move([rdi + i * width], vector)
    LEA(rcx, [rdi + row])
    AND(rcx, -width)  # the last aligned place up to there
    LEA(r8, [rdi + rdx * 1 - row])  # the high end
    LABEL(turn)
    for i in range(UNROLL):
        vectors.store_aligned([rcx + i * width], vector)
    ADD(rcx, row)
    CMP(rcx, r8)
    JB(turn)  # the last turn ends inside the high end
    for i in range(UNROLL):
        vectors.move([r8 + i * width], vector)
    vectors.leave()


def _fill_first_page(vectors: Vectors, routine: str, start: Any) -> None:
    """Emit: if a page ends inside the first vectors, fill up to there; the rest from `start` on.

    So no store crosses that boundary.
    """
    fine = Label("no_short_first_page")
    MOV(r10d, edi)
    NEG(r10d)
    AND(r10d, PAGE - 1)  # bytes before the boundary, 0 for a whole page
    LEA(ecx, [r10 - 1])
    CMP(ecx, UNROLL * vectors.width - 1)
    JAE(fine)
    MOV(r9, rdx)
    MOV(edx, r10d)
    CALL_ROUTINE(f"{routine}.start")  # without a loop it clobbers rax, r8 and vectors only
    ADD(rdi, r10)
    MOV(rdx, r9)
    SUB(rdx, r10)
    JMP(start)
    LABEL(fine)


def _fill_to_page(routine: str) -> None:
    """Emit: fill all but the last r10 bytes; leave the rest in rdi and rdx."""
    SUB(rdx, r10)
    CALL_ROUTINE(f"{routine}.loop")  # preserves rdi, rsi, rdx and r10
    ADD(rdi, rdx)
    MOV(edx, r10d)
