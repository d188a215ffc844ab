"""State of the process: the loaded image, the default native interface, the observers of traps.

A process may have several bindings. Machine code is loaded once: all bindings share one image, one
pthread key, and one list of activations for each thread. The binding module and native/interface.py
set the variables; the modules that the binding imports read them.
"""

from __future__ import annotations

import os
from _thread import _count, get_ident

from asm_libcalls.steps import HAS_GIL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    from asm_libcalls.activation import Departure, ThreadRecord
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.native.pooled import Pooled
    from asm_libcalls.signatures import Signature
    from asm_libcalls.traps import Trap

    class Entry(Protocol):
        """Calls C functions for Python."""

        def call(self, address: int, signature: Signature, patterns: Any) -> int:
            """Call a C address with bit patterns; return the result's pattern or raise."""

    class MachineCodeEntry(Entry, Protocol):
        """An entry that keeps a list of activations for each thread."""

        def record(self) -> ThreadRecord | None:
            """Return the record of this thread; None if it has never entered native code."""

        def take_trace(self) -> tuple[int, ...]:
            """Return the return addresses of the frames that this thread unwound last, once."""

        def newest_departure(self, owner: int) -> Departure | None:
            """Return this thread's newest departure, of one owner unless that is 0."""

        def raise_at_return(self, exception: BaseException) -> bool:
            """Let the innermost activation raise an exception; return whether there is one."""

        def departures(self) -> Iterator[Departure] | None:
            """Iterate over this thread's departures, newest first; None if one is not known."""

    class NativeInterface(Protocol):
        """Calls from Python to native code, and from native code to Python."""

        @property
        def entry(self) -> Entry | None:
            """The entry into native code; None where ctypes is missing."""

        def entry_holding_gil(self) -> Entry:
            """Return an entry whose callees run with the GIL."""

        def thunk(self, function: Callable[..., Any], signature: Signature, bits: bool) -> Pooled:
            """Return a C address that calls a Python function, until it is closed."""

        def function_objects(self) -> Any:
            """Return what makes builtins of code, or a text that says why there are none."""

        def function_maker(self) -> Any:
            """Return the maker of builtins, or a text that says why there is none."""


if not HAS_GIL:
    # First: functions that later modules register for a child of fork use such objects.
    from asm_libcalls.native import object_locks

    object_locks.free_after_forks()

image: LoadedImage | None = None
"""The image with the runtime's own routines (entry, thunks, builtins); None until it is loaded."""

machine_entry: MachineCodeEntry | None = None
"""The entry into native code through that image."""

interface: NativeInterface
"""The default binding's interface, for ``catch_traps``, ``native_function``, ``HostFunction``; set
while the package is imported."""

builtin_addresses: Callable[[], list[int]] | None = None
"""Returns the addresses of the default binding's libcalls for a VMContext's builtin array."""

trap_observers: list[Callable[[tuple[int, ...]], Callable[[Trap], object] | None]] = []
"""Called with the trace of each trap before it is raised. The result, if any, adds the meaning of a
JIT's addresses to the exception. It is called when the trap is first looked at."""


def _at_fork(name: str) -> None:
    try:
        from asm_libcalls.native import imports_at_fork
    except ImportError:  # a finalizer at interpreter exit, where nothing can be imported
        return
    getattr(imports_at_fork, name)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lambda: _at_fork("wait"), after_in_child=lambda: _at_fork("forget"))


own_threads: list[Callable[[], int]] = []
"""Each returns how many threads of one kind this library runs; they never enter native code."""

own_idents: set[int] = set()
"""Those of these threads that run."""


def may_run_elsewhere() -> bool:
    """Return whether other threads exist, which may be running native code."""
    # In one of these threads, a garbage collection or a finalizer asks.
    return get_ident() in own_idents or _count() > sum(count() for count in own_threads)


_finders: list[Callable[[tuple[int, ...]], Callable[[Trap], object]]] = []
"""One function, once it is imported: ``backtraces.found``."""


def tell_observers(trap: Trap, trace: tuple[int, ...]) -> None:
    """Give a trap its trace, and what describes it: the names of functions, and the observers'.

    What the addresses mean is found at once, because the code may be freed. The text is made only
    when the trap is looked at.
    """
    if not _finders:
        try:
            from asm_libcalls.native.backtraces import found
        except ImportError:  # a finalizer at interpreter exit, where nothing can be imported
            trap.trace = trace
            return
        _finders.append(found)
    describe: list[Callable[[Trap], object]] = [_finders[0](trace)]
    for observe in trap_observers:
        description = observe(trace)
        if description is not None:
            describe.append(description)
    trap._describe = tuple(describe)
