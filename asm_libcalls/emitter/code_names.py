"""Names, addresses and call frames of functions in loaded code, for profilers and debuggers.

A loader of code announces a *source*, which lists the functions when it is called. Without a
profiler, debugger or stack walk, this costs one dict entry for each load.
"""

from __future__ import annotations

import os

from asm_libcalls.libcalls import DECLARATIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from asm_libcalls.emitter.address_map import AddressMap

    Function = tuple[int, int, str, bytes | None]
    """Address, size in bytes, name and call frame instructions (``eh_frame.py``). The instructions
    are empty if they are unknown or in a file that the dynamic linker has loaded."""

    Source = Callable[[], Iterable[Function]]
    """Lists functions."""

    class Observer(Protocol):
        """Is notified when code is loaded and unloaded."""

        needs_anonymous_memory: bool
        """Whether names of code in files and memfds are of no use to it."""

        def loaded(self, address: int, source: Source) -> None:
            """Note that code was loaded at an address."""

        def unloaded(self, address: int) -> None:
            """Note that the code at an address is about to be unmapped."""


PERF_VARIABLE, GDB_VARIABLE = "ASM_LIBCALLS_PERF_MAP", "ASM_LIBCALLS_GDB"

sources: dict[int, Source] = {}
"""The announced sources, by the address of their code."""

_traced: list[AddressMap] = []
"""The functions that traces name, sorted, by the address of their code: those of announced code,
and those of :func:`name_in_traces`. Empty until :func:`prepare_traces`."""

_observers: list[Observer] = []

_leaving: dict[Source, int] = {}
"""Withdrawn sources of which some observers may not know, with the addresses of their code."""


def are_asked_for(variable: str) -> bool:
    """Return whether the environment asks for names, from the start of the program."""
    return os.environ.get(variable, "0") not in ("", "0")


def perf_is_wanted() -> bool:
    """Return whether perf is to name code: asked for by the environment or by an observer."""
    return are_asked_for(PERF_VARIABLE) or any(each.needs_anonymous_memory for each in _observers)


def enable_or_warn(enable: Callable[[], object], otherwise: str) -> None:
    """Call a function that the environment asked for; report an error as a RuntimeWarning."""
    try:
        enable()
    except OSError as error:
        import warnings

        warnings.warn(f"{otherwise}: {error}", RuntimeWarning, stacklevel=4)


def announce(address: int, source: Source, in_traces: bool = False) -> None:
    """Tell all observers of the code that was loaded at an address.

    With `in_traces`, :func:`find` names its functions.
    """
    sources[address] = source
    if in_traces:
        functions = sorted((at, size, name) for at, size, name, _ in source())
        prepare_traces()
        _traced[0].put(address, functions)
    for observer in _observers:
        observer.loaded(address, source)


def name_in_traces(address: int, size: int, name: str) -> None:
    """Let :func:`find` name one function, where no announced code has names."""
    prepare_traces()
    _traced[1].put(address, [(address, size, name)])


def prepare_traces() -> None:
    """Import what names in traces need. At interpreter exit nothing can be imported."""
    if not _traced:
        from asm_libcalls.emitter.address_map import AddressMap

        maps = [AddressMap(), AddressMap()]
        if not _traced:  # another thread may have made them
            _traced[:] = maps


def are_traced() -> bool:
    """Return whether :func:`find` has any functions."""
    return any(_traced)


def find_all(return_addresses: tuple[int, ...]) -> Sequence[tuple[str, int] | None]:
    """Return what :func:`find` returns for each return address."""
    if not are_traced():
        return (None,) * len(return_addresses)
    return [find(each) for each in return_addresses]


def find(return_address: int) -> tuple[str, int] | None:
    """Return the function that a call returns to, and the offset of the return address in it.

    None if that is in no function of code that was announced for traces.
    """
    call = return_address - 1  # the call may be the function's last instruction
    for names in _traced:
        for at, size, name in reversed(names.before(call) or ()):
            if at <= call < at + size:
                return name, return_address - at
    return None


def withdraw(address: int) -> None:
    """Remove the source at this address, whose code is about to be unmapped."""
    if _traced:
        _traced[0].remove(address)
    source = sources.get(address)
    if source is not None:
        # First: where a signal handler raises later on, the next call tells the observers.
        _leaving[source] = address
        sources.pop(address, None)
    for each, at in [*_leaving.items()]:
        if sources.get(at) is not each:  # another thread may have just begun
            for observer in _observers:
                observer.unloaded(at)
            _leaving.pop(each, None)


def observe(observer: Observer) -> None:
    """Notify `observer` of all code that is loaded or unloaded from now on; twice is a no-op."""
    if observer not in _observers:
        _observers.append(observer)


def title(name: str) -> str:
    """Return the name of a routine for profilers and debuggers: its C symbol or a prefixed name."""
    declaration = DECLARATIONS.get(name)
    if declaration is not None:
        return declaration.symbol
    return name if name.startswith(("wasm::", "asm_libcalls_", "__")) else f"asm_libcalls::{name}"
