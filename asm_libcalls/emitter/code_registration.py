"""Functions of code that is loaded, registered with somebody else: an unwinder, a debugger.

Code comes and goes in any thread, and also while the garbage collector runs in the middle of
something; so what is gone is taken back by whoever has the lock.
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
    """Has something registered elsewhere for each piece of code, as long as that is there."""

    def __init__(self) -> None:
        self._registered: dict[int, int] = {}
        self._gone: list[int] = []
        self._lock = allocate_lock()

    def register(self, functions: list[tuple[int, int, str, bytes]]) -> int:
        """Register functions; return what :meth:`unregister` needs to take it back."""
        raise NotImplementedError

    def unregister(self, token: int) -> None:
        """Take back what was registered."""
        raise NotImplementedError

    def observe(self) -> None:
        """Register all code that is loaded, and from now on what is loaded."""
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
        """Take back what was registered."""
        self._gone.append(address)
        self._settle()

    def _settle(self) -> None:
        # Whoever has the lock does this in our place. It may be this very thread: the garbage
        # collector, which can start anywhere above, may find a module that nobody needs any more.
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
