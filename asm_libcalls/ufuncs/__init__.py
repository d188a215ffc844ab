"""The numeric libcalls as NumPy ufuncs: ``ufuncs.sdiv(a, b)`` on whole arrays.

=========================== ==================== ============================================
ufuncs                      results              what they do
=========================== ==================== ============================================
ceil floor trunc nearest    of the operand's     round; nearest is ties-to-even
sdiv srem                   i64                  truncating quotient; remainder with the
                                                 dividend's sign (C's, not Python's)
udiv urem                   u64                  unsigned quotient and remainder
ishl                        of the operand's     shift left, the count modulo 64
sshr                        i64                  arithmetic shift right, the count modulo 64
ushr                        u64                  logical shift right, the count modulo 64
=========================== ==================== ============================================

They are real :class:`numpy.ufunc` objects: ``out=``, ``where=``, ``dtype=``, casting, broadcasting,
``reduce``, ``accumulate``, ``at`` and ``outer`` work. Machine code rounds f32 and f64. Integers and
booleans stay as they are, and NumPy's own loops round half and long doubles and call the methods of
objects. The integer ufuncs work on 64 bits, and narrow integers are widened by their own sign. As
for the libcalls, an operand may be given in either reading: ``udiv`` reads the bits of an i64 array
as unsigned, ``sdiv`` those of a u64 array as signed. They take no floats.

Ufuncs do not trap. A zero divisor gives 0 and ``MIN / -1`` gives MIN, as in NumPy's own integer
division; :func:`numpy.errstate` decides whether ``divide`` and ``over`` warn, raise or pass. NaNs
keep sign and payload and come back quiet; a signalling NaN is ``invalid``, as for ``np.ceil``.
Unlike NumPy's shifts, these take the count modulo 64, as WebAssembly and CPUs do.

The inner loops are machine code for the vectors of this CPU. Without machine code, they use NumPy.
:data:`BACKENDS` has the backend of each ufunc.
"""

from __future__ import annotations

import numpy as np

from asm_libcalls.binding import default_binding
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.report import ufunc_backends
from asm_libcalls.ufuncs.fallback_loops import fallback_loop
from asm_libcalls.ufuncs.objects import Loop, make_ufunc, with_loops_of_numpy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage

    _Loops = list[tuple[str, tuple[str, ...]]]

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


def _readings(libcall: str, types: str) -> _Loops:
    """Return the loops of a libcall for 64-bit operands in either reading.

    `types` has a word for each loop: its operands and its result, ``l`` signed and ``L`` unsigned.
    NumPy takes the first loop that its operands are cast to safely, and a Python int to any type.
    """
    names = {"l": "i8", "L": "u8"}
    return [(libcall, tuple(names[letter] for letter in word)) for word in types.split()]


_SIGNED, _UNSIGNED = "lll Lll lLl LLl", "LLL llL LlL lLL"

_LOOPS: dict[str, _Loops] = {
    **{
        name: [(f"f32_{name}", ("f4", "f4")), (f"f64_{name}", ("f8", "f8"))]
        for name in ("ceil", "floor", "trunc", "nearest")
    },
    "sdiv": _readings("i64_sdiv", _SIGNED),
    "srem": _readings("i64_srem", _SIGNED),
    "udiv": _readings("i64_udiv", _UNSIGNED),
    "urem": _readings("i64_urem", _UNSIGNED),
    "ishl": _readings("i64_ishl", "lll lLl LlL LLL"),
    "sshr": _readings("i64_sshr", _SIGNED),
    "ushr": _readings("i64_ushr", _UNSIGNED),
}
"""The loops of each ufunc: libcalls and types. The first loop of a libcall has the types that the
libcall computes with."""

_FLAGS = {
    "sdiv": "x / 0 is 0 (divide), MIN / -1 is MIN (over).",
    "srem": "x % 0 is 0 (divide), MIN % -1 is 0.",
    "udiv": "x / 0 is 0 (divide).",
    "urem": "x % 0 is 0 (divide).",
}
"""The behaviour of a ufunc where its libcall traps, for the ufunc's docstring."""


def _machine_loops() -> tuple[LoadedImage | None, str]:
    """Return the image of the loops and "", or None and the reason."""
    binding = default_binding()
    if binding.x86_64 is None:
        return None, binding.x86_64_reason
    from asm_libcalls.x86_64 import code_cache

    try:
        image = code_cache.kept_images.get("ufuncs")
        if image is None:
            image = code_cache.load("ufuncs", binding.x86_64.cpu.features)
            code_cache.kept_images["ufuncs"] = image
        image.keep()
        return image, ""
    except Exception as error:  # the assembler or executable memory is gone, for example
        return None, f"machine code could not be made: {type(error).__name__}: {error}"


def _make_ufuncs() -> dict[str, np.ufunc]:
    image, why_not = _machine_loops()
    if image is None:
        BACKENDS.update(dict.fromkeys(_LOOPS, f"fallback: {why_not}"))
        streaming = 0
    else:
        from asm_libcalls.x86_64.cpu import last_level_cache

        # From this many bytes of output on, rounding uses non-temporal stores. Operand and output
        # then fill three eighths of the outermost cache, which other cores and data share. On Zen 4
        # these stores are faster from half of that cache on, and not slower from this length on.
        streaming = last_level_cache() * 3 // 16
    result = {}
    for name, loops in _LOOPS.items():
        made: dict[str, Loop] = {}
        for libcall, dtypes in loops:
            if libcall in made:
                continue
            if image is not None and f"{libcall}_loop" in image.image.routines:
                BACKENDS[name] = "x86_64"
                made[libcall] = Loop(dtypes, image.routine(f"{libcall}_loop"), streaming)
            else:
                BACKENDS.setdefault(name, "fallback: the CPU lacks what the loop needs")
                made[libcall] = fallback_loop(libcall, dtypes)
        doc = "\n\n".join(filter(None, (DECLARATIONS[loops[0][0]].doc, _FLAGS.get(name))))
        result[name] = make_ufunc(name, doc, all_loops(name, made), __name__)
    return result


def all_loops(name: str, of_libcalls: dict[str, Loop]) -> list[Loop]:
    """Return the loops of a ufunc, from one for each of its libcalls."""
    loops = [
        Loop(dtypes, of_libcalls[libcall].address, of_libcalls[libcall].data)
        for libcall, dtypes in _LOOPS[name]
    ]
    return with_loops_of_numpy(name, loops)


BACKENDS: dict[str, str] = ufunc_backends
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
