"""Searches for the fields of CPython's objects, where their offsets are not known.

A search reads within the sizes that Python reports.
"""

from __future__ import annotations

from asm_libcalls.x86_64.python_functions.object_layouts import (
    INTEGER_LAYOUTS,
    WORD,
    ObjectLayout,
    Unsupported,
    is_laid_out,
    misfit,
    samples,
)


def find() -> ObjectLayout:
    """Search for the layout of this Python's objects, and check it.

    Raise Unsupported if a field is found nowhere or at several offsets, or no code reads this
    layout of integers.
    """
    layout = search()
    reason = misfit(layout)
    if reason:
        raise Unsupported(reason)
    return layout


def search() -> ObjectLayout:
    """Search for the layout, which is not checked yet."""
    objects = samples()
    places: list[int] = []
    for what, size, is_there in objects.facts():
        found = [offset for offset in range(0, size, WORD) if is_there(offset)]
        if len(found) != 1:
            where = f"at the bytes {found}" if found else "nowhere to be found"
            raise Unsupported(f"{what} of this CPython is {where}")
        places += found
    object_type, float_value, module_state = places
    for layout in INTEGER_LAYOUTS.values():
        if layout.object_type == object_type and is_laid_out(objects.integers[-1], layout):
            return ObjectLayout(object_type, float_value, module_state, layout.name)
    raise Unsupported("integers of this CPython are laid out as in no other")
