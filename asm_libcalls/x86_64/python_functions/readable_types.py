"""Types whose objects machine code reads by itself, besides int, float, bool and None.

They are NumPy's scalars, the pointers of :mod:`ctypes`, and owners of addresses: Instances,
FuncRefs, host functions, and, in code that holds objects during the call, memories and externrefs.
A table describes the place of the value in their exact objects. Machine code looks a type up by its
address (``described_objects.py``). A type is *learned* when the slow path has converted an object
of it: then ``described_types.py`` searches for the value in objects of known content. If it is not
found, objects of the type keep taking the slow path.

An entry is the type's address, which determines the first place where it may stand, and the
description. Entries are only added, and their types are never freed, so machine code reads the
table without a lock.
"""

from __future__ import annotations

from _weakref import ref

from asm_libcalls.emitter import libc
from asm_libcalls.signatures import c_types
from asm_libcalls.steps import step
from asm_libcalls.x86_64.python_functions import READABLE_TYPES_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Describe = Callable[[type, "ReadableTypes"], int]
    """Returns the description of a type for a table, or 0."""

ENTRY_SIZE = 16
_PLACES, _MORE = 256, 16
assert (_PLACES + _MORE) * ENTRY_SIZE == READABLE_TYPES_SIZE
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

RELEASE = "release_externref"
"""The slot of the address of the word that has that function."""

_made: dict[int, ReadableTypes] = {}


def at(address: int, describe: Describe) -> ReadableTypes:
    """Return the types in the table at an address, the same object for each ``FunctionObjects``.

    Two threads may both make a ``FunctionObjects``, and then functions of both are in use.
    """
    return _made.get(address) or _made.setdefault(address, ReadableTypes(address, describe))


class ReadableTypes:
    """Fills a table, which lasts as long as the process, with what `describe` returns."""

    def __init__(self, address: int, describe: Describe) -> None:
        # One place more, which stays empty, ends the search.
        self._table = (c_types.c_uint64 * (2 * (_PLACES + _MORE))).from_address(address)
        self._describe = describe
        # By address. Another type may get the address later, so the reference is compared.
        self._seen: dict[int, ref[type]] = {}
        self.release = c_types.c_uint64.from_address(libc.malloc(bytes(8)))

    def learn(self, type_: type) -> None:
        """Let machine code read objects of a type, if it can."""
        seen = self._seen.get(id(type_))
        if seen is not None and seen() is type_:
            return
        # First, because `_describe` may call this method again.
        self._seen[id(type_)] = ref(type_)
        is_done = False
        try:
            description = self._describe(type_, self)
            if description:
                self._enter(type_, description)
            is_done = True
        finally:
            if not is_done:  # a signal handler may have raised too
                self._seen.pop(id(type_), None)

    def _enter(self, type_: type, description: int) -> None:
        first = (id(type_) & PLACE_MASK) // ENTRY_SIZE
        for place in range(first, first + _MORE):
            if not self._table[2 * place]:
                libc.never_free(type_)
                if self._take(2 * place, id(type_), description):
                    return

    @step
    def _take(self, place: int, address: int, description: int) -> bool:
        """Enter a type in a place, unless it is taken; return whether the type is there."""
        # No call: other threads and signal handlers enter types too.
        table = self._table
        if table[place]:
            is_here: bool = table[place] == address
            return is_here
        table[place + 1] = description
        table[place] = address  # last: from now on it is found
        return True
