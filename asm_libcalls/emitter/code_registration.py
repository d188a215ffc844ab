"""Keeps the functions of loaded code registered with an unwinder or a debugger.

Code is loaded and unloaded in any thread, in signal handlers, and unloaded also by the garbage
collector at any allocation. So both are queued, and the holder of the lock does what is queued. A
thread waits for another holder before it runs new code, but never for itself.

A signal handler may raise at each call. So what is queued stays queued until it is done, and to do
it again changes nothing.
"""

from __future__ import annotations

import os
from _thread import RLock

from asm_libcalls.emitter import code_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.emitter.code_names import Source


_PATIENCE = 5.0
"""Seconds to wait for another thread, which needs far less; later ones are registered late."""


class Registry:
    """Keeps an external registration (unwinder, gdb) for each loaded piece of code."""

    needs_anonymous_memory = False

    def __init__(self) -> None:
        self._registered: dict[int, int] = {}
        """Tokens of a subclass, by the address of the code."""

        self._sources: dict[int, Source] = {}
        """What is registered at these addresses, or was."""

        self._is_observing = False
        self._is_busy = False
        self._gone: list[int] = []
        self._coming: list[tuple[int, Source, list[tuple[int, int, str, bytes]]]] = []
        self._tried: tuple[int, Source, list[tuple[int, int, str, bytes]]] | None = None
        self._lock = RLock()

    def register(self, address: int, functions: list[tuple[int, int, str, bytes]]) -> None:
        """Register functions, and put a token into :attr:`_registered` in the same step."""
        raise NotImplementedError

    def unregister(self, address: int) -> None:
        """Remove a registration, and its token in the same step."""
        raise NotImplementedError

    def observe(self) -> None:
        """Register all loaded code, and all code that is loaded from now on.

        Called again, it does what an exception prevented.
        """
        if self._is_observing:
            return
        code_names.observe(self)
        os.register_at_fork(after_in_child=self._forget_other_threads)
        for address, source in list(code_names.sources.items()):
            self.loaded(address, source)
        self._is_observing = True

    def loaded(self, address: int, source: Source) -> None:
        """Register the functions whose frames are known."""
        functions = [
            (at, size, name, frames) for at, size, name, frames in source() if frames is not None
        ]
        if functions:
            self._coming.append((address, source, functions))
            self._settle(waiting=True)

    def unloaded(self, address: int) -> None:
        """Remove the registration of the code at this address."""
        self._gone.append(address)
        self._settle(waiting=False)

    def _settle(self, waiting: bool) -> None:
        """Do what is queued, unless the holder of the lock does it."""
        lock: Any = self._lock
        try:
            while self._gone or self._coming:
                if lock._is_owned():
                    # This is a signal handler or the garbage collector, in the middle of the
                    # holder. A busy holder does the rest itself. Otherwise it has just begun or
                    # ended, or an exception of a signal handler ended it: this does its work.
                    if self._is_busy:
                        return
                elif not lock.acquire(timeout=_PATIENCE if waiting else 0):
                    return
                try:
                    self._is_busy = True
                    if lock._is_owned():
                        self._do_queued()
                finally:
                    self._is_busy = False
                    _release(lock)
        finally:
            if not self._is_busy:
                _release(lock)

    def _do_queued(self) -> None:
        while self._gone or self._coming:
            # Other threads load and unload meanwhile, and add to the lists.
            if self._gone:
                address = self._gone[0]
                is_old = code_names.sources.get(address) is not self._sources.get(address)
                if is_old and address in self._registered:
                    self.unregister(address)
                    self._sources.pop(address, None)
                del self._gone[0]
                continue
            tried, self._tried = self._tried, self._coming[0]
            is_second = tried is self._tried  # and the last: the error may be in the functions
            if is_second:
                del self._coming[0]
            address, source, functions = self._tried
            if code_names.sources.get(address) is source and address not in self._registered:
                self._sources[address] = source
                self.register(address, functions)
            if not is_second:
                del self._coming[0]

    def _forget_other_threads(self) -> None:
        lock: Any = self._lock
        if not lock._is_owned():
            self._lock = RLock()
            self._is_busy = False


def _release(lock: Any) -> None:
    """Release the lock, if this thread has it."""
    try:
        if lock._is_owned():
            lock.release()
    except RuntimeError:  # a signal handler has done it in between
        return
