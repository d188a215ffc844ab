"""Which function lies where in the code that was loaded: for profilers, who know only addresses.

Whoever loads code announces a *source*, which lists its functions when asked: as long as nobody
profiles, that costs one dict entry for each load.
"""

from __future__ import annotations

import os

from asm_libcalls.libcalls import DECLARATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Source = Callable[[], Iterable[tuple[int, int, str]]]
    """Lists functions: the address, the size in bytes, the name."""

__all__ = ["announce", "are_asked_for", "observe", "sources", "title", "withdraw"]

ENVIRONMENT_VARIABLE = "ASM_LIBCALLS_PERF_MAP"

sources: dict[int, Source] = {}
"""What was announced and not withdrawn, by the address of its code."""

_observers: list[Callable[[Source], None]] = []


def are_asked_for() -> bool:
    """Return whether the environment asks for a perf map, from the start of the program."""
    return os.environ.get(ENVIRONMENT_VARIABLE, "0") not in ("", "0")


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


def title(name: str) -> str:
    """Return what profilers and debuggers call a routine: a libcall's symbol, or whose it is."""
    declaration = DECLARATIONS.get(name)
    if declaration is not None:
        return declaration.symbol
    return name if name.startswith(("wasm::", "asm_libcalls_")) else f"asm_libcalls::{name}"
