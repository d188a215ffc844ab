"""Stack maps: which slots of a native frame hold externrefs, by return address.

Source: ``wasmtime_runtime::externref`` of Wasmtime 0.22 (``StackMapRegistry``).
"""

from __future__ import annotations

import bisect
import ctypes
import operator
import weakref
from functools import partial

from asm_libcalls.emitter.code_address import CodeAddress
from asm_libcalls.owned import Owned
from asm_libcalls.signatures.value_types import describe
from asm_libcalls.steps import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

__all__ = ["StackMapRegistry", "stack_map"]


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

    is_shared = False

    def __init__(self) -> None:
        self._begin()
        self._cell = ctypes.c_size_t(id(self))
        # (start, end, maps by return address), sorted. Replaced as a whole, so a lookup in another
        # thread never sees half a change.
        self._ranges: tuple[tuple[int, int, dict[int, tuple[int, ...]]], ...] = ()
        _registries[id(self)] = self
        self._finish()

    def __repr__(self) -> str:
        return f"<StackMapRegistry of {len(self._ranges)} code ranges>"

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
        start = _integer(start, "start must be an address (int)")
        size = _integer(size, "size must be a number of bytes (int)")
        if start <= 0 or size <= 0:
            raise ValueError(f"register(): an empty range of code: {start:#x}, {size} bytes")
        by_address = {}
        # Maps that several calls share stay shared. Keeping `slots` keeps its id.
        converted: dict[int, tuple[object, tuple[int, ...]]] = {}
        for key, slots in _items(maps):
            offset = _integer(key, "a key of maps must be the offset of a return address (int)")
            if not 0 < offset <= size:
                raise ValueError(
                    f"register(): return address at {offset} is outside the {size} bytes of code"
                )
            if id(slots) not in converted:
                converted[id(slots)] = slots, _offsets(slots, offset)
            _, by_address[start + offset] = converted[id(slots)]
        end = start + size
        while True:
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
        if not self._forget(start):
            raise ValueError(f"unregister(): no range of code begins at {start:#x}")

    def _forget(self, start: int) -> bool:
        while True:
            ranges = self._ranges
            kept = tuple(each for each in ranges if each[0] != start)
            if len(kept) == len(ranges):
                return False
            if self._replace(ranges, kept):
                return True

    @step
    def _replace(self, old: object, new: Any) -> bool:
        # No call, so no other thread runs between comparison and assignment.
        if self._ranges is old:
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
        # A call may be the last instruction of its range: the range includes its end here.
        at = bisect.bisect_left(ranges, (return_address,))
        if at == 0:
            return None
        _, end, maps = ranges[at - 1]
        return maps.get(return_address) if return_address <= end else None


def _integer(value: Any, expected: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"register(): {expected}, got {describe(value)}") from None


def _items(maps: Any) -> Iterable[tuple[Any, Any]]:
    try:
        return list(maps.items())
    except AttributeError:
        raise TypeError(
            f"register(): maps must be a mapping of return addresses to slots, got {describe(maps)}"
        ) from None


def _offsets(slots: Any, offset: int) -> tuple[int, ...]:
    where = f"the slots of the return address at {offset}"
    try:
        given = tuple(slots)
    except TypeError:
        raise TypeError(
            f"register(): {where} must be offsets in a sequence, got {describe(slots)}"
        ) from None
    return tuple(_integer(slot, f"{where} must be offsets (int)") for slot in given)


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
        maps = (other.lookup(return_address) for other in tuple(_registries.values()))
        found = next((each for each in maps if each is not None), ())
    return found
