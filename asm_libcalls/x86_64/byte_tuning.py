"""How a CPU copies and fills ranges of bytes: the vectors, and the lengths for string instructions.

The CPU's maker and model decide, as two *tunings* among its features (``cpu.py``): so an image is
made for a tuning, and a wheel has one for each. Measured as ratios to glibc 2.36, for copies of
disjoint ranges at five alignments, on AMD Zen 5 (family 26, model 2):

========  ==========  ==========  =========
bytes     32-byte     64-byte     rep movsb
========  ==========  ==========  =========
512       1.25        0.99        3.3
2 KiB     1.27        1.07        1.73
4 KiB     0.84        0.67        0.96
16 KiB    0.98        0.71        0.98
64 KiB    1.23        1.25        1.00
1 MiB     1.05        1.02        0.86
========  ==========  ==========  =========

There 64-byte vectors and ``rep movsb`` beyond the L1 cache are best. On Intel's CPUs since Ice Lake
``rep movsb`` is best from 4 KiB on, and ``rep stosb`` from 16 KiB on (measured on Emerald Rapids).
On Zen 4 a 64-byte store takes two cycles, and neither gains (``bytes/vectors.py``).
"""

from __future__ import annotations

from asm_libcalls.x86_64.cpu import EARLY_STRINGS, WIDE_MOVES

__all__ = ["LONG_FROM", "WIDE_NEEDS", "ByteTuning"]

LONG_FROM = 2 << 10
"""Bytes from which page boundaries and the string instructions are considered."""

WIDE_NEEDS = frozenset({WIDE_MOVES, "avx2", "avx512vl", "avx512bw"})


class ByteTuning:
    """The choices for a CPU with some features.

    Attributes
    ----------
    width : int
        Bytes of a vector: 32, or 16 without AVX2. (CPUs with AVX alone have data paths of 16
        bytes, and are slow with 32-byte loads and stores that are not aligned.)
    wide : int
        Bytes of a vector for more than 8 * `width` bytes: 64, or `width`.
    rep_movsb_from, rep_stosb_from : int or None
        Bytes from which the string instruction is used, at least :data:`LONG_FROM`; None for never.
    """

    __slots__ = ("rep_movsb_from", "rep_stosb_from", "wide", "width")

    rep_movsb_from: int | None
    rep_stosb_from: int | None

    def __init__(self, features: frozenset[str]) -> None:
        self.width = 32 if "avx2" in features else 16
        self.wide = 64 if features >= WIDE_NEEDS else self.width
        self.rep_movsb_from = self.rep_stosb_from = None
        if "erms" not in features:
            return
        if self.width == 16:
            self.rep_movsb_from = self.rep_stosb_from = LONG_FROM
        elif EARLY_STRINGS in features:
            self.rep_movsb_from, self.rep_stosb_from = 4 << 10, 16 << 10
        else:
            self.rep_movsb_from = 32 << 10 if self.wide == 64 else None
            self.rep_stosb_from = 1 << 20

    def __str__(self) -> str:
        parts = [f"{self.width}-byte vectors"]
        if self.wide != self.width:
            parts.append(f"{self.wide}-byte vectors above {8 * self.width} bytes")
        for name in ("rep_movsb", "rep_stosb"):
            first = getattr(self, f"{name}_from")
            if first is not None:
                parts.append(f"{name.replace('_', ' ')} from {first} bytes")
        return ", ".join(parts)
