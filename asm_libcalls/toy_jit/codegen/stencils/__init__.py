"""The stencils of the compiler: one or a few machine instructions each, with holes.

They are assembled once, before the first module is compiled; compiling copies them. They share this
use of registers (r13 to r15 and rbp are callee-saved, so libcalls preserve them):

======== ===========================================================================================
rbp      frame pointer; locals and operands are 8-byte slots at [rbp + offset]
rsp      16-aligned; arguments of a call are at [rsp + 8*i], for the callee at [rbp + 16 + 8*i]
r15      vmctx
r14      base of memory 0, which never moves
r13      address of memory 0's VMMemoryDefinition, for its current length
rax      the accumulator of integers and references; an i32 in it is zero-extended
xmm0     the accumulator of floats
rcx      the second operand, or an address; xmm1 the second float
rdx      scratch, which every move and bounds check may change
others   locals and operands; see :mod:`asm_libcalls.toy_jit.codegen.registers`
======== ===========================================================================================

A hole has the name of its value; those of places are ``source`` and ``target``. A jump out of a
stencil has the name of its role: ``target``, or ``trap.CODE``.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.stencils.entry import INTERRUPTS_SLOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = [
    "ENTER", "FEATURES", "FORM_PREFIX", "INTERRUPTS_SLOT", "PREFIX", "routines", "vector_routines",
]  # fmt: skip

PREFIX = "toy_jit."
FORM_PREFIX = "toy_jit_form."
"""The prefix of stencils whose registers the compiler chooses; see ``forms.py``."""
ENTER = "asm_libcalls_toy_jit_enter"
"""The only routine in the image that is not a stencil."""

FEATURES = frozenset({"avx", "bmi", "bmi2", "lzcnt", "popcnt", "sse4_1", "sse4_2"})
"""The features of a CPU that stencils use. Nothing else of a CPU changes them."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble all stencils for a CPU with these features."""
    from asm_libcalls.toy_jit.codegen.stencils import control, entry, forms, numbers
    from asm_libcalls.x86_64.assembler import sequence, text
    from asm_libcalls.x86_64.stencils.assembling import assemble

    pieces = entry.pieces()
    yield sequence(ENTER, pieces["enter"])
    adapters = entry.adapters()
    features &= FEATURES
    texts = adapters | numbers.numbers(features) | control.control()
    followed = {*adapters, "prologue", "epilogue"}
    for name, source in texts.items():
        body = text.body(source, pieces)
        yield assemble(PREFIX + name, body, has_effects=name in followed)
    for name, source in forms.forms(features).items():
        yield assemble(FORM_PREFIX + name, text.body(source))


def vector_routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the stencils of vector instructions.

    They have their own image, so that a module without vectors does not wait for them.
    """
    from asm_libcalls.toy_jit.codegen.stencils import direct_vectors, vectors
    from asm_libcalls.x86_64.assembler import text
    from asm_libcalls.x86_64.stencils.assembling import assemble

    for name, source in vectors.vectors(features & FEATURES).items():
        yield assemble(PREFIX + name, text.body(source))
    for name, source in direct_vectors.direct("avx" in features).items():
        yield assemble(FORM_PREFIX + name, text.body(source))
