"""Stack maps: which slots of a native frame hold externrefs, by return address.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22 (``StackMapRegistry``).
"""

from __future__ import annotations

import bisect
import ctypes
import weakref
from functools import partial

from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.owned.objects import OPEN, Owned, unmade
from asm_libcalls.signatures.arguments import (
    all_items,
    counted,
    describe,
    integer,
    iterator_of,
    pairs_of,
)
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

_HIGHEST = (1 << 64) - 1
_OFFSETS = -(1 << 63), (1 << 63) - 1


class StackMapRegistry(Owned):
    """Stack maps by return address: which slots of a frame hold externrefs.

    A *stack map* belongs to one call site. It lists the offsets, in bytes from the frame pointer
    (rbp) of the calling frame, of the 8-byte slots that hold an externref or null while the call
    runs.

    Attributes
    ----------
    address : int
        The pointer in a VMContext; compiled code only passes it on.
    is_shared : bool
        Whether it is the default registry of instances.
    """

    _relied_on: tuple[str, ...] = "address", "lookup"
    is_shared = False
    _cell: ctypes.c_size_t = unmade()
    # (start, end, maps by return address), sorted. Replaced as a whole, so a lookup in another
    # thread never sees half a change.
    _ranges: tuple[tuple[int, int, dict[int, tuple[int, ...]]], ...] = unmade()

    def __init__(self) -> None:
        self._begin()
        self._cell = ctypes.c_size_t(id(self))
        self._ranges = ()
        _registries[id(self)] = self
        self._finish()

    def __repr__(self) -> str:
        return f"<StackMapRegistry of {counted(len(self._ranges), 'code range')}>"

    @property
    def address(self) -> int:
        """The pointer to it in a VMContext."""
        return ctypes.addressof(self._cell)

    def register(self, start: int, size: int, maps: Mapping[int, Iterable[int]]) -> None:
        """Register the stack maps of a range of code.

        Parameters
        ----------
        start : int
            The address of its first byte. The maps of a :class:`Code` are forgotten when its memory
            is released.
        size : int
            Its length in bytes.
        maps : mapping of int to iterable of int
            For each call site that may GC, the offset of its *return address* from `start`, and
            the frame-pointer offsets of its live slots. A call site that is not listed holds
            nothing.

        Raises
        ------
        TypeError
            An argument, a key or a slot is of another type.
        ValueError
            The range is empty or overlaps another one, or an offset is outside of it.
        """
        self._check_open()
        owner = start if isinstance(start, CodeAddress) else None
        if owner is not None:
            owner.check_open("register()")
        start = integer(start, "register(): start", "an address (int)", 1, _HIGHEST)
        size = integer(size, "register(): size", "a number of bytes (int)", 1, _HIGHEST)
        by_address = {}
        # A map that several call sites share stays shared. While `slots` is referenced, no other
        # object has its id.
        converted: dict[int, tuple[object, tuple[int, ...]]] = {}
        for key, slots in pairs_of(
            maps, "register(): maps", "a mapping of return addresses to slots"
        ):
            expected = "the offset of a return address (int)"
            offset = integer(key, "register(): a key of maps", expected, 1, size)
            if id(slots) not in converted:
                converted[id(slots)] = slots, _offsets(slots, offset)
            _, by_address[start + offset] = converted[id(slots)]
        end = start + size
        while True:
            self._check_open()  # an __index__, a signal handler or a thread may have closed it
            ranges = self._ranges
            at = bisect.bisect_left(ranges, (start,))
            if at and ranges[at - 1][1] > start:
                raise ValueError(
                    f"register(): {start:#x} is inside the range at {ranges[at - 1][0]:#x}"
                )
            if at < len(ranges) and ranges[at][0] < end:
                raise ValueError(f"register(): the range overlaps the one at {ranges[at][0]:#x}")
            if self._replace(ranges, (*ranges[:at], (start, end, by_address), *ranges[at:])):
                break
        if owner is not None:
            owner.before_release(partial(_forget, weakref.ref(self), start))

    def unregister(self, start: int) -> None:
        """Forget the range that begins at `start`; ValueError if there is none."""
        start = integer(start, "unregister(): start", "an address (int)", 0, _HIGHEST)
        if not self._forget(start):
            raise ValueError(f"unregister(): no range of code begins at {start:#x}")

    def _forget(self, start: int) -> bool:
        while self._state is OPEN:
            ranges = self._ranges
            kept = tuple(each for each in ranges if each[0] != start)
            if len(kept) == len(ranges):
                return False
            if self._replace(ranges, kept):
                return True
        return False

    @step
    def _replace(self, old: object, new: Any) -> bool:
        # No call: no other thread runs between comparison and assignment.
        if self._ranges is old and self._state is OPEN:
            self._ranges = new
            return True
        return False

    def _release(self) -> None:
        self._ranges = ()

    def close(self) -> None:
        """Forget all stack maps; twice is a no-op.

        Raises
        ------
        ValueError
            It is the default registry of instances, which the process shares.
        """
        if self.is_shared:
            raise ValueError("the default StackMapRegistry cannot be closed: the process shares it")
        super().close()

    def lookup(self, return_address: int) -> tuple[int, ...] | None:
        """Return the stack map of a call site, or None if there is no map for it."""
        ranges = self._ranges
        # The last instruction of a range may be a call, which returns to the end of the range. So a
        # range includes its end here.
        at = bisect.bisect_left(ranges, (return_address,))
        if at == 0:
            return None
        _, end, maps = ranges[at - 1]
        return maps.get(return_address) if return_address <= end else None


def _offsets(slots: Any, offset: int) -> tuple[int, ...]:
    where = f"register(): the slots of the return address at {offset}"
    try:
        iterator = iterator_of(slots)
    except TypeError:
        raise TypeError(f"{where} must be offsets in a sequence, got {describe(slots)}") from None
    given = all_items(iterator, where)
    return tuple([integer(slot, where, "offsets (int)", *_OFFSETS) for slot in given])


def _forget(reference: weakref.ref[StackMapRegistry], start: int) -> None:
    registry = reference()
    if registry is not None:
        StackMapRegistry._forget(registry, start)


_registries: weakref.WeakValueDictionary[int, StackMapRegistry] = weakref.WeakValueDictionary()
"""By id, because a subclass may define equality."""


def stack_map(return_address: int, registry: StackMapRegistry) -> tuple[int, ...]:
    """Return the stack map of a call site from `registry`, or from any other.

    Instances that call each other may have different registries.
    """
    found = registry.lookup(return_address)
    if found is None:
        # valuerefs() makes a list: other threads may change the mapping meanwhile.
        others = (reference() for reference in _registries.valuerefs())
        maps = (other.lookup(return_address) for other in others if other is not None)
        found = next((each for each in maps if each is not None), ())
    return found
