"""NumPy inner loops for float rounding: the vector forms of the libcalls of ``rounding.py``.

The loop function is NumPy's ``PyUFuncGenericFunction``, ``(char **args, intp *n, intp *steps, void
*data)``; steps are in bytes, of any sign, and may be 0. One body serves every instruction set;
:class:`Isa` has the differences.

NumPy passes operands that are disjoint, that are the same array, or whose input is read ahead of
the output, because it expects elements to be read and written in order. Every path below but one
conforms: no element is loaded after a later one is stored. The exception is the backward path,
which is for disjoint operands.

Source: Intel SDM volume 2, ROUNDPS and VRNDSCALEPS (the immediates agree where the scale is 0);
NumPy reference, "Universal functions (ufunc) C-API".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from peachpy.x86_64 import (
    ADD, AND, CMP, JAE, JB, JE, JG, JL, JMP, JNE, JNZ, LABEL, LEA, MOV, NEG, PREFETCHW, RET, SFENCE,
    SHL, SUB, TEST, Label, eax, r8, r9, r10, r11, rax, rcx, rdi, rdx, rsi,
)  # fmt: skip

from asm_libcalls.emitter.image import Routine
from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.rounding import DIRECTIONS, INEXACT_SUPPRESSED
from asm_libcalls.x86_64.ufunc_loops.rounding_vectors import REQUIRES, Isa, best_isa, places

__all__ = ["REQUIRES", "routines"]

_SIZES = {"f32": 4, "f64": 8}

_NEAR = 1 << 15
"""Bytes of output that exceed the first-level cache."""

_LINE = 64
_PREFETCHED = 2 * _LINE
"""Prefetch distance of the output in bytes; prefetching gains up to three percent."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, named ``f32_ceil_loop`` and so on."""
    isa = best_isa(features)
    for value_type, size in _SIZES.items():
        for verb, direction in DIRECTIONS.items():
            instructions = isa(size, direction | INEXACT_SUPPRESSED)
            yield sequence(f"{value_type}_{verb}_loop", partial(_loop, instructions))


def _loop(isa: Isa) -> None:
    size, width = isa.size, isa.vector_bytes
    reg_in, reg_out, reg_n, reg_in_step, reg_out_step = rdi, rsi, rcx, r8, r9
    reg_streaming = r11
    many, gather, scatter, done = (Label(n) for n in ("many", "gather", "scatter", "done"))

    MOV(reg_streaming, rcx)
    MOV(reg_n, [rsi])
    MOV(reg_in_step, [rdx])
    MOV(reg_out_step, [rdx + 8])
    MOV(reg_out, [rdi + 8])
    MOV(reg_in, [rdi])
    isa.begin()
    CMP(reg_n, 1)
    JG(many)
    JL(done)
    isa.load_rounded_one(isa.xmm[0], reg_in)
    isa.store_one(reg_out, isa.xmm[0])
    LABEL(done)
    RET()

    LABEL(many)
    CMP(reg_in_step, size)
    JNE(gather)
    CMP(reg_out_step, size)
    JNE(scatter)
    CMP(reg_n, width // size)
    JL(scatter)

    # Contiguous, at least one vector. The first and the last vector are loaded before all stores
    # and stored after all loads, so they may overlap the elements between them, which begin where
    # the output is aligned to whole vectors.
    stream, not_streaming, distant, backwards, singles, last = (
        Label(n) for n in ("stream", "not_streaming", "distant", "backwards", "singles", "last")
    )
    reg_bytes, reg_first, reg_skip = reg_n, r10, rdx
    block, head, tail = isa.vector[0], isa.vector[4], isa.vector[5]
    SHL(reg_bytes, size.bit_length() - 1)  # elements to bytes
    isa.load_rounded(head, reg_in)
    isa.load_rounded(tail, reg_in + reg_bytes * 1 - width)
    MOV(reg_first, reg_out)
    MOV(rax, reg_out)
    AND(rax, width - 1)
    MOV(reg_skip, width)
    SUB(reg_skip, rax)
    AND(reg_skip, -size)  # whole elements, even if the output is not aligned to them
    ADD(reg_in, reg_skip)
    ADD(reg_out, reg_skip)
    SUB(reg_bytes, reg_skip)
    CMP(reg_bytes, reg_streaming)
    JAE(stream)
    LABEL(not_streaming)
    CMP(reg_bytes, 4 * width)
    JB(singles)
    _jump_if_stores_look_like_loads(width, backwards)
    CMP(reg_bytes, _NEAR)
    JAE(distant)
    _quads(isa, "near", isa.store)
    LABEL(singles)
    CMP(reg_bytes, width)
    JB(last)
    isa.load_rounded(block, reg_in)
    isa.store(reg_out, block)
    ADD(reg_in, width)
    ADD(reg_out, width)
    SUB(reg_bytes, width)
    JMP(singles)
    LABEL(last)
    isa.store(reg_out + reg_bytes * 1 - width, tail)
    isa.store(reg_first, head)
    isa.end()

    # Beyond the caches' size, non-temporal stores save reading the output's lines first. They must
    # be aligned, and gain nothing in place, where the lines are read anyway.
    LABEL(stream)
    CMP(reg_in, reg_out)
    JE(not_streaming)
    TEST(reg_out, width - 1)
    JNZ(not_streaming)
    _quads(isa, "stream", isa.stream)
    SFENCE()  # non-temporal stores are weakly ordered
    JMP(singles)

    LABEL(distant)
    _quads(isa.distant, "distant", isa.distant.store, prefetch=isa.has_prefetch)
    JMP(singles)

    LABEL(backwards)
    _quads_backwards(isa.distant)
    JMP(singles)

    # Strided input, contiguous output: elements are packed into vectors.
    LABEL(gather)
    CMP(reg_out_step, size)
    JNE(scatter)
    gather_loop, gather_rest = Label("gather_loop"), Label("gather_rest")
    line, packed = _LINE // size, isa.packed_bytes
    reg_in_step_3 = r10
    LEA(reg_in_step_3, [reg_in_step + reg_in_step * 2])
    if isa.loads_every_second:
        _every_second(isa)
    SUB(reg_n, line)
    JB(gather_rest)
    isa.begin_packing()
    LABEL(gather_loop)
    # A line of the output in each round, two vectors at a time, the fastest on Zen 4.
    for pair in ((0, 1), (2, 3))[: _LINE // packed // 2]:
        for i in pair:
            isa.load_packed(i, reg_in, reg_in_step, reg_in_step_3)
        for i in pair:
            isa.round_packed(i)
            isa.store_packed(reg_out + packed * i, i)
    ADD(reg_out, _LINE)
    SUB(reg_n, line)
    JAE(gather_loop)
    LABEL(gather_rest)
    ADD(reg_n, line)
    JE(done)

    # Strided output, and the elements that the path above leaves.
    LABEL(scatter)
    scatter_loop, scatter_rest, scatter_one = (
        Label(n) for n in ("scatter_loop", "scatter_rest", "scatter_one")
    )
    reg_out_step_3 = r11
    if isa.masks_every_second:
        _every_second_to_every_second(isa)
    LEA(reg_in_step_3, [reg_in_step + reg_in_step * 2])
    LEA(reg_out_step_3, [reg_out_step + reg_out_step * 2])
    SUB(reg_n, 4)
    JB(scatter_rest)
    isa.begin_packing()
    LABEL(scatter_loop)
    isa.round_four(
        places(reg_in, reg_in_step, reg_in_step_3), places(reg_out, reg_out_step, reg_out_step_3)
    )
    LEA(reg_in, [reg_in + reg_in_step * 4])
    LEA(reg_out, [reg_out + reg_out_step * 4])
    SUB(reg_n, 4)
    JAE(scatter_loop)
    LABEL(scatter_rest)
    ADD(reg_n, 4)
    JE(done)
    LABEL(scatter_one)
    isa.load_rounded_one(isa.xmm[0], reg_in)
    isa.store_one(reg_out, isa.xmm[0])
    ADD(reg_in, reg_in_step)
    ADD(reg_out, reg_out_step)
    SUB(reg_n, 1)
    JNZ(scatter_one)
    RET()


def _every_second(isa: Isa) -> None:
    """Emit: round the elements of an input whose step is two elements, but for the last few.

    The loads also read the values in between, and one value after the last element of a round. So a
    round runs only if one more element follows: then that value is inside the array.
    """
    loop, few, other = (Label(f"every_second_{n}") for n in ("loop", "few", "other"))
    line = _LINE // isa.size
    CMP(r8, 2 * isa.size)
    JNE(other)
    SUB(rcx, line + 1)
    JB(few)
    LABEL(loop)
    for i in range(_LINE // isa.packed_bytes):
        isa.load_every_second(i, rdi)
        isa.round_packed(i)
        isa.store_packed(rsi + isa.packed_bytes * i, i)
    ADD(rsi, _LINE)
    SUB(rcx, line)
    JAE(loop)
    LABEL(few)
    ADD(rcx, line + 1)
    LABEL(other)


def _every_second_to_every_second(isa: Isa) -> None:
    """Emit: round the elements where both steps are two elements, but for the last few."""
    loop, few, other = (Label(f"masked_{n}") for n in ("loop", "few", "other"))
    count = isa.vector_bytes // (2 * isa.size)
    for step in (r8, r9):
        CMP(step, 2 * isa.size)
        JNE(other)
    SUB(rcx, count)
    JB(few)
    isa.begin_masking()
    LABEL(loop)
    isa.round_every_second(rdi, rsi)
    ADD(rdi, isa.vector_bytes)
    ADD(rsi, isa.vector_bytes)
    SUB(rcx, count)
    JAE(loop)
    LABEL(few)
    ADD(rcx, count)
    LABEL(other)


def _quads(
    isa: Isa, name: str, store: Callable[[Any, Any], None], *, prefetch: bool = False
) -> None:
    """Round four vectors at a time while four remain; at least four must remain at first."""
    loop = Label(f"{name}_loop")
    LABEL(loop)
    for i, vector in enumerate(isa.vector[:4]):
        offset = i * isa.vector_bytes
        if prefetch and offset % _LINE == 0:
            PREFETCHW([rsi + _PREFETCHED + offset])
        # Each is stored as soon as it is rounded. On Zen 4, four loads and then four stores are
        # slower by a tenth in the second-level cache and by half in the third.
        isa.load_rounded(vector, rdi + offset)
        store(rsi + offset, vector)
    ADD(rdi, 4 * isa.vector_bytes)
    ADD(rsi, 4 * isa.vector_bytes)
    SUB(rcx, 4 * isa.vector_bytes)
    CMP(rcx, 4 * isa.vector_bytes)
    JAE(loop)


def _jump_if_stores_look_like_loads(width: int, backwards: Any) -> None:
    """Jump if the output is a little ahead of the input, modulo 4096, and they are disjoint.

    This is 4K aliasing: a load waits for an earlier store to an address with the same low 12 bits,
    and wide vectors take twice the time. Backwards, no load aliases an earlier store.
    """
    forwards = Label("forwards")
    MOV(rax, rsi)
    SUB(rax, rdi)
    CMP(rax, rcx)
    JB(forwards)
    NEG(rax)
    CMP(rax, rcx)
    JB(forwards)
    NEG(eax)
    SUB(eax, 1)  # the same place in a page, which costs nothing, is now at the far end
    AND(eax, 4095)
    CMP(eax, 8 * width)
    JB(backwards)
    LABEL(forwards)


def _quads_backwards(isa: Isa) -> None:
    """Round as `_quads` does, from the last four vectors to the first."""
    four = 4 * isa.vector_bytes
    loop = Label("backwards_loop")
    MOV(rax, rcx)
    AND(rax, -four)
    MOV(rdx, rax)
    ADD(rdi, rax)
    ADD(rsi, rax)
    LABEL(loop)
    SUB(rdi, four)
    SUB(rsi, four)
    for i, vector in reversed(list(enumerate(isa.vector[:4]))):
        offset = i * isa.vector_bytes
        if isa.has_prefetch and offset % _LINE == 0:
            PREFETCHW([rsi - _PREFETCHED + offset])
        isa.load_rounded(vector, rdi + offset)
        isa.store(rsi + offset, vector)
    SUB(rdx, four)
    JNZ(loop)
    ADD(rdi, rax)
    ADD(rsi, rax)
    SUB(rcx, rax)
