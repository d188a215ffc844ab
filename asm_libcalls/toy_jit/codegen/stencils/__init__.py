"""The stencils of the compiler: one or a few instructions each, with holes.

They are assembled once, when the first module is compiled; compiling copies them. What they agree
on (System V callee-saved registers, so that a libcall keeps them):

======== ===========================================================================================
rbp      frame pointer; locals and operands are 8-byte slots at [rbp + disp32]
rsp      16-aligned; arguments of a call are at [rsp + 8*i], for the callee at [rbp + 16 + 8*i]
r15      vmctx
r14      base of memory 0, which never moves
r13      address of memory 0's VMMemoryDefinition, for its current length
rax      the accumulator of integers and references; an i32 in it is zero-extended
xmm0     the accumulator of floats
rcx      the second operand, or an address; xmm1 the second float
rdx      scratch, which every move may change
others   locals and operands, as :mod:`asm_libcalls.toy_jit.codegen.registers` says
======== ===========================================================================================

A hole is named for what goes in, ``source`` and ``target`` in all that take a place. A jump out of
a stencil names its role: ``target``, or ``trap.CODE``.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.stencils.entry import INTERRUPTS_SLOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["ENTER", "INTERRUPTS_SLOT", "PREFIX", "routines", "vector_routines"]

PREFIX = "toy_jit."
ENTER = "asm_libcalls_toy_jit_enter"
"""The one routine here that is no stencil."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble all stencils for a CPU with these features."""
    from asm_libcalls.toy_jit.codegen.stencils import control, entry, memory, moves, numbers
    from asm_libcalls.x86_64.assembler import sequence, text
    from asm_libcalls.x86_64.stencils.assembling import assemble

    yield sequence(ENTER, entry.enter)
    adapters = entry.adapters()
    texts = adapters | moves.moves() | numbers.numbers(features) | memory.memory()
    texts |= control.control()
    followed = {*adapters, "prologue", "epilogue"}
    for name, source in texts.items():
        body = text.body(source, entry.PIECES)
        yield assemble(PREFIX + name, body, has_effects=name in followed)


def vector_routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the stencils of vector instructions, which have an image of their own.

    A module without vectors does not wait for them.
    """
    from asm_libcalls.toy_jit.codegen.stencils import vectors
    from asm_libcalls.x86_64.assembler import text
    from asm_libcalls.x86_64.stencils.assembling import assemble

    for name, source in vectors.vectors(features).items():
        yield assemble(PREFIX + name, text.body(source))
