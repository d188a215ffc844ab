"""The numeric libcalls as NumPy ufuncs: ``ufuncs.sdiv(a, b)`` on whole arrays.

=========================== ==================== ============================================
ufuncs                      loops                what they do
=========================== ==================== ============================================
ceil floor trunc nearest    f32, f64             round; nearest is ties-to-even
sdiv srem                   i64                  truncating quotient; remainder with the
                                                 dividend's sign (C's, not Python's)
udiv urem                   u64                  unsigned quotient and remainder
ishl                        i64, u64             shift left, the count modulo 64
sshr                        i64                  arithmetic shift right, the count modulo 64
ushr                        u64                  logical shift right, the count modulo 64
=========================== ==================== ============================================

They are real :class:`numpy.ufunc` objects: ``out=``, ``where=``, ``dtype=``, casting, broadcasting,
``reduce``, ``accumulate``, ``at`` and ``outer`` work. Other types are cast to the first loop that
takes them safely: integers and half floats round as floats, small integers divide as i64. A signed
loop takes no uint64, and an unsigned loop no signed array; use ``dtype`` or ``view`` to choose.

Ufuncs do not trap. A zero divisor gives 0 and ``MIN / -1`` gives MIN, as in NumPy's own integer
division; :func:`numpy.errstate` decides whether ``divide`` and ``over`` warn, raise or pass. NaNs
keep sign and payload and come back quiet; a signalling NaN is ``invalid``, as for ``np.ceil``.
Unlike NumPy's shifts, these take the count modulo 64, as WebAssembly and CPUs do.

The inner loops are machine code with the widest vectors of this CPU. Without machine code, they use
NumPy. :data:`BACKENDS` has the backend of each ufunc.
"""

from __future__ import annotations

import numpy as np

from asm_libcalls.binding import default_binding
from asm_libcalls.ufuncs.objects import Loop, make_ufunc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage

__all__ = [
    "BACKENDS",
    "ceil",
    "floor",
    "ishl",
    "nearest",
    "sdiv",
    "srem",
    "sshr",
    "trunc",
    "udiv",
    "urem",
    "ushr",
]

# Each ufunc by name: the libcall of each of its loops with the loop's type, and the docstring.
_TABLE: dict[str, tuple[dict[str, str], str]] = {
    **{
        name: ({"f4": f"f32_{name}", "f8": f"f64_{name}"}, doc)
        for name, doc in (
            ("ceil", "Round up to an integral value."),
            ("floor", "Round down to an integral value."),
            ("trunc", "Round towards zero to an integral value."),
            ("nearest", "Round to the nearest integral value, ties to even."),
        )
    },
    "sdiv": (
        {"i8": "i64_sdiv"},
        "Signed quotient, truncated towards zero.\n\nx / 0 is 0 (divide), MIN / -1 is MIN (over).",
    ),
    "srem": (
        {"i8": "i64_srem"},
        "Signed remainder, with the sign of the dividend.\n\nx % 0 is 0 (divide), MIN % -1 is 0.",
    ),
    "udiv": ({"u8": "i64_udiv"}, "Unsigned quotient, truncated.\n\nx / 0 is 0 (divide)."),
    "urem": ({"u8": "i64_urem"}, "Unsigned remainder.\n\nx % 0 is 0 (divide)."),
    "ishl": (
        {"i8": "i64_ishl", "u8": "i64_ishl"},
        "Shift left; the count is taken modulo 64.",
    ),
    "sshr": ({"i8": "i64_sshr"}, "Shift right, copying the sign; the count is taken modulo 64."),
    "ushr": ({"u8": "i64_ushr"}, "Shift right, filling with zeros; the count is taken modulo 64."),
}


def _machine_loops() -> tuple[LoadedImage | None, str]:
    """Return the image of the loops and "", or None and the reason."""
    binding = default_binding()
    if binding.x86_64 is None:
        return None, binding.x86_64_reason
    from asm_libcalls.x86_64 import code_cache

    try:
        return code_cache.load("ufuncs", binding.x86_64.cpu.features), ""
    except Exception as error:  # the assembler or executable memory is gone, for example
        return None, f"machine code could not be made: {type(error).__name__}: {error}"


def _make_ufuncs() -> dict[str, np.ufunc]:
    image, why_not = _machine_loops()
    if image is None:
        BACKENDS.update(dict.fromkeys(_TABLE, f"fallback: {why_not}"))
        streaming = 0
    else:
        from asm_libcalls.x86_64.cpu_caches import last_level_cache

        # From this many bytes of output on, rounding uses non-temporal stores. Operand and output
        # then fill three eighths of the outermost cache, which other cores and data share. On
        # Zen 4 it pays from half of that cache on, and loses nothing from here.
        streaming = last_level_cache() * 3 // 16
    result = {}
    for name, (loops, doc) in _TABLE.items():
        made = []
        for dtype, libcall in loops.items():
            dtypes = [dtype] * (2 if dtype.startswith("f") else 3)
            if image is not None and f"{libcall}_loop" in image.image.routines:
                BACKENDS[name] = "x86_64"
                made.append(Loop(dtypes, image.routine(f"{libcall}_loop"), streaming))
            else:
                from asm_libcalls.ufuncs.fallback_loops import fallback_loop

                BACKENDS.setdefault(name, "fallback: the CPU lacks what the loop needs")
                made.append(fallback_loop(libcall, dtypes))
        result[name] = make_ufunc(name, doc, made, __name__)
    return result


BACKENDS: dict[str, str] = {}
"""The backend of each ufunc: ``"x86_64"``, or ``"fallback: "`` and the reason."""

_ufuncs = _make_ufuncs()

ceil: np.ufunc = _ufuncs["ceil"]
floor: np.ufunc = _ufuncs["floor"]
trunc: np.ufunc = _ufuncs["trunc"]
nearest: np.ufunc = _ufuncs["nearest"]
sdiv: np.ufunc = _ufuncs["sdiv"]
srem: np.ufunc = _ufuncs["srem"]
udiv: np.ufunc = _ufuncs["udiv"]
urem: np.ufunc = _ufuncs["urem"]
ishl: np.ufunc = _ufuncs["ishl"]
sshr: np.ufunc = _ufuncs["sshr"]
ushr: np.ufunc = _ufuncs["ushr"]
