"""Finds where objects of a type have their value, for the table of ``readable_types.py``."""

from __future__ import annotations

import sys

from asm_libcalls.emitter import libc
from asm_libcalls.signatures import c_types
from asm_libcalls.signatures.pointers import is_pointer
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import readable_types as table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.x86_64.python_functions.readable_types import ReadableTypes

VALUE_OFFSET = object.__basicsize__
"""The offset of an object's content, after its header."""

_MEMBERS = {
    "vmctx": table.VMCTX_MEMBER,
    "anyfunc": table.ANYFUNC_MEMBER,
    "pointer": table.POINTER_MEMBER,
    "kept pointer": table.KEPT_MEMBER,
    "externref": table.EXTERNREF_MEMBER,
}
"""The first item of a class's ``_readable_member``. The second names the member with the address,
an int that is 0 or unset once the object is closed. For a kept pointer it names the member with the
object to keep, or None; the next items are that object's class, and its member with the address.
For an externref the third item is the function that gives back the last count of an address.
"""


def describe(type_: type, member_offset: Callable[[type, str], int], types: ReadableTypes) -> int:
    """Return the description of a type for the table of `types`; 0 if no value is found.

    `member_offset` returns the offset of a member of a class.
    """
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(type_, getattr(numpy, "generic", ())):
        return _describe_scalar(type_, numpy)
    if "_readable_member" in vars(type_):
        return _describe_owner(type_, member_offset, types)
    return _describe_pointer(type_)


def _describe_scalar(type_: Any, numpy: Any) -> int:
    try:
        dtype = numpy.dtype(type_)
        kind, size = dtype.kind, dtype.itemsize
    except TypeError:
        return 0
    if dtype.type is not type_:
        return 0
    if kind in "iub" and size <= 8:
        flags = (kind == "i") << table.SIGNED_BIT | (kind == "b") << table.BOOL_BIT
        description = table.INTEGER | (64 - 8 * size) << table.SHIFT_SHIFT | flags
        samples: tuple[Any, ...] = (0, 1) if kind == "b" else (1, 77, numpy.iinfo(type_).max)
    elif kind == "f" and size in (4, 8):
        description = table.FLOAT_64 if size == 8 else table.FLOAT_32
        samples = (0.5, -3.25, 1e30)
    else:
        return 0
    for sample in samples:
        thing = type_(sample)
        if libc.string_at(id(thing) + VALUE_OFFSET, size) != thing.tobytes():
            return 0
    return int(description) | VALUE_OFFSET << table.OFFSET_SHIFT


def _describe_owner(
    type_: type, member_offset: Callable[[type, str], int], types: ReadableTypes
) -> int:
    kind, member, *more = vars(type_)["_readable_member"]
    description = _MEMBERS[kind] | member_offset(type_, member) << table.OFFSET_SHIFT
    if kind == "kept pointer":
        # Without the GIL another thread could close the object during the read.
        inner = member_offset(*more)
        return description | inner // 8 << table.PLACE_SHIFT if HAS_GIL else 0
    if kind == "externref":
        libc.never_free(more[0])
        types.release.value = id(more[0])
        return description if HAS_GIL else 0  # counting is a step
    return description


def _describe_pointer(type_: Any) -> int:
    if hasattr(type_, "__native_address__"):
        return 0
    if type_ is type(c_types.byref(c_types.c_int())):
        return _describe_byref(type_)
    if not is_pointer(type_):
        return 0
    samples = [c_types.c_void_p(n) for n in (1, 2)]
    offset = _only_place(samples, [c_types.addressof(each) for each in samples])
    return table.POINTER | offset << table.OFFSET_SHIFT if offset else 0


def _describe_byref(type_: Any) -> int:
    import ctypes

    numbers = [c_types.c_int(n) for n in (1, 2)]
    samples = [c_types.byref(number) for number in numbers]
    offset = _only_place(samples, [c_types.addressof(number) for number in numbers])
    # The tag follows a pointer (ctypes' PyCArgObject), and differs for other arguments.
    at = VALUE_OFFSET + 8
    others = (ctypes.c_int, 5), (ctypes.c_double, 5.0), (ctypes.c_char_p, b"5")
    parameters = [kind.from_param(value) for kind, value in others]
    tags = {libc.string_at(id(each) + at, 1) for each in samples}
    other_tags = {libc.string_at(id(each) + at, 1) for each in parameters}
    if not offset or len(tags) != 1 or tags & other_tags:
        return 0
    tag = tags.pop()[0]
    places = at << table.PLACE_SHIFT | offset << table.OFFSET_SHIFT
    return table.BYREF | places | tag << table.TAG_SHIFT


def _only_place(samples: list[Any], words: list[int]) -> int:
    """Return the offset at which each object has its word; 0 if none or several fit."""
    places = [
        offset
        for offset in range(0, type(samples[0]).__basicsize__ - 7, 8)
        if all(
            c_types.c_uint64.from_address(id(sample) + offset).value == word
            for sample, word in zip(samples, words, strict=True)
        )
    ]
    return places[0] if len(places) == 1 else 0
