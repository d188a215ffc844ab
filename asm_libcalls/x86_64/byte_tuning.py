"""How a CPU copies and fills ranges of bytes: the vectors, and the lengths for string instructions.

The CPU's maker, features and model decide, as two *tunings* among its features (``cpu.py``): so an
image is made for a tuning, and a wheel has one for each. Measured as ratios to glibc 2.36, for
copies of disjoint ranges, on AMD's Zen 5 (family 26, model 2) and on an Intel Xeon (see below):

========  ==========  ==========  =========  ===============  ================
bytes     AMD         AMD         AMD        Intel            Intel
          32-byte     64-byte     rep movsb  64-byte          rep movsb
========  ==========  ==========  =========  ===============  ================
512       1.25        0.99        3.3        1.1
2 KiB     1.27        1.07        1.73       1.1
4 KiB     0.84        0.67        0.96       0.88             1.07
8 KiB                                        0.92             1.02
16 KiB    0.98        0.71        0.98       0.97             1.01
24 KiB                                       1.08             1.02
64 KiB    1.23        1.25        1.00                        1.00
1 MiB     1.05        1.02        0.86                        1.02
========  ==========  ==========  =========  ===============  ================

The Xeon's caches (64 KiB for instructions, 48 KiB of L1, 2 MiB of L2, 480 MiB of L3) and features
(AMX, FP16) are those of Granite Rapids; its hypervisor reports family 6, model 167, a Rocket Lake.

On Zen 5, 64-byte vectors and ``rep movsb`` beyond the L1 cache are fastest. On Intel's CPUs since
Ice Lake, ``rep movsb`` is used from 8 KiB on. With data in the L1 cache, 64-byte vectors are faster
up to 16 KiB. With data in the L2 cache, ``rep movsb`` is faster from 6 KiB on (1.04 at 12 KiB,
vectors 1.12). ``rep stosb`` is as fast as vectors from 16 KiB on. On Zen 4 a 64-byte store takes
two cycles, and neither is faster (``bytes/vectors.py``).
"""

from __future__ import annotations

from asm_libcalls.x86_64.cpu import ICE_LAKE, WIDE_MOVES

LONG_FROM = (2 << 10) + 64
"""Bytes from which the code tests for page boundaries and for the string instructions.

The tests take a nanosecond, so ranges of 2 KiB are below this."""

WIDE_NEEDS = frozenset({WIDE_MOVES, "avx2", "avx512vl", "avx512bw"})


class ByteTuning:
    """The choices for a CPU with some features."""

    __slots__ = (
        "ice_lake",
        "rep_movsb_from",
        "rep_stosb_from",
        "wide",
        "wide_above",
        "width",
    )

    # `rep_movsb_from`, `rep_stosb_from`: bytes from which the string instruction is used, at least
    # LONG_FROM; None for never
    rep_movsb_from: int | None
    rep_stosb_from: int | None

    def __init__(self, features: frozenset[str]) -> None:
        # Bytes of a vector: 32, or 16 without AVX2. (CPUs with AVX alone have data paths of 16
        # bytes, and are slow with 32-byte loads and stores that are not aligned.)
        self.width = 32 if "avx2" in features else 16
        # bytes of a vector for more than `wide_above` bytes: 64, or `width`
        self.wide = 64 if features >= WIDE_NEEDS else self.width
        # Whether the code is arranged for Intel's CPUs since Ice Lake. The test for long ranges is
        # first. In a loop, all stores but the first and the last one are aligned, and one register
        # is the index of loads and stores. A copy whose stores look like its loads, modulo 4096,
        # goes downwards. `rep movsb` begins at a cache line.
        self.ice_lake = features >= {ICE_LAKE, "erms"}
        self.wide_above = 0  # 0 if `wide` is `width`
        if self.wide > self.width:
            self.wide_above = (2 if self.ice_lake else 8) * self.width
        self.rep_movsb_from = self.rep_stosb_from = None
        if "erms" not in features:
            return
        if self.width == 16:
            self.rep_movsb_from = self.rep_stosb_from = LONG_FROM
        elif self.ice_lake:
            self.rep_movsb_from, self.rep_stosb_from = 8 << 10, 16 << 10
        else:
            self.rep_movsb_from = 32 << 10 if self.wide == 64 else None
            self.rep_stosb_from = 1 << 20

    def __str__(self) -> str:
        parts = [f"{self.width}-byte vectors"]
        if self.wide != self.width:
            parts.append(f"{self.wide}-byte vectors above {self.wide_above} bytes")
        for name in ("rep_movsb", "rep_stosb"):
            first = getattr(self, f"{name}_from")
            if first is not None:
                parts.append(f"{name.replace('_', ' ')} from {first} bytes")
        return ", ".join(parts)
