"""Which function lies where in the code that was loaded: for profilers, who know only addresses.

Whoever loads code announces a *source*, which lists its functions when asked: as long as nobody
profiles, that costs one dict entry for each load.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Source = Callable[[], Iterable[tuple[int, int, str]]]
    """Lists functions: the address, the size in bytes, the name."""

__all__ = ["announce", "observe", "sources", "withdraw"]

sources: dict[int, Source] = {}
"""What was announced and not withdrawn, by the address of its code."""

_observers: list[Callable[[Source], None]] = []


def announce(address: int, source: Source) -> None:
    """Tell all observers of the code that was loaded at an address."""
    sources[address] = source
    for observer in _observers:
        observer(source)


def withdraw(address: int) -> None:
    """Take back what was announced: the code at this address is gone."""
    sources.pop(address, None)


def observe(observer: Callable[[Source], None]) -> None:
    """Call `observer` with every source that is announced from now on."""
    _observers.append(observer)
