"""Templates: the stencils in the form that the compiler copies, loaded from an image.

Importing this module loads the image, or assembles the stencils if no image has them. It raises
RuntimeError if this machine cannot run machine code.
"""

from __future__ import annotations

from functools import cache

from asm_libcalls.binding import default_binding
from asm_libcalls.toy_jit.codegen.stencils import PREFIX
from asm_libcalls.toy_jit.errors import UnsupportedFeature
from asm_libcalls.x86_64 import code_cache
from asm_libcalls.x86_64.stencils.parts import Stencil, read

__all__ = ["LOADED", "STENCILS", "TEMPLATES", "has_avx", "load_vectors"]

Template = tuple[bytes, tuple[tuple[int, int], ...], tuple[tuple[int, str], ...]]


def _template(stencil: Stencil) -> Template:
    numbers = [hole for hole in stencil.holes if hole.kind == "number"]
    names = sorted({hole.symbol for hole in numbers})
    holes = tuple((hole.offset, names.index(hole.symbol)) for hole in numbers)
    jumps = tuple((hole.offset, hole.symbol) for hole in stencil.holes if hole.kind != "number")
    return (stencil.code, holes, jumps)


_backend = default_binding().x86_64
if _backend is None:
    raise RuntimeError(f"toy_jit needs machine code: {default_binding().x86_64_reason}")
LOADED = code_cache.load("toy_jit", _backend.cpu.features)
"""The image of the stencils. Its slots are filled in by runtime/slots.py."""

STENCILS = read(LOADED, PREFIX)
"""By name, for :func:`asm_libcalls.x86_64.stencils.parts.compose`."""

TEMPLATES: dict[str, Template] = {name: _template(s) for name, s in STENCILS.items()}
"""By name: the bytes; the offset of each hole and the index of its value by the sorted names of
holes; the offset and role of each jump's distance."""
_features = _backend.cpu.features


def has_avx() -> bool:
    """Return whether the stencils of vectors have three operands, as AVX instructions."""
    return "avx" in _features


def load_vectors(offset: int) -> None:
    """Add the templates of vector instructions to TEMPLATES.

    Raises
    ------
    UnsupportedFeature
        The CPU has no SSE4.1; `offset` is the code that needs it.
    """
    if "sse4_1" not in _features:
        what = "vector instructions (SIMD) need a CPU with SSE4.1, which this one has not"
        raise UnsupportedFeature(what, offset, "simd")
    _load_vectors()


@cache
def _load_vectors() -> None:
    loaded = code_cache.load("toy_jit_vectors", _features)
    TEMPLATES.update((name, _template(s)) for name, s in read(loaded, PREFIX).items())
