"""Which function lies where in loaded code: for profilers and debuggers, who know only addresses.

Whoever loads code announces a *source*, which lists its functions when asked: as long as nobody
profiles, debugs or walks the stack, that costs one dict entry for each load.
"""

from __future__ import annotations

import os

from asm_libcalls.libcalls import DECLARATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    Function = tuple[int, int, str, bytes | None]
    """The address, the size in bytes, the name, and the call frame instructions (``eh_frame.py``),
    if they are known and not in a file that the dynamic linker has loaded."""

    Source = Callable[[], Iterable[Function]]
    """Lists functions."""

    class Observer(Protocol):
        """Is told what code there is."""

        def loaded(self, address: int, source: Source) -> None:
            """Be told of code that was loaded at an address."""

        def unloaded(self, address: int) -> None:
            """Be told that the code at an address is about to go."""


__all__ = [
    "GDB_VARIABLE",
    "PERF_VARIABLE",
    "announce",
    "are_asked_for",
    "enable_or_warn",
    "observe",
    "printable",
    "sources",
    "title",
    "withdraw",
]

PERF_VARIABLE, GDB_VARIABLE = "ASM_LIBCALLS_PERF_MAP", "ASM_LIBCALLS_GDB"

sources: dict[int, Source] = {}
"""What was announced and not withdrawn, by the address of its code."""

_observers: list[Observer] = []


def are_asked_for(variable: str) -> bool:
    """Return whether the environment asks for names, from the start of the program."""
    return os.environ.get(variable, "0") not in ("", "0")


def enable_or_warn(enable: Callable[[], object], otherwise: str) -> None:
    """Call a function for a program that did not ask: what goes wrong is a RuntimeWarning."""
    try:
        enable()
    except OSError as error:
        import warnings

        warnings.warn(f"{otherwise}: {error}", RuntimeWarning, stacklevel=4)


def printable(name: str) -> str:
    """Return a name without what would end a line, or can not be encoded: spaces stand there."""
    return "".join(c if c.isprintable() else " " for c in name)


def announce(address: int, source: Source) -> None:
    """Tell all observers of the code that was loaded at an address."""
    sources[address] = source
    for observer in _observers:
        observer.loaded(address, source)


def withdraw(address: int) -> None:
    """Take back what was announced: the code at this address is about to go."""
    if sources.pop(address, None) is not None:
        for observer in _observers:
            observer.unloaded(address)


def observe(observer: Observer) -> None:
    """Tell `observer` of the code that is loaded from now on."""
    _observers.append(observer)


def title(name: str) -> str:
    """Return what profilers and debuggers call a routine: a libcall's symbol, or whose it is."""
    declaration = DECLARATIONS.get(name)
    if declaration is not None:
        return declaration.symbol
    return name if name.startswith(("wasm::", "asm_libcalls_", "__")) else f"asm_libcalls::{name}"
