"""Float rounding: one ``roundss`` or ``roundsd`` each.

The instruction is exactly Wasm's rounding: the direction is in its immediate, not in MXCSR; a
signalling NaN comes back quiet with sign and payload kept; -0 and infinities stay. Bit 3 of the
immediate suppresses the inexact exception, as C's ``nearbyint`` does.

Source: Intel SDM volume 2, ROUNDSD and table 4-18 (immediate); WebAssembly 2.0, 4.3.3.
"""

from __future__ import annotations

from functools import partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from asm_libcalls.emitter.image import Routine

REQUIRES = frozenset({"sse4_1"})

DIRECTIONS = {"nearest": 0, "floor": 1, "ceil": 2, "trunc": 3}
INEXACT_SUPPRESSED = 8


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the family for a CPU with these features."""
    from peachpy.x86_64 import ROUNDSD, ROUNDSS, VROUNDSD, VROUNDSS

    from asm_libcalls.x86_64.assembler import function

    # With AVX the VEX form: callers with dirty upper halves pay no transition penalty.
    avx = "avx" in features
    for value_type, legacy, vex in (("f32", ROUNDSS, VROUNDSS), ("f64", ROUNDSD, VROUNDSD)):
        for verb, direction in DIRECTIONS.items():
            yield function(
                f"{value_type}_{verb}",
                f"({value_type}) -> {value_type}",
                partial(_round, vex if avx else legacy, avx, direction | INEXACT_SUPPRESSED),
                ("avx",) if avx else ("sse4_1",),
            )


def _round(round_scalar: Any, avx: bool, immediate: int, x: Any) -> None:
    from peachpy.x86_64 import LOAD, RETURN, XMMRegister

    xmm_x = XMMRegister()
    LOAD.ARGUMENT(xmm_x, x)
    if avx:
        round_scalar(xmm_x, xmm_x, xmm_x, immediate)
    else:
        round_scalar(xmm_x, xmm_x, immediate)
    RETURN(xmm_x)
