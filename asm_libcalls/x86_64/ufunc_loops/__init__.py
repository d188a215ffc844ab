"""The inner loops of :mod:`asm_libcalls.ufuncs` that this CPU can run, in one image.

========================= ==================================================================
`rounding`                ceil, floor, trunc, nearest of f32 and f64; `rounding_vectors`
`division`                sdiv, srem, udiv, urem; `division_vectors` and `division_by_scalar`
`shifts`                  ishl, sshr, ushr
`binary`                  the common part of division and shifts
========================= ==================================================================

The image is loaded when the ufuncs are first used, not when the package is imported.
"""

from __future__ import annotations

from collections.abc import Iterator

from asm_libcalls.emitter.image import Routine

CACHE_LINE = 64


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, named after their libcalls.

    They begin at a multiple of 64 bytes. The offset of a short loop in a cache line changes its
    speed by a tenth; so it does not depend on other routines.
    """
    for routine in _routines(features):
        routine.alignment = CACHE_LINE
        yield routine


def _routines(features: frozenset[str]) -> Iterator[Routine]:
    from asm_libcalls.x86_64.ufunc_loops import division, rounding, shifts

    if features >= rounding.REQUIRES:
        yield from rounding.routines(features)
    yield from division.routines(features)
    yield from shifts.routines(features)
