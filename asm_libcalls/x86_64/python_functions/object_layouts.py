"""The layouts of CPython's objects, and a check of them. No code is made here.

The offsets differ between builds and versions (a build without the GIL has longer headers, 3.15
moved the state of modules). So none is assumed: :func:`misfit` compares the values at a layout's
offsets with Python's API. If no tested layout fits, :func:`found` searches for each field in
objects of known content. Both read within the sizes that Python reports, so neither can crash. Both
run before any object exists whose destructor is code of this package. For a Python with an unknown
layout, :class:`Unsupported` is raised.

Source: CPython ``Include/object.h``, ``floatobject.h``, ``moduleobject.h``, ``methodobject.h``,
``structmember.h``, ``longintrepr.h`` (3.11) and ``cpython/longintrepr.h`` (3.12 on).
"""

from __future__ import annotations

import sys
from _struct import Struct
from types import CellType

from asm_libcalls.emitter.libc import function_address, malloc, python_api, string_at
from asm_libcalls.signatures import c_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

NEWEST_TESTED = (3, 15)
"""The newest CPython that the tests ran on; newer ones are checked in the same way."""

_PYTHON_API_VERSION = 1013  # of every Python 3
WORD = 8
_DOUBLE = Struct("=d")


class Unsupported(Exception):
    """Objects of this Python do not have the expected layout; the message says which."""


class IntegerLayout:
    """Layout of the type, the sign and the 30-bit digits of an ``int``. Each has its own code."""

    __slots__ = ("digits", "name", "object_type", "sign", "size", "tagged", "type_flags", "value")

    def __init__(self, name: str, object_type: int, size: int, digits: int, tagged: bool) -> None:
        self.name = name
        # `object_type`, `value`, `size`, `digits`: offsets in bytes of the type, of the content of
        # other objects (after the header), of the word with the number of digits, and of the digits
        self.object_type = object_type
        self.value = object_type + WORD
        self.type_flags = object_type + 160  # offset of the flags in a type
        self.size = size
        self.digits = digits
        # Whether that word is `lv_tag` (from 3.12 on): digits << 3 | sign, which is 0 positive, 1
        # zero, 2 negative; 3.14 uses bit 2 too. Otherwise it is `ob_size`: the number of digits,
        # negative for a negative integer.
        self.tagged = tagged
        # offset of the byte that has the sign, and the bit that is set for a negative integer
        self.sign = (size, 0x02) if tagged else (size + 7, 0x80)


INTEGER_LAYOUTS = {
    layout.name: layout
    for layout in (
        IntegerLayout("sized", 8, 16, 24, False),
        IntegerLayout("tagged", 8, 16, 24, True),
        IntegerLayout("tagged_without_gil", 24, 32, 40, True),
    )
}
"""Layouts of CPython up to 3.11, from 3.12 on, and of builds without the GIL."""


class ObjectLayout:
    """Offsets at which the code of builtins reads objects."""

    __slots__ = ("float_value", "integers", "module_state", "object_type")

    def __init__(
        self, object_type: int, float_value: int, module_state: int, integers: str
    ) -> None:
        # `object_type`, `float_value`, `module_state`: offsets in bytes: of any object's type, of a
        # float's double, of a module's pointer to its C state
        self.object_type = object_type
        self.float_value = float_value
        self.module_state = module_state
        self.integers = integers  # the name of one of INTEGER_LAYOUTS

    def holes(self) -> dict[str, int]:
        """Return the numbers for the holes of stencils, by name."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "integers"}

    def routine(self, libcall: str) -> str:
        """Return the name of the routine that an image may have for a libcall's function."""
        places = f"{self.object_type}, {self.float_value}, {self.module_state}"
        return f"builtin {libcall} ({self.integers}, {places})"


TESTED_LAYOUTS = (
    ObjectLayout(8, 16, 32, "sized"),  # 3.11
    ObjectLayout(8, 16, 32, "tagged"),  # 3.12 to 3.14
    ObjectLayout(8, 16, 24, "tagged"),  # 3.15
    ObjectLayout(24, 32, 48, "tagged_without_gil"),  # 3.13 without the GIL
)
"""The layouts for which an image has the code of numeric libcalls."""


class MethodDefinition(c_types.Structure):
    """CPython's ``PyMethodDef``."""

    _fields_ = (
        ("name", c_types.c_uint64),
        ("code", c_types.c_uint64),
        ("flags", c_types.c_uint64),  # a C int and its padding
        ("doc", c_types.c_uint64),
    )


KNOWN_KEEPERS = 4
"""The most instances that a function's state remembers: see :class:`FunctionState`."""


class FunctionState(c_types.Structure):
    """The C state of a builtin's ``self``, a module. It is freed with that module."""

    _fields_ = (
        ("address", c_types.c_uint64),  # the C function
        # owned, and visited by the garbage collector; null once cleared
        ("slow", c_types.c_uint64),
        ("text", c_types.c_uint64),  # owned: the bytes of the definition's name and doc
        ("definition", MethodDefinition),
        # Of a slot function: the addresses of instances that its own instance keeps alive, and
        # zeros. Machine code takes functions of these instances as arguments.
        ("keepers", c_types.c_uint64 * KNOWN_KEEPERS),
    )


OBJECT, SSIZE = 16, 19  # Py_T_OBJECT_EX, Py_T_PYSSIZET
READONLY = 1
_MEMBER = Struct("PinIP")


def member_definition(name: int, kind: int, offset: int, flags: int = 0) -> bytes:
    """Return CPython's ``PyMemberDef``: a C value at an offset from the start of an object.

    `name` is the address of a C string.
    """
    return _MEMBER.pack(name, kind, offset, flags, 0)


class ModuleDefinition:
    """CPython's ``PyModuleDef``, which is never freed.

    CPython fills in its header when it first makes a module.
    """

    # The header, the initialization, an index, a copy, name and doc, the size of the state, the
    # methods, the slots, and three functions for the collector.
    _content = Struct(f"{object.__basicsize__}xPnPPPnPPPPP")
    SIZE = _content.size

    def __init__(
        self, name: bytes, state_size: int, traverse: int = 0, clear: int = 0, free: int = 0
    ) -> None:
        at = malloc(name + b"\0")
        content = self._content.pack(0, 0, 0, at, 0, state_size, 0, 0, traverse, clear, free)
        self._address = malloc(content)

    def new_module(self) -> Any:
        """Make a module of this definition."""
        create = python_api("PyModule_Create2", c_types.py_object, c_types.c_void_p, c_types.c_int)
        return create(self._address, _PYTHON_API_VERSION)


def tested() -> ObjectLayout | None:
    """Return the tested layout that fits this Python's objects, or None.

    Raise Unsupported if no code reads the objects of this Python.
    """
    return next((layout for layout in TESTED_LAYOUTS if not misfit(layout)), None)


def misfit(layout: ObjectLayout) -> str:
    """Compare the values at the layout's offsets with Python's API; return what differs, or ""."""
    objects = samples()
    places = (layout.object_type, layout.float_value, layout.module_state)
    for (what, size, is_there), place in zip(objects.facts(), places, strict=True):
        if not 0 <= place <= size - WORD or not is_there(place):
            return f"{what} of this CPython is not at byte {place}"
    integers = INTEGER_LAYOUTS[layout.integers]
    if integers.object_type != layout.object_type:
        return f"the type of an int is not at byte {integers.object_type}"
    for value in objects.integers:
        if not is_laid_out(value, integers):
            return f"{value} is not laid out as a {layout.integers} integer"
    if object.__basicsize__ != integers.value:
        return f"an object of this CPython has a header of {object.__basicsize__} bytes"
    types: tuple[Any, ...] = (int, bool, float, object, str, type)
    for type_ in types:
        if _flags(type_, integers) & _KINDS != type_.__flags__ & _KINDS:
            return f"the flags of {type_.__name__} are not at {integers.type_flags}"
    return ""


def found() -> ObjectLayout:
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


def find_member(cls: type, member: str) -> int:
    """Return the offset of a member in objects of a class, or raise Unsupported."""
    # In an uninitialized object, with each of two otherwise unreferenced integers in the member.
    places = []
    for number in (2**70, 2**71):
        value = number + len(member)
        thing: Any = cls() if cls is CellType else object.__new__(cls)
        setattr(thing, member, value)
        words = (c_types.c_size_t * (cls.__basicsize__ // WORD)).from_address(id(thing))
        places.append([WORD * i for i, word in enumerate(words) if word == id(value)])
        setattr(thing, member, 0)
    if len(places[0]) != 1 or places[0] != places[1]:
        raise Unsupported(f"{cls.__name__}.{member} is not at one place: {places}")
    return places[0][0]


class Samples:
    """Objects whose content the API tells, to compare layouts with."""

    def __init__(self) -> None:
        _check_python()
        self.floats = [float(text) for text in ("1.375", "-2.5e300", "3e-200")]
        self.integers = [
            sign * size
            for size in (0, 5, 2**30 - 1, 2**45 + 3, 2**59 + 7, 2**62 + 2**31 + 5, 2**63, 2**90)
            for sign in (1, -1)
        ]
        at = c_types.c_size_t(function_address("PyModuleDef_Type"))
        kind: Any = c_types.py_object.from_buffer(at).value
        if kind.__basicsize__ != ModuleDefinition.SIZE:
            raise Unsupported(
                f"a {kind.__name__} of this CPython has {kind.__basicsize__} bytes, "
                f"not {ModuleDefinition.SIZE}"
            )
        # The definition has no destructor, so these modules call no code of this package.
        definition = ModuleDefinition(b"a module with a state", WORD)
        self.modules = [definition.new_module() for _ in range(3)]

    def facts(self) -> list[tuple[str, int, Callable[[int], bool]]]:
        """Return the fields to find: description, bytes to search, and a test of an offset."""
        read = c_types.c_uint64.from_address
        state_of = python_api("PyModule_GetState", c_types.c_void_p, c_types.py_object)
        typed: list[object] = [object(), None, *self.floats, *self.integers, *self.modules]

        def is_type(offset: int) -> bool:
            return all(read(id(thing) + offset).value == id(type(thing)) for thing in typed)

        def is_value(offset: int) -> bool:
            return all(
                string_at(id(value) + offset, WORD) == _DOUBLE.pack(value) for value in self.floats
            )

        def is_state(offset: int) -> bool:
            return all(
                read(id(module) + offset).value == state_of(module) for module in self.modules
            )

        return [
            ("the type of an object", object.__basicsize__, is_type),
            ("the value of a float", float.__basicsize__, is_value),
            ("the state of a module object", type(sys).__basicsize__, is_state),
        ]


_kept: list[Samples] = []


def samples() -> Samples:
    """Return the samples, made once."""
    if not _kept:
        _kept.append(Samples())
    return _kept[0]


_KINDS = 0xFF000000
"""Flags of a type that say whether it is a subclass of int, str, type, ..."""


def _flags(type_: type, layout: IntegerLayout) -> int:
    return c_types.c_uint32.from_address(id(type_) + layout.type_flags).value


def is_laid_out(value: int, layout: IntegerLayout) -> bool:
    """Tell whether an integer's size, sign and digits are where a layout says."""
    content = string_at(id(value), value.__sizeof__())
    digits = b""
    rest = abs(value)
    while rest:
        digits += (rest & 2**30 - 1).to_bytes(4, "little")
        rest >>= 30
    count = len(digits) // 4
    word = int.from_bytes(content[layout.size : layout.size + WORD], "little", signed=True)
    if layout.tagged:
        word &= ~4
        expected = count << 3 | (2 if value < 0 else 0 if value else 1)
    else:
        expected = count if value >= 0 else -count
    return word == expected and content[layout.digits : layout.digits + len(digits)] == digits


def _check_python() -> None:
    name = sys.implementation.name
    if name != "cpython":
        raise Unsupported(f"this Python is {name}, not CPython")
    if (sys.int_info.bits_per_digit, sys.int_info.sizeof_digit, int.__itemsize__) != (30, 4, 4):
        raise Unsupported("integers of this CPython do not have digits of 30 bits")
    if sys.maxsize != 2**63 - 1:
        raise Unsupported("this CPython's words do not have 64 bits")
