"""Filling: ``asm_libcalls_fill_bytes``, C's ``memset`` without a result; and ``.._fill_words``.

It takes the destination in rdi, the value in sil (the bits above are ignored) and the length in
rdx. It touches no byte outside the range, changes caller-saved registers only and never sets DF.
The memory libcalls jump to it after their bounds checks. ``asm_libcalls_fill_words`` is the same
with an 8-byte value in rsi and the number of such words in rdx, to an address that is a multiple
of 8, for tables.

The method is that of ``copying.py``. Up to eight vectors, stores from both ends overlap in the
middle. Above, a loop of aligned stores runs between four vectors at each end, and the bytes in a
last page are filled separately. ``rep stosb`` is used where it is as fast.
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD, AND, CMP, IMUL, JA, JAE, JB, JBE, JE, JMP, LABEL, LEA, MOV, MOVQ, MOVZX, PUNPCKLQDQ, RET,
    SHL, SHR, SUB, TEST, VMOVD, VMOVQ, VPBROADCASTB, VPBROADCASTQ, Label, al, ax, eax, edx, r8, r10,
    r10d, rax, rcx, rdi, rdx, rsi, sil, xmm0,
)  # fmt: skip

from asm_libcalls.x86_64.bytes.vectors import LONG_FROM, UNROLL, Vectors
from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE, REP_STOSB, REP_STOSQ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["FILL_BYTES", "FILL_WORDS", "fill", "fill_words"]

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
    over_8, long, string = Label("over_8"), Label("long"), Label("string")

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
    vector = _broadcast_word(vectors) if words else _broadcast(vectors)
    CMP(rdx, 8 * vectors.width)
    JA(over_8)
    for count in vectors.up_to_eight():
        for i in (*range(count), *range(-count, 0)):
            base = rdi if i >= 0 else rdi + rdx * 1
            vectors.move([base + i * vectors.width], vector)

    LABEL(over_8)
    narrow, vectors = vectors, vectors.wide
    if vectors is not narrow:
        over_8_wide = Label("over_8_wide")
        vector = _broadcast_word(vectors) if words else _broadcast(vectors)
        CMP(rdx, 8 * vectors.width)
        JA(over_8_wide)
        for i in (*range(UNROLL), *range(-UNROLL, 0)):
            base = rdi if i >= 0 else rdi + rdx * 1
            vectors.move([base + i * vectors.width], vector)
        vectors.leave()
        LABEL(over_8_wide)
    CMP(rdx, LONG_FROM)
    JAE(long)
    LABEL(loop)
    _loop(vectors, vector)
    LABEL(long)
    if vectors.tuning.rep_stosb_from is not None:
        CMP(rdx, vectors.tuning.rep_stosb_from)
        JAE(string)
    vectors.jump_unless_end_crosses_page(loop)
    _fill_to_page(FILL_WORDS if words else FILL_BYTES)
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


def _broadcast(vectors: Vectors) -> Any:
    """Emit: the byte in eax to all bytes of a vector; return the vector. Clobbers rax and r8."""
    vector = vectors.registers[0]
    if vectors.width == 16:
        MOV(r8, _EACH_BYTE)
        IMUL(rax, r8)
        MOVQ(vector, rax)
        PUNPCKLQDQ(vector, vector)
    elif vectors.dirty:
        VMOVD(xmm0, eax)
        VPBROADCASTB(vector, xmm0)
    else:
        VPBROADCASTB(vector, eax)  # AVX-512 takes it from a general-purpose register
    return vector


def _broadcast_word(vectors: Vectors) -> Any:
    """Emit: rsi to all words of a vector; return the vector."""
    vector = vectors.registers[0]
    if vectors.width == 16:
        MOVQ(vector, rsi)
        PUNPCKLQDQ(vector, vector)
    elif vectors.dirty:
        VMOVQ(xmm0, rsi)
        VPBROADCASTQ(vector, xmm0)
    else:
        VPBROADCASTQ(vector, rsi)  # AVX-512 takes it from a general-purpose register
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


def _fill_to_page(routine: str) -> None:
    """Emit: fill all but the last r10 bytes; leave the rest in rdi and rdx."""
    SUB(rdx, r10)
    CALL_ROUTINE(f"{routine}.loop")  # preserves rdi, rsi, rdx and r10
    ADD(rdi, rdx)
    MOV(edx, r10d)
