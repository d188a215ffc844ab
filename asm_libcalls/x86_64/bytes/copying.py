"""Copying bytes: ``asm_libcalls_move_bytes``, C's ``memmove`` without a result.

It takes the destination in rdi, the source in rsi and the length in rdx; the ranges may overlap in
any way. It touches no byte outside of them, changes caller-saved registers only and never sets DF.
The memory libcalls jump to it after their bounds checks.

By length, V being the width of a vector (:class:`ByteTuning` says what differs by the CPU):

===================== =============================================================
up to 8 V             no loop: two registers, or two rows of vectors, from the start and from the
                      end, that meet or overlap in the middle; all loads precede all stores
above                 one vector at the near end and four at the far end, loaded first and stored
                      last; between them a loop of four vectors a turn, with aligned stores, that
                      goes upwards, or downwards if the destination begins inside the source
``LONG_FROM``         the same; but if the end is just over a page, the bytes in the last page are
                      moved separately, so that no store crosses the page boundary
``rep_movsb_from``    ``rep movsb``, if the ranges are disjoint
``STREAM_FROM``       the loop with non-temporal stores, if the ranges are disjoint
===================== =============================================================
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD, AND, CMP, JA, JAE, JB, JE, JMP, JZ, LABEL, LEA, MOV, MOVZX, NEG, RET, SFENCE, SUB, TEST,
    Label, al, byte, cx, eax, ecx, edx, r8, r9, r10, r10d, r11, rax, rcx, rdi, rdx, rsi, word, xmm0,
    xmm1,
)  # fmt: skip

from asm_libcalls.x86_64.assembler.instructions import CALL_ROUTINE, REP_MOVSB
from asm_libcalls.x86_64.bytes.vectors import (
    CACHE_LINE, LONG_FROM, PAGE, STREAM_FROM, UNROLL, Vectors,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOVE_BYTES = "asm_libcalls_move_bytes"

# rep movsb is slow if the destination exceeds the source by 1 to this many bytes, modulo 4096 on
# AMD's Zen 4 (2 to 30 times), modulo 2^32 on Intel's CPUs (50 times).
_SLOW_REP_MOVSB = 63

# A load waits for an earlier store at the same place in a page. If the destination's place exceeds
# the source's by up to 256 bytes, a turn of the loop, an upward loop loads just where it stored.
# A test for less than this many bytes takes one instruction.
_ALIASED = 512


def move(vectors: Vectors) -> None:
    """Emit ``asm_libcalls_move_bytes`` for these vectors."""
    start, nothing, from_v, over_8 = map(Label, ("start", "nothing", "from_v", "over_8"))
    forward, long, stream, string = map(Label, ("forward", "long", "stream", "string"))
    backward, downwards = Label("backward"), Label("downwards")
    aliased, not_aliased = Label("aliased"), Label("not_aliased")

    LABEL(start)
    if vectors.tuning.ice_lake:
        CMP(rdx, 8 * vectors.wide.width)
        JA(over_8)
    CMP(rdx, vectors.width)
    JAE(from_v)
    _less_than_a_vector(vectors)
    LABEL(from_v)
    _without_loop(vectors)
    if vectors.wide is not vectors:
        vectors = vectors.wide
        _without_loop(vectors)
    LABEL(over_8)
    MOV(rax, rdi)
    SUB(rax, rsi)  # destination - source, and on
    CMP(rax, rdx)
    JB(backward)  # unsigned: the destination begins inside the source
    if vectors.tuning.ice_lake:
        TEST(eax, PAGE - _ALIASED)
        JZ(aliased)
        LABEL(not_aliased)
    CMP(rdx, LONG_FROM)
    JAE(long)
    LABEL(forward)
    _loop_upwards(vectors, vectors.store_aligned)

    if vectors.tuning.ice_lake:
        LABEL(aliased)
        CMP(rdx, vectors.tuning.rep_movsb_from)
        JAE(not_aliased)
        _jump_if_source_begins_inside(forward)
        JMP(backward)

    LABEL(long)
    CMP(rdx, STREAM_FROM)
    JAE(stream)
    if vectors.tuning.rep_movsb_from is not None:
        CMP(rdx, vectors.tuning.rep_movsb_from)
        JAE(string)
    count = 1 if vectors.tuning.ice_lake else UNROLL
    vectors.jump_unless_end_crosses_page(forward, count)
    _forward_to_page()
    JMP(start)

    LABEL(stream)
    _jump_if_source_begins_inside(forward)
    _loop_upwards(vectors, vectors.stream)
    if vectors.tuning.rep_movsb_from is not None:
        LABEL(string)
        _string(vectors, forward)

    LABEL(backward)
    TEST(rax, rax)
    JZ(nothing)  # here, as each test delays the first load of an upward copy
    CMP(rdx, LONG_FROM)
    JB(downwards)
    vectors.jump_unless_end_crosses_page(downwards, count)
    _backward_to_page()
    LABEL(downwards)
    _loop_downwards(vectors)

    LABEL(nothing)
    RET()


def _less_than_a_vector(vectors: Vectors) -> None:
    """Emit: move less than V bytes, and return."""
    from_16, from_8, from_4 = Label("from_16"), Label("from_8"), Label("from_4")
    one, none = Label("one"), Label("none")

    if vectors.width > 16:
        CMP(edx, 16)
        JAE(from_16)
    CMP(edx, 8)
    JAE(from_8)
    CMP(edx, 4)
    JAE(from_4)
    CMP(edx, 1)
    JB(none)
    MOVZX(eax, byte[rsi])
    JE(one)
    MOVZX(ecx, word[rsi + rdx * 1 - 2])
    MOV([rdi + rdx * 1 - 2], cx)
    LABEL(one)
    MOV([rdi], al)
    LABEL(none)
    RET()

    for label, size, at_start, at_end in ((from_4, 4, eax, ecx), (from_8, 8, rax, rcx)):
        LABEL(label)
        MOV(at_start, [rsi])
        MOV(at_end, [rsi + rdx * 1 - size])
        MOV([rdi], at_start)
        MOV([rdi + rdx * 1 - size], at_end)
        RET()
    if vectors.width > 16:
        LABEL(from_16)
        vectors.move_16(xmm0, [rsi])
        vectors.move_16(xmm1, [rsi + rdx * 1 - 16])
        vectors.move_16([rdi], xmm0)
        vectors.move_16([rdi + rdx * 1 - 16], xmm1)
        RET()


def _without_loop(vectors: Vectors) -> None:
    """Emit: move up to 8 V bytes, for which these vectors serve, and return."""
    for count in vectors.without_loop():
        for transfer, base in ((_load_row, rsi), (_store_row, rdi)):
            transfer(vectors, vectors.registers[:count], base)
            transfer(vectors, vectors.registers[count : 2 * count], base + rdx * 1, -count)


def _load_row(vectors: Vectors, row: tuple[Any, ...], address: Any, first: int = 0) -> None:
    """Emit: load `row` from consecutive vectors, the first of them `first` V from `address`."""
    for i, register in enumerate(row):
        vectors.move(register, [address + (first + i) * vectors.width])


def _store_row(vectors: Vectors, row: tuple[Any, ...], address: Any, first: int = 0) -> None:
    """Emit: store `row` to consecutive vectors, the first of them `first` V from `address`."""
    for i, register in enumerate(row):
        vectors.move([address + (first + i) * vectors.width], register)


# In both loops: the vectors of a turn, those of the far end, and the one of the near end.
_TURN, _FAR, _NEAR = slice(0, UNROLL), slice(UNROLL, 2 * UNROLL), slice(2 * UNROLL, 2 * UNROLL + 1)


def _loop_upwards(vectors: Vectors, store: Any) -> None:
    """Emit: move more than 8 V bytes where the destination is not inside the source; return.

    Preserves rdi, rdx, r10, r11 and rax.
    """
    streaming = store is vectors.stream
    turn = Label("stream_turn" if streaming else "turn")
    aligned = vectors.tuning.ice_lake
    width, row = vectors.width, UNROLL * vectors.width
    near, far = vectors.registers[_NEAR], vectors.registers[_FAR]

    LEA(rcx, [rdi + width])
    _load_row(vectors, near, rsi)
    AND(rcx, -width)  # destination of the turn: the first aligned place after the start
    if aligned:
        _load_row(vectors, far[-1:], rsi + rdx * 1, -1)
        LEA(r8, [rdi + rdx * 1 - 1 - (row - width)])
        AND(r8, -width)  # destination of the far end but for its last vector
        LEA(r9, [rdi + rdx * 1 - width])  # destination of that one
    else:
        LEA(r8, [rdi + rdx * 1 - row])  # destination of the far end
    SUB(rsi, rdi)  # source - destination
    if aligned:
        _load_row(vectors, far[:-1], r8 + rsi * 1)
    else:
        _load_row(vectors, far, r8 + rsi * 1)
        LEA(r9, [rcx + rsi * 1])  # source of the turn
    LABEL(turn)
    # No earlier turn stored to what this turn loads: the destination is below.
    _load_row(vectors, vectors.registers[_TURN], rcx + rsi * 1 if aligned else r9)
    if not aligned:
        ADD(r9, row)
    for i, register in enumerate(vectors.registers[_TURN]):
        store([rcx + i * width], register)
    ADD(rcx, row)
    CMP(rcx, r8)
    JB(turn)  # the last turn ends inside the far end
    if streaming:
        SFENCE()  # streaming stores are not ordered with those that follow
    if aligned:
        for i, register in enumerate(far[:-1]):
            vectors.store_aligned([r8 + i * width], register)
        _store_row(vectors, far[-1:], r9)
    else:
        _store_row(vectors, far, r8)
    _store_row(vectors, near, rdi)
    vectors.leave()


def _loop_downwards(vectors: Vectors) -> None:
    """Emit: move more than 8 V bytes where the source is not inside the destination; return."""
    turn = Label("turn_down")
    aligned = vectors.tuning.ice_lake
    width, row = vectors.width, UNROLL * vectors.width
    near, far = vectors.registers[_NEAR], vectors.registers[_FAR]

    LEA(r10, [rdi + rdx * 1 - width])  # destination of the near end
    _load_row(vectors, near, rsi + rdx * 1, -1)
    _load_row(vectors, far[:1] if aligned else far, rsi)
    LEA(rcx, [rdi + rdx * 1 - 1])
    AND(rcx, -width)  # end of the turn's destination: the last aligned place before the end
    LEA(r8, [rdi + row])  # end of the far end
    if aligned:
        AND(r8, -width)
    SUB(rsi, rdi)  # source - destination
    if aligned:
        _load_row(vectors, far[1:], r8 + rsi * 1, 1 - UNROLL)
    else:
        LEA(r9, [rcx + rsi * 1])  # end of the turn's source
    LABEL(turn)
    # No earlier turn stored to what this turn loads: the destination is above.
    _load_row(vectors, vectors.registers[_TURN], rcx + rsi * 1 if aligned else r9, -UNROLL)
    if not aligned:
        SUB(r9, row)
    for i, register in reversed(list(enumerate(vectors.registers[_TURN]))):
        vectors.store_aligned([rcx + (i - UNROLL) * width], register)
    SUB(rcx, row)
    CMP(rcx, r8)
    JA(turn)  # the last turn begins inside the far end
    if aligned:
        for i, register in enumerate(far[1:]):
            vectors.store_aligned([r8 + (i + 1 - UNROLL) * width], register)
        _store_row(vectors, far[:1], rdi)
    else:
        _store_row(vectors, far, rdi)
    _store_row(vectors, near, r10)
    vectors.leave()


def _forward_to_page() -> None:
    """Emit: move all but the last r10 bytes upwards; leave the rest in rdi, rsi and rdx.

    The source of the rest is above all stores of this part.
    """
    SUB(rdx, r10)
    LEA(rax, [rdi + rdx * 1])
    LEA(r11, [rsi + rdx * 1])
    CALL_ROUTINE(f"{MOVE_BYTES}.forward")  # preserves rax, r10 and r11
    MOV(rdi, rax)
    MOV(rsi, r11)
    MOV(edx, r10d)


def _backward_to_page() -> None:
    """Emit: move the last r10 bytes, less than 8 V; leave the rest in rdi, rsi and rdx.

    The stores of this part are above the source of the rest.
    """
    SUB(rdx, r10)
    MOV(r8, rdi)
    MOV(r9, rsi)
    MOV(r11, rdx)
    ADD(rdi, rdx)
    ADD(rsi, rdx)
    MOV(edx, r10d)
    CALL_ROUTINE(MOVE_BYTES)  # without a loop it clobbers rax, rcx and vectors only
    MOV(rdi, r8)
    MOV(rsi, r9)
    MOV(rdx, r11)


def _jump_if_source_begins_inside(target: Any) -> None:
    """Emit: go to `target` if the source begins inside the destination. Negates rax."""
    NEG(rax)  # source - destination
    CMP(rax, rdx)
    JB(target)


def _string(vectors: Vectors, forward: Any) -> None:
    """Emit: ``rep movsb`` if the ranges are disjoint and it is fast for them, else `forward`."""
    LEA(ecx, [rax - 1])
    if not vectors.tuning.ice_lake:
        AND(ecx, PAGE - 1)
    CMP(ecx, _SLOW_REP_MOVSB)
    JB(forward)
    _jump_if_source_begins_inside(forward)
    if not vectors.tuning.ice_lake:
        MOV(rcx, rdx)
        REP_MOVSB()
        RET()
        return
    first = vectors.registers[: CACHE_LINE // vectors.width]
    _load_row(vectors, first, rsi)
    MOV(r8, rdi)
    LEA(rcx, [rdi + rdx * 1])  # the end
    SUB(rsi, rdi)  # source - destination
    ADD(rdi, CACHE_LINE - 1)
    AND(rdi, -CACHE_LINE)
    ADD(rsi, rdi)
    SUB(rcx, rdi)
    REP_MOVSB()
    _store_row(vectors, first, r8)
    vectors.leave()
