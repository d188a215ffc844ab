"""References in transit: between Python and native code, in no frame that a collection walks.

A signal handler may collect at any moment, also between the return of native code and the
conversion of its results, or after a host function has chosen its result. A reference in transit is
a root then, like those that native frames hold. The addresses in an array or list are in transit
until the key from :func:`begin` is deleted. The result of a host function is in transit until the
departure from native code ends.
"""

from __future__ import annotations

from asm_libcalls.native import greenlets
from asm_libcalls.runtime import externref_boxes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping
    from typing import Any

_words: dict[int, dict[int, tuple[greenlets.Place | None, Iterable[int]]]] = {}
"""By thread (its record's address, 0 before it has one), and by the id of the list or array: the
place of the departure that keeps it here, or None, and the list."""

_MOST_RETURNED = 32
"""The number of a thread's lists from which on those of ended departures are removed."""


def begin(words: Iterable[int]) -> tuple[MutableMapping[int, Any], int]:
    """Put an array or list of addresses in transit; return a mapping and the key to delete from it.

    The addresses are roots until the key is deleted. Other numbers in the list are ignored.
    """
    lists = _words.setdefault(greenlets.thread(), {})
    key = id(words)
    lists[key] = None, words  # a signal handler raises before this, or in the caller's try
    return lists, key


def returns(addresses: list[int]) -> None:
    """Put addresses in transit that the running host function returns to native code."""
    place = greenlets.position()
    if not place[2]:
        return  # called by Python
    lists = _words.setdefault(place[0], {})
    if len(lists) > _MOST_RETURNED:
        for key, (other, _) in [*lists.items()]:
            if other is not None and greenlets.is_over(other):
                lists.pop(key, None)
    lists[id(addresses)] = place, addresses


def arrived(address: int) -> None:
    """End the transit of an address that a libcall returned to Python instead of native code."""
    place = greenlets.position()
    lists = _words.get(place[0], {})
    for key, (other, words) in [*lists.items()]:
        if other == place and words == [address]:
            lists.pop(key, None)
            return


def roots() -> set[int]:
    """Return the addresses in transit between Python and native code of this thread."""
    found: set[int] = set()
    for thread in {0, greenlets.thread()}:
        for place, words in [*_words.get(thread, {}).values()]:
            if place is None or not greenlets.is_over(place):
                found.update(words)
    return {address for address in found if externref_boxes.is_live(address)}
