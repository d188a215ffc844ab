"""The families of libcalls that are machine code, and the CPU features that each needs.

Here and not in the families' files, which are for assembling: with an image nobody imports them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.emitter.image import Routine

__all__ = ["REQUIRES", "routines"]

REQUIRES: dict[str, frozenset[str]] = {
    "rounding": frozenset({"sse4_1"}),
    "integers": frozenset(),
    "memories": frozenset(),
}
"""By family, the features without which the fallback serves it."""


def routines(features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the libcalls that a CPU with these features can run."""
    from importlib import import_module

    for name, needed in REQUIRES.items():
        if features >= needed:
            yield from import_module(f"asm_libcalls.x86_64.{name}").routines(features)
