"""The vectors of a CPU for copying and filling, and the lengths from which methods change.

``byte_tuning.py`` has the CPUs that differ. The following was measured on an AMD Zen 4 (ERMS and
FSRM; 32 KiB L1, 1 MiB L2, 32 MiB L3) as a ratio to glibc 2.36, which uses 64-byte vectors and ``rep
movsb`` there. Findings:

- 64-byte vectors gain nothing over 32: a store takes two cycles, and at unaligned addresses every
  store crosses a cache line instead of every other one.
- Without ``vzeroupper`` a call is 2 to 3 cycles shorter. So the registers of AVX-512 are used if
  the CPU has them: above ymm15 no upper half is left dirty.
- ``rep movsb`` takes 15 to 20 ns to start, and is then as fast as 32-byte vectors and faster than
  16-byte vectors by a half. If the destination's offset in its page exceeds the source's by a few
  bytes (``copying.py``), it is 2 to 30 times slower, even if both are megabytes apart.
- ``rep stosb`` is as fast as 32-byte vectors beyond the L2 cache, and a few nanoseconds slower
  for less.
- A store that crosses a page boundary costs some 50 cycles, the time of copying 1.5 KiB.
- Non-temporal stores are faster if source and destination together exceed L3.

And on the Intel Xeon of ``byte_tuning.py``:

- 64-byte vectors are faster from 65 bytes on. A store that crosses a cache line takes two cycles.
- ``rep movsb`` takes 18 ns to start, 2 ns less if the destination is aligned, and is as fast as
  vectors from 8 KiB on. It is 50 times slower if the destination exceeds the source by a few bytes
  modulo 2^32, as between two memories that are 4 GiB apart.
- Where load and store cross a page boundary, they cost 12 ns. A load that waits for a store at the
  same place in another page costs 1 ns in each turn of a loop.

Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, "REP prefix and data
movement" and "Enhanced REP MOVSB and STOSB operation"; Intel SDM volume 1, 14.3.2 (VZEROUPPER);
System V ABI for AMD64, 3.2.1 (all vector registers are caller-saved).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    AND, CMP, INC, JA, JAE, LABEL, LEA, MOVAPS, MOVNTPS, MOVUPS, RET, VMOVDQA, VMOVDQA64, VMOVDQU,
    VMOVDQU64, VMOVNTDQ, VZEROUPPER, Label, r10, r10d, rdi, rdx, registers,
)  # fmt: skip

from asm_libcalls.x86_64.assembler import sequence
from asm_libcalls.x86_64.byte_tuning import LONG_FROM, ByteTuning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

__all__ = ["CACHE_LINE", "LONG_FROM", "PAGE", "STREAM_FROM", "UNROLL", "Vectors", "routine"]

CACHE_LINE = 64
PAGE = 4096

UNROLL = 4
"""Vectors for each turn of a loop."""

STREAM_FROM = 16 << 20
"""Bytes from which a copy uses non-temporal stores: it reads and writes 32 MiB together."""


def routine(name: str, body: Callable[[Vectors], None], vectors: Vectors) -> Routine:
    """Assemble a routine that begins at a cache line."""
    result = sequence(name, lambda: body(vectors))
    result.alignment = CACHE_LINE
    return result


class Vectors:
    """The best vector registers and instructions for a CPU with some features."""

    __slots__ = (
        "dirty",
        "move",
        "move_16",
        "registers",
        "store_aligned",
        "stream",
        "tuning",
        "wide",
        "width",
    )

    def __init__(self, features: frozenset[str], width: int = 0) -> None:
        self.tuning = ByteTuning(features)
        self.width = width or self.tuning.width  # bytes of a vector
        wide = self.width > 16
        # `dirty`: `registers` have upper halves that slow down SSE instructions until they are
        # cleared. `move`: load or store at any address. `store_aligned`: store at a multiple of
        # `width`. `stream`: the same, non-temporal.
        first, self.dirty = 0, wide
        if wide and features >= {"avx512vl", "avx512bw"}:
            first, self.dirty = 16, False
            self.move, self.store_aligned, self.stream = VMOVDQU64, VMOVDQA64, VMOVNTDQ
        elif wide:
            self.move, self.store_aligned, self.stream = VMOVDQU, VMOVDQA, VMOVNTDQ
        else:
            self.move, self.store_aligned, self.stream = MOVUPS, MOVAPS, MOVNTPS
        # load or store 16 bytes at any address, with xmm0 to xmm15; leaves no dirty upper half
        self.move_16 = VMOVDQU if wide else MOVUPS
        prefix = {16: "xmm", 32: "ymm", 64: "zmm"}[self.width]
        # 16 of them
        self.registers = tuple(getattr(registers, f"{prefix}{first + i}") for i in range(16))
        wider = self.tuning.wide
        # those for more bytes: wider ones, or these
        self.wide = Vectors(features, wider) if wider > self.width else self

    def without_loop(self) -> Iterator[int]:
        """Emit the paths for up to 8 V bytes, rdx of them; the caller emits the work of each.

        If wider vectors exist, narrow ones have the paths up to ``tuning.wide_above``, wide ones
        those above. Control falls through at the end with more bytes. Yield the number of vectors
        from the start, and from the end, that cover a length.
        """
        above = self.tuning.wide_above
        counts = [n for n in (1, 2, 4) if (2 * n * self.width > above) == (self.wide is self)]
        beyond = Label(f"over_{2 * counts[-1]}_vectors_of_{self.width}")
        CMP(rdx, 2 * counts[-1] * self.width)
        JA(beyond)
        for count in counts:
            longer = Label(f"over_{2 * count}_vectors_of_{self.width}")
            if count < counts[-1]:
                CMP(rdx, 2 * count * self.width)
                JA(longer)
            yield count
            self.leave()
            LABEL(beyond if count == counts[-1] else longer)

    def leave(self) -> None:
        """Emit the return of a path that used whole vectors."""
        if self.dirty:
            VZEROUPPER()
        RET()

    def jump_unless_end_crosses_page(self, fine: Any, count: int) -> None:
        """Emit: go to `fine` unless the last `count` vectors of [rdi, rdi + rdx) may cross a page.

        They do at one length in 32, and at every multiple of the page size if the destination is
        not aligned. Falling through leaves in r10 the number of bytes in the last page.
        """
        LEA(r10, [rdi + rdx * 1 - 1])
        AND(r10d, PAGE - 1)
        CMP(r10d, count * self.width - 1)
        JAE(fine)
        INC(r10d)
