"""The stencils as the compiler copies them: bytes, holes by position, jumps by role.

Importing this module loads them, or assembles them where no image has them (or fails, where no
machine code serves).
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
"""The image of the stencils, whose slots are not filled in: templates need none."""

STENCILS = read(LOADED, PREFIX)
"""By name, as :func:`asm_libcalls.x86_64.stencils.parts.compose` takes them."""

TEMPLATES: dict[str, Template] = {name: _template(s) for name, s in STENCILS.items()}
"""By name: the bytes; where which value goes, in the order of the holes' names (sorted); and where
a distance goes, with its role."""
_features = _backend.cpu.features


def has_avx() -> bool:
    """Return whether the stencils of vectors have three operands."""
    return "avx" in _features


def load_vectors(offset: int) -> None:
    """Add the templates of the vector instructions to the others, for code at `offset` that is so.

    Raises
    ------
    UnsupportedFeature
        The CPU has no SSE4.1.
    """
    if "sse4_1" not in _features:
        what = "vector instructions (SIMD) need a CPU with SSE4.1, which this one has not"
        raise UnsupportedFeature(what, offset, "simd")
    _load_vectors()


@cache
def _load_vectors() -> None:
    loaded = code_cache.load("toy_jit_vectors", _features)
    TEMPLATES.update((name, _template(s)) for name, s in read(loaded, PREFIX).items())
