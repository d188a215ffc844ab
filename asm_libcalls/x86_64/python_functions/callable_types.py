"""Makes classes whose objects CPython calls through machine code: PEP 590's vectorcall.

The class that :func:`derive` makes adds one word to its base's objects: the address of the C
function with which CPython calls the object. This one calls the Python function in a member of the
object. While the word is null, before :meth:`CallableType.answer` has set it, CPython calls
``__call__`` of the class.

The class depends on no tested layout of CPython's objects: the base's size and the place of the
member are found in objects.

Source: CPython ``Include/object.h``; PEP 590.
"""

from __future__ import annotations

import ctypes
import sys

from asm_libcalls.emitter.libc import malloc, never_free, python_api
from asm_libcalls.x86_64.python_functions.object_layouts import (
    READONLY, SSIZE, Unsupported, member_definition,
)  # fmt: skip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.x86_64.python_functions.function_maker import FunctionMaker

__all__ = ["CallableType", "Unsupported", "derive"]

_HAVE_VECTORCALL = 1 << 11  # Py_TPFLAGS_HAVE_VECTORCALL
_TP_MEMBERS = 72  # Include/typeslots.h


class _Slot(ctypes.Structure):
    """CPython's ``PyType_Slot``."""

    _fields_ = [("slot", ctypes.c_int), ("value", ctypes.c_void_p)]


class _Spec(ctypes.Structure):
    """CPython's ``PyType_Spec``."""

    _fields_ = [
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    ]


class CallableType:
    """A derived class, with the code and the place that make its objects call a function."""

    def __init__(self, cls: type, member: str, offset: int, code: int) -> None:
        self.cls = cls
        self._member = member
        self._offset = offset
        self._code = code

    def answer(self, thing: Any, function: Callable[..., Any]) -> None:
        """Let calls of an object of the class call the function."""
        setattr(thing, self._member, function)
        ctypes.c_void_p.from_address(id(thing) + self._offset).value = self._code


def derive(maker: FunctionMaker, base: type, member: str) -> CallableType:
    """Derive a class whose objects can be called through machine code.

    `base` is a class of Python's with a ``__call__`` method, and with `member`, which holds the
    function, in its ``__slots__``. Its objects have no ``__dict__``.

    Raise Unsupported if the place of the member is not found or a test call gives a wrong result,
    and OSError if the system refuses executable memory.
    """
    if hasattr(sys, "gettotalrefcount"):
        raise Unsupported("a debug build of CPython asserts a tp_call, which this class inherits")
    number = maker.member_offset(base, member)
    loaded = maker.load_stencils({"forward": f"calls of {base.__name__}"}, function_member=number)
    code = loaded.routine("forward")
    offset = base.__basicsize__
    # CPython may refer to the name and the members as long as the class exists.
    member_name = malloc(b"__vectorcalloffset__\0")
    of_offset = member_definition(member_name, SSIZE, offset, READONLY)
    members = malloc(of_offset + bytes(len(of_offset)))
    # No tp_call is given: it would become a __call__ of this class, and hide the base's.
    slots = (_Slot * 2)(_Slot(_TP_MEMBERS, members), _Slot())
    name = f"{base.__module__}.{base.__name__}".encode()
    spec = _Spec(name, offset + 8, 0, _HAVE_VECTORCALL, slots)
    never_free(spec)
    from_spec = python_api(
        "PyType_FromSpecWithBases", ctypes.py_object, ctypes.c_void_p, ctypes.py_object
    )
    cls = from_spec(ctypes.addressof(spec), (base,))
    cls.__qualname__ = base.__qualname__
    cls.__doc__ = vars(base)["__doc__"]
    cls._code_owner = loaded  # its objects refer to the code
    if "_readable_member" in vars(base):  # machine code reads objects of exact classes
        cls._readable_member = vars(base)["_readable_member"]
    made = CallableType(cls, member, offset, code)
    _check(made, cls)
    return made


def _check(made: CallableType, cls: type) -> None:
    if cls.__basicsize__ != made._offset + 8:
        raise Unsupported(f"an object of {cls.__name__} has {cls.__basicsize__} bytes")
    thing: Any = object.__new__(cls)
    given = []
    made.answer(thing, lambda *arguments, **keywords: given.append((arguments, keywords)))
    thing(1, "two", three=3)
    thing()
    if given != [((1, "two"), {"three": 3}), ((), {})]:
        raise Unsupported(f"an object of {cls.__name__} is called with {given!r}")
