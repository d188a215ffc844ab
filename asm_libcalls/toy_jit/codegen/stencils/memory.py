"""Stencils of bounds checks: the comparison with the length of memory, and the jump."""

from __future__ import annotations

from asm_libcalls.vmcontext import VMMemoryDefinition


def memory() -> dict[str, str]:
    """Return the stencils that end a check, which :meth:`~.places.Places.address` begins."""
    length = VMMemoryDefinition.current_length.offset
    return {
        "memory.limit": f"cmp rdx, [r13 + {length}]; ja >trap.HEAP_OUT_OF_BOUNDS",
        "memory.unless_below": "jnc >trap.HEAP_OUT_OF_BOUNDS",
        "memory.if_below": "jc >trap.HEAP_OUT_OF_BOUNDS",
    }
