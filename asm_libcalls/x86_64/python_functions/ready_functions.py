"""Composes the code of the numeric libcalls' functions while their image is assembled.

So the first call of one composes nothing. The image has code for each layout of CPython's objects
that was tested: ``ObjectLayout.routine`` names it. For any other layout ``function_maker.py``
composes the code when a function is made.
"""

from __future__ import annotations

from asm_libcalls.emitter.image import Reference, Routine
from asm_libcalls.emitter.stencils import Stencil, compose
from asm_libcalls.x86_64 import families
from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX
from asm_libcalls.x86_64.python_functions.function_shapes import RET, Shape, parts_of
from asm_libcalls.x86_64.python_functions.object_layouts import TESTED_LAYOUTS
from asm_libcalls.x86_64.stencils.stack_effects import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asm_libcalls.libcalls import Declaration


def routines(table: Iterable[Declaration], made: Iterable[Routine]) -> Iterator[Routine]:
    """Compose the functions of the numeric libcalls among the routines made for an image."""
    by_name = {routine.name: routine for routine in made}
    pieces = {
        name.removeprefix(STENCIL_PREFIX): Stencil(
            routine.code[: routine.size], routine.holes, routine.effects
        )
        for name, routine in by_name.items()
        if routine.holes is not None and name.startswith(STENCIL_PREFIX)
    }
    for row in table:
        served = by_name.get(row.name)
        guard = families.guard_of(row)
        if served is None or row.takes_instance or (row.exceptions and not guard):
            continue
        shape = Shape.of(row.signature, guard=guard, inline="" if guard else row.name)
        body = None
        if not guard and served.is_straight:
            body = Stencil(served.code[: served.size].removesuffix(RET))
        for layout in TESTED_LAYOUTS:
            parts = parts_of(pieces, shape, layout, body)
            composed = compose(layout.routine(row.name), parts)
            composed.frames = frames(parts)
            composed.references = tuple(
                # A slot of a routine that reads integers: the one for this layout.
                Reference(each.offset, f"{each.symbol}_{layout.integers}", True)
                if f"{each.symbol}_{layout.integers}" in by_name
                else each
                for each in composed.references
            )
            yield composed
