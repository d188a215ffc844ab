"""Keeps the functions of loaded code registered with an unwinder or a debugger.

Code is loaded and unloaded in any thread, and unloaded also by the garbage collector at any
allocation. So an unload only queues its registration, and the holder of the lock removes it.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from asm_libcalls.emitter import code_names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.code_names import Source

__all__ = ["Registry"]


class Registry:
    """Keeps an external registration (unwinder, gdb) for each loaded piece of code."""

    needs_anonymous_memory = False

    def __init__(self) -> None:
        self._registered: dict[int, int] = {}
        self._gone: list[int] = []
        self._lock = allocate_lock()

    def register(self, functions: list[tuple[int, int, str, bytes]]) -> int:
        """Register functions; return a token for :meth:`unregister`."""
        raise NotImplementedError

    def unregister(self, token: int) -> None:
        """Remove the registration with this token."""
        raise NotImplementedError

    def observe(self) -> None:
        """Register all loaded code, and all code that is loaded from now on."""
        code_names.observe(self)
        os.register_at_fork(after_in_child=self._forget_other_threads)
        for address, source in list(code_names.sources.items()):
            self.loaded(address, source)

    def loaded(self, address: int, source: Source) -> None:
        """Register the functions whose frames are known."""
        functions = [
            (at, size, name, frames) for at, size, name, frames in source() if frames is not None
        ]
        if not functions:
            return
        with self._lock:
            self._unregister_gone()
            # Other threads load and unload meanwhile.
            if code_names.sources.get(address) is source and address not in self._registered:
                self._registered[address] = self.register(functions)
        self._settle()

    def unloaded(self, address: int) -> None:
        """Remove the registration of the code at this address."""
        self._gone.append(address)
        self._settle()

    def _settle(self) -> None:
        # If the lock is taken, its holder does this. The holder may be this very thread: the
        # garbage collector can run anywhere above and unload a module.
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._unregister_gone()
            finally:
                self._lock.release()

    def _unregister_gone(self) -> None:
        while self._gone:
            token = self._registered.pop(self._gone.pop(), None)
            if token is not None:
                self.unregister(token)

    def _forget_other_threads(self) -> None:
        self._lock = allocate_lock()
