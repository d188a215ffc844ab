"""What moving bytes fast depends on: the vectors of a CPU, and the lengths where methods change.

Everything here was measured on an AMD Zen 4 (ERMS and FSRM; 32 KiB L1, 1 MiB L2, 32 MiB L3) as a
ratio to glibc 2.36, which takes 64-byte vectors and ``rep movsb`` there. Found on the way:

- 64-byte vectors gain nothing over 32: a store of them takes two cycles, and where addresses are
  not aligned every one crosses a cache line instead of every other one.
- Without ``vzeroupper`` a call is 2 to 3 cycles shorter, so the registers of AVX-512 serve where
  there are any: above ymm15 nothing is left dirty.
- ``rep movsb`` starts slowly (15 to 20 ns) and is then as fast as 32-byte vectors, not faster. And
  it has a trap: where the destination is 1 to 31 bytes further into its page than the source,
  it is 2 to 30 times slower, even if both are megabytes apart. 16-byte vectors it beats by a half.
- ``rep stosb`` is as fast as 32-byte vectors beyond the L2 cache, and a few nanoseconds slower
  before.
- A store that crosses the border of two pages costs some 50 cycles, the time of copying 1.5 KiB.
- Stores past the caches pay when a copy and its source do not fit L3 together.

Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, "REP prefix and data
movement" and "Enhanced REP MOVSB and STOSB operation"; Intel SDM volume 1, 14.3.2 (VZEROUPPER);
System V ABI for AMD64, 3.2.1 (all vector registers are caller-saved).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    AND, CMP, INC, JAE, LEA, MOVAPS, MOVNTPS, MOVUPS, RET, VMOVDQA, VMOVDQA64, VMOVDQU, VMOVDQU64,
    VMOVNTDQ, VZEROUPPER, r10, r10d, rdi, rdx, registers,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CACHE_LINE", "LONG_FROM", "PAGE", "STREAM_FROM", "UNROLL", "Vectors"]

CACHE_LINE = 64
PAGE = 4096

UNROLL = 4
"""Vectors in one turn of a loop."""

LONG_FROM = 2 << 10
"""Bytes from which it pays to look at where a range ends, and at the string instructions."""

STREAM_FROM = 16 << 20
"""Bytes from which a copy stores past the caches: it reads and writes 32 MiB together."""


class Vectors:
    """The vector registers and instructions that a CPU with some features does best with.

    Attributes
    ----------
    width : int
        Bytes of a vector: 32, or 16 without AVX2. (CPUs with AVX alone have data paths of 16
        bytes, and are slow with 32-byte loads and stores that are not aligned.)
    registers : tuple
        16 of them.
    move, store_aligned, stream : PeachPy instructions
        Load or store at any address; store at a multiple of `width`; the same past the caches.
    move_16 : PeachPy instruction
        Load or store 16 bytes at any address, with xmm0 to xmm15; leaves no dirty upper half.
    dirty : bool
        Whether `registers` have upper halves that slow down SSE instructions until they are
        cleared.
    rep_movsb_from, rep_stosb_from : int or None
        Bytes from which the string instruction is at least as fast, if it ever is; not less than
        :data:`LONG_FROM`.
    """

    __slots__ = (
        "dirty",
        "move",
        "move_16",
        "registers",
        "rep_movsb_from",
        "rep_stosb_from",
        "store_aligned",
        "stream",
        "width",
    )

    rep_movsb_from: int | None
    rep_stosb_from: int | None

    def __init__(self, features: frozenset[str]) -> None:
        wide = "avx2" in features
        self.width = 32 if wide else 16
        first, self.dirty = 0, wide
        if wide and features >= {"avx512vl", "avx512bw"}:
            first, self.dirty = 16, False
            self.move, self.store_aligned, self.stream = VMOVDQU64, VMOVDQA64, VMOVNTDQ
        elif wide:
            self.move, self.store_aligned, self.stream = VMOVDQU, VMOVDQA, VMOVNTDQ
        else:
            self.move, self.store_aligned, self.stream = MOVUPS, MOVAPS, MOVNTPS
        self.move_16 = VMOVDQU if wide else MOVUPS
        prefix = "ymm" if wide else "xmm"
        self.registers = tuple(getattr(registers, f"{prefix}{first + i}") for i in range(16))
        self.rep_movsb_from = self.rep_stosb_from = None
        if "erms" in features:
            self.rep_movsb_from = None if wide else LONG_FROM
            self.rep_stosb_from = 1 << 20 if wide else LONG_FROM

    def leave(self) -> None:
        """Emit the return of a path that used whole vectors."""
        if self.dirty:
            VZEROUPPER()
        RET()

    def jump_unless_end_crosses_page(self, fine: Any) -> None:
        """Emit: go to `fine` unless the last UNROLL vectors of [rdi, rdi + rdx) may cross a page.

        They do at one length in 32, and at every multiple of the page's size if the destination
        isn't aligned. Leaves in r10 the number of bytes in the last page if it falls through.
        """
        LEA(r10, [rdi + rdx * 1 - 1])
        AND(r10d, PAGE - 1)
        CMP(r10d, UNROLL * self.width - 1)
        JAE(fine)
        INC(r10d)
