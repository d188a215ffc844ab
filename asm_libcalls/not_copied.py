"""What stands for something at a C address is not copied: two would release it, and it once."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["NotCopied"]


class NotCopied:
    """Base class of what :mod:`copy` and :mod:`pickle` must leave alone; they raise TypeError."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} objects can not be copied or pickled: "
            "each stands for a C address"
        )
