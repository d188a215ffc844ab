"""The inner loops of :mod:`asm_libcalls.ufuncs`: what this CPU can run of them, in one image.

========================= ==================================================================
`rounding_loops`          ceil, floor, trunc, nearest of f32 and f64
`division_loops`          sdiv, srem, udiv, urem; `division_vectors` and `division_by_scalar`
`shift_loops`             ishl, sshr, ushr
`binary_loops`            what division and shifts share
========================= ==================================================================

The image is made when the ufuncs are first asked for, not when the package is imported.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["routines"]


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the loops for a CPU with these features, each named as its libcall and ``_loop``."""
    from asm_libcalls.x86_64.ufunc_loops import division, rounding, shifts

    if features >= rounding.REQUIRES:
        yield from rounding.routines(features)
    yield from division.routines(features)
    yield from shifts.routines(features)
