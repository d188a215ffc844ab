"""Composes the code of the numeric libcalls' functions while their image is assembled.

So the first call of one composes nothing. The image has code for each layout of CPython's objects
that was tested: ``ObjectLayout.routine`` names it. For any other layout ``function_maker.py``
composes the code when a function is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from asm_libcalls.emitter.image import Reference, Routine, link
from asm_libcalls.emitter.stencils import Stencils, compose
from asm_libcalls.libcalls import Declaration
from asm_libcalls.x86_64 import families
from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX
from asm_libcalls.x86_64.python_functions.function_shapes import (
    Shape, copied_body, parts_of, routine_of_slot,
)  # fmt: skip
from asm_libcalls.x86_64.python_functions.object_layouts import TESTED_LAYOUTS
from asm_libcalls.x86_64.stencils.stack_effects import frames


def routines(table: Iterable[Declaration], made: Iterable[Routine]) -> Iterator[Routine]:
    """Compose the functions of the numeric libcalls among the routines made for an image."""
    image = link(made)
    stencils = Stencils(image, STENCIL_PREFIX)
    for row in table:
        guard = families.guard_of(row)
        if row.name not in image.routines or row.takes_instance or (row.exceptions and not guard):
            continue
        inline = "" if guard else row.name
        shape = Shape.of(row.signature, guard=guard, inline=inline)
        body = copied_body(image, inline)
        for layout in TESTED_LAYOUTS:
            parts = parts_of(stencils, shape, layout, body)
            composed = compose(layout.routine(row.name), parts)
            composed.frames = frames(parts)
            # The slots of all layouts are in one image, so each has its routine's name.
            composed.references = tuple(
                Reference(
                    each.offset, routine_of_slot(each.symbol, layout, image) or each.symbol, True
                )
                for each in composed.references
            )
            yield composed
