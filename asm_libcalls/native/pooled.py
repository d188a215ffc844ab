"""Items of C memory that are used one after another: taken from a list, and put back into it."""

from __future__ import annotations

from functools import partial

from asm_libcalls.owned.objects import Resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Pooled(Resource):
    """An item of a list, put back by :meth:`close`, or when this object is dropped.

    `make_more` is called where the list is empty, and adds to it. `reset` is called with the item
    before it is put back; it may be called again after an exception.

    No lock is held: a signal handler or a destructor may take items too.
    """

    __slots__ = ("_taken", "address", "close")

    address: int
    """The C address that the item stands for; a subclass sets it."""

    def __init__(
        self,
        free: list[Any],
        make_more: Callable[[], None],
        reset: Callable[[Any], object] = lambda item: None,
    ) -> None:
        self._taken: list[Any] = []
        self.close: Callable[[], None] = partial(_put_back, self._taken, free, reset)
        super().__init__(self.close)
        while not self._taken:
            try:
                # One call of C code: the item is in one of the lists. Threads get different ones.
                self._taken.extend(map(free.pop, (-1,)))
            except IndexError:
                make_more()

    @property
    def item(self) -> Any:
        """The item, until it is put back."""
        return self._taken[0]


def _put_back(taken: list[Any], free: list[Any], reset: Callable[[Any], object]) -> None:
    try:
        reset(taken[0])
        free.extend(map(taken.pop, (-1,)))
    except IndexError:  # it was put back before
        return
