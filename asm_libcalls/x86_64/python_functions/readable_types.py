"""Types whose objects machine code reads by itself, besides int, float, bool and None.

They are NumPy's scalars, the pointers of :mod:`ctypes`, and owners of addresses: Instances,
FuncRefs, host functions, and, where the call must keep something, memories and externrefs. A table
describes where their exact objects have the value. Machine code looks a type up by its address
(``described_objects.py``). A type is *learned* when the slow path has converted an object of it:
then :meth:`ReadableTypes.learn` finds the place of the value by looking at objects of known
content. A type whose value is not found is not learned, and its objects keep taking the slow path.

An entry is the type's address, which determines the first place where it may stand, and the
description. Entries are only added, and their types are never freed, so machine code reads the
table without a lock.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from _weakref import ref

from asm_libcalls.emitter import libc
from asm_libcalls.signatures import c_types, value_types
from asm_libcalls.steps import HAS_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage

__all__ = ["SLOT", "ReadableTypes", "of_image"]

SLOT = "readable_types"
"""The slot of the table's address; 0 until functions are made."""

ENTRY_SIZE = 16
_PLACES, _MORE = 256, 16
PLACE_MASK = (_PLACES - 1) * ENTRY_SIZE
"""The bits of a type's address that are the offset of its first place; objects are aligned so."""

INT_SUBCLASS = 1 << 24
"""CPython's ``Py_TPFLAGS_LONG_SUBCLASS``."""

# A description: the kind in its low byte; then the bits that an integer lacks to 64, or the offset
# of the tag of a byref; the offset of the value in the object; the flags; the tag.
INTEGER, FLOAT_64, FLOAT_32, POINTER, BYREF, VMCTX_MEMBER, ANYFUNC_MEMBER = range(1, 8)
POINTER_MEMBER, KEPT_MEMBER, EXTERNREF_MEMBER = range(8, 11)
SHIFT_SHIFT = PLACE_SHIFT = 8
OFFSET_SHIFT = 16
SIGNED_BIT, BOOL_BIT = 32, 33
TAG_SHIFT = 40

_MEMBERS = {
    "vmctx": VMCTX_MEMBER,
    "anyfunc": ANYFUNC_MEMBER,
    "pointer": POINTER_MEMBER,
    "kept pointer": KEPT_MEMBER,
    "externref": EXTERNREF_MEMBER,
}
"""The first item of a class's ``_readable_member``. The second names the member with the address,
an int that is 0 or unset once the object is closed. For a kept pointer it names the member with the
object to keep, or None; the next items are that object's class, and its member with the address.
For an externref the third item is the function that gives back the last count of an address.
"""

RELEASE = "release_externref"
"""The slot of the address of the word that has that function."""
_POINTER_CODES = "PzZO"  # the `_type_` of ctypes' simple types that hold a pointer


_of_images: dict[int, ReadableTypes] = {}


def of_image(loaded: LoadedImage, member_offset: Callable[[type, str], int]) -> ReadableTypes:
    """Return the types that the routines of a loaded image read.

    They are the same for each ``FunctionMaker`` of the image: two threads may both make one, and
    then functions of both are in use.
    """
    types = _of_images.get(loaded.address) or _of_images.setdefault(
        loaded.address, ReadableTypes(object.__basicsize__, member_offset)
    )
    loaded.set_slot(SLOT, types.address)
    value_types.learners[:] = [types.learn]
    return types


class ReadableTypes:
    """Fills a table, which lasts as long as the process.

    `value_offset` is that of an object's content, after its header. `member_offset` returns that of
    a member of a class.
    """

    def __init__(self, value_offset: int, member_offset: Callable[[type, str], int]) -> None:
        # One place more, which stays empty, ends the search.
        self.address = libc.malloc(bytes((_PLACES + _MORE) * ENTRY_SIZE))
        self._table = (c_types.c_uint64 * (2 * (_PLACES + _MORE))).from_address(self.address)
        self._value_offset = value_offset
        self._member_offset = member_offset
        # By address, which another type may get later; the reference tells.
        self._seen: dict[int, ref[type]] = {}
        self._keep = libc.python_api("Py_IncRef", None, c_types.py_object)
        self._lock = allocate_lock()
        self.release = c_types.c_uint64.from_address(libc.malloc(bytes(8)))

    def learn(self, type_: type) -> None:
        """Let machine code read objects of a type, if it can."""
        seen = self._seen.get(id(type_))
        if seen is not None and seen() is type_:
            return
        # A signal handler, or a child of a fork, may come here while the lock is held.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._seen[id(type_)] = ref(type_)
            description = self._describe(type_)
            if description:
                self._enter(type_, description)
        finally:
            self._lock.release()

    def _enter(self, type_: type, description: int) -> None:
        first = (id(type_) & PLACE_MASK) // ENTRY_SIZE
        for place in range(first, first + _MORE):
            if not self._table[2 * place]:
                self._keep(type_)
                self._table[2 * place + 1] = description
                self._table[2 * place] = id(type_)  # last: from now on it is found
                return

    def _describe(self, type_: type) -> int:
        numpy = sys.modules.get("numpy")
        if numpy is not None and issubclass(type_, getattr(numpy, "generic", ())):
            return self._describe_scalar(type_, numpy)
        if "_readable_member" in vars(type_):
            return self._describe_owner(type_)
        return self._describe_pointer(type_)

    def _describe_scalar(self, type_: Any, numpy: Any) -> int:
        try:
            dtype = numpy.dtype(type_)
            kind, size = dtype.kind, dtype.itemsize
        except TypeError:
            return 0
        if dtype.type is not type_:
            return 0
        if kind in "iub" and size <= 8:
            flags = (kind == "i") << SIGNED_BIT | (kind == "b") << BOOL_BIT
            description = INTEGER | (64 - 8 * size) << SHIFT_SHIFT | flags
            samples: tuple[Any, ...] = (0, 1) if kind == "b" else (1, 77, numpy.iinfo(type_).max)
        elif kind == "f" and size in (4, 8):
            description = FLOAT_64 if size == 8 else FLOAT_32
            samples = (0.5, -3.25, 1e30)
        else:
            return 0
        for sample in samples:
            thing = type_(sample)
            if libc.string_at(id(thing) + self._value_offset, size) != thing.tobytes():
                return 0
        return int(description) | self._value_offset << OFFSET_SHIFT

    def _describe_owner(self, type_: type) -> int:
        kind, member, *more = vars(type_)["_readable_member"]
        description = _MEMBERS[kind] | self._member_offset(type_, member) << OFFSET_SHIFT
        if kind == "kept pointer":
            # Without the GIL another thread could close the object at the same time.
            inner = self._member_offset(*more)
            return description | inner // 8 << PLACE_SHIFT if HAS_GIL else 0
        if kind == "externref":
            self._keep(more[0])
            self.release.value = id(more[0])
            return description if HAS_GIL else 0  # counting is a step
        return description

    def _describe_pointer(self, type_: Any) -> int:
        import _ctypes

        if hasattr(type_, "__native_address__"):
            return 0
        if type_ is type(c_types.byref(c_types.c_int())):
            return self._describe_byref(type_)
        is_pointer = issubclass(type_, (_ctypes._Pointer, _ctypes.CFuncPtr)) or (
            issubclass(type_, _ctypes._SimpleCData) and type_._type_ in _POINTER_CODES
        )
        if not is_pointer:
            return 0
        samples = [c_types.c_void_p(n) for n in (1, 2)]
        offset = _only_place(samples, [c_types.addressof(each) for each in samples])
        return POINTER | offset << OFFSET_SHIFT if offset else 0

    def _describe_byref(self, type_: Any) -> int:
        import ctypes

        numbers = [c_types.c_int(n) for n in (1, 2)]
        samples = [c_types.byref(number) for number in numbers]
        offset = _only_place(samples, [c_types.addressof(number) for number in numbers])
        # The tag follows a pointer (ctypes' PyCArgObject), and differs for other arguments.
        at = self._value_offset + 8
        others = (ctypes.c_int, 5), (ctypes.c_double, 5.0), (ctypes.c_char_p, b"5")
        parameters = [kind.from_param(value) for kind, value in others]
        tags = {libc.string_at(id(each) + at, 1) for each in samples}
        other_tags = {libc.string_at(id(each) + at, 1) for each in parameters}
        if not offset or len(tags) != 1 or tags & other_tags:
            return 0
        tag = tags.pop()[0]
        return BYREF | at << PLACE_SHIFT | offset << OFFSET_SHIFT | tag << TAG_SHIFT


def _only_place(samples: list[Any], words: list[int]) -> int:
    """Return the offset at which each object has its word; 0 if there is not just one."""
    places = [
        offset
        for offset in range(0, type(samples[0]).__basicsize__ - 7, 8)
        if all(
            c_types.c_uint64.from_address(id(sample) + offset).value == word
            for sample, word in zip(samples, words, strict=True)
        )
    ]
    return places[0] if len(places) == 1 else 0
