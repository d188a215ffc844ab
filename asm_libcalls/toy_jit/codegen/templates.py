"""Templates: the stencils in the form that the compiler copies, loaded from an image.

Importing this module loads the image, or assembles the stencils if no image has them. It raises
RuntimeError if this machine cannot run machine code.
"""

from __future__ import annotations

from functools import cache

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter.stencils import Stencil, read
from asm_libcalls.toy_jit.codegen.encodings import decode
from asm_libcalls.toy_jit.codegen.stencils import FEATURES, FORM_PREFIX, PREFIX
from asm_libcalls.toy_jit.errors import UnsupportedFeature
from asm_libcalls.x86_64 import code_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.codegen.encodings import Form

    # the name, four registers, the size of the displacement, whether the immediate fits a byte
    FormKey = tuple[str, str, str, str, str, int, bool]

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
CPU_FEATURES = _backend.cpu.features
USED_FEATURES = CPU_FEATURES & FEATURES
"""Those that stencils may use."""

LOADED = code_cache.load("toy_jit", CPU_FEATURES)
"""The image of the stencils. Its slots are filled in by runtime/slots.py."""

STENCILS = read(LOADED.image, PREFIX)
"""By name, for :func:`asm_libcalls.emitter.stencils.compose`."""

TEMPLATES: dict[str, Template] = {name: _template(s) for name, s in STENCILS.items()}
"""By name: the bytes; the offset of each hole and the index of its value by the sorted names of
holes; the offset and role of each jump's distance."""

INSTRUCTIONS = read(LOADED.image, FORM_PREFIX)
"""By name: the stencils of one instruction, whose registers the compiler chooses."""

FORMS: dict[FormKey, Form] = {}
"""The forms of these instructions that were used so far, some ten thousand at most."""

_MOST_FORMS = 1 << 14

THREE_OPERANDS = INSTRUCTIONS["f64.add.register"].code[0] in (0xC4, 0xC5)
"""Whether the instructions on floats have a left operand besides the target, as those of AVX."""


def make_form(key: FormKey) -> Form:
    """Make a form of an instruction, and keep it in FORMS."""
    name, to, left, right, index, displacement, short = key
    instruction = decode(INSTRUCTIONS[name].code)
    if len(FORMS) >= _MOST_FORMS:
        FORMS.clear()
    form = FORMS[key] = instruction.form((to, left, right, index), displacement, short)
    return form


def has_avx() -> bool:
    """Return whether the stencils of vectors have three operands, as AVX instructions."""
    # Not whether the CPU has AVX: the image may be that of an older CPU.
    return "v128.and.vslot" in INSTRUCTIONS


def load_vectors(offset: int) -> None:
    """Add the templates of vector instructions to TEMPLATES and INSTRUCTIONS.

    Without SSE4.1, raise UnsupportedFeature; `offset` is the code that needs it.
    """
    if "sse4_1" not in CPU_FEATURES:
        what = "vector instructions (SIMD) need a CPU with SSE4.1, which this one has not"
        raise UnsupportedFeature(what, offset, "simd")
    _load_vectors()


@cache
def _load_vectors() -> None:
    loaded = code_cache.load("toy_jit_vectors", CPU_FEATURES)
    TEMPLATES.update((name, _template(s)) for name, s in read(loaded.image, PREFIX).items())
    INSTRUCTIONS.update(read(loaded.image, FORM_PREFIX))
