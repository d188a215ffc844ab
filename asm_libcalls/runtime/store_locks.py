"""The routines of a store's lock: those of the loaded image, or the same in Python.

Without machine code, one lock of the process makes each routine atomic, and a thread that waits
checks every millisecond.
"""

from __future__ import annotations

import ctypes
import os
from _thread import allocate_lock, get_ident
from time import monotonic_ns, sleep

from asm_libcalls.emitter import libc
from asm_libcalls.native import process
from asm_libcalls.x86_64.trampolines import LEAVE_STORE, STORE_DEPTH, TAKE_STORE, WAKE_STORE
from asm_libcalls.x86_64.trampolines.lock_layouts import StoreLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_never_free = StoreLock(StoreLock.BITS + 1)
libc.never_free(_never_free)
NEVER_FREE = ctypes.addressof(_never_free)
"""Address of a lock that no thread can take. Closed instances have it, so that machine code leaves
for Python there."""

_SYS_FUTEX = 202  # of x86-64
_FUTEX_WAIT_PRIVATE = 128


class Routines:
    """The routines, found when the first of them is used."""

    # `take`, `leave`, `depth`, `wake`: see `x86_64/trampolines/store_locks.py`
    take: Callable[[int, int], int]
    leave: Callable[[int, int], None]
    depth: Callable[[int], int]
    wake: Callable[[int], None]
    # `wait(address, word, seconds)` waits until a thread calls `wake`, unless the owner word is not
    # `word` any more
    wait: Callable[[int, int, float], None]

    def __getattr__(self, name: str) -> Any:
        if name not in type(self).__annotations__:
            raise AttributeError(name)
        self.find()
        return self.__dict__[name]

    def find(self) -> None:
        """Find them now."""
        found = _in_python() if process.image is None else _in_machine_code()
        # `take` last: a thread that finds it finds the others too.
        for each in ("wait", "wake", "depth", "leave", "take"):
            self.__dict__.setdefault(each, found[each])


def _in_machine_code() -> dict[str, Any]:
    from asm_libcalls.native.native_function import routine_functions

    assert process.image is not None
    signatures = {
        TAKE_STORE: "(pointer, u64) -> u64",
        LEAVE_STORE: "(pointer, u64)",
        STORE_DEPTH: "(pointer) -> u64",
        WAKE_STORE: "(pointer)",
    }
    made = routine_functions(process.image, signatures, __name__)
    found: dict[str, Any] = dict(zip(("take", "leave", "depth", "wake"), made, strict=True))
    number, pointer = ctypes.c_long, ctypes.c_void_p
    futex = libc.prototype("syscall", number, number, pointer, ctypes.c_int, ctypes.c_uint, pointer)

    def wait(address: int, word: int, seconds: float) -> None:
        whole = int(seconds)
        timeout = (ctypes.c_long * 2)(whole, int((seconds - whole) * 1e9))
        futex(_SYS_FUTEX, address, _FUTEX_WAIT_PRIVATE, word, timeout)

    found["wait"] = wait
    return found


def _in_python() -> dict[str, Any]:
    atomic = [allocate_lock()]
    waiting: dict[int, int] = {}  # by address: how many threads

    def renew() -> None:
        atomic[0] = allocate_lock()  # a thread that is not in the child may have held it

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=renew)

    def take(address: int, has_waited: int) -> int:
        lock = StoreLock.from_address(address)
        thread = get_ident()
        with atomic[0]:
            if not lock.thread and (has_waited or not lock.owner & lock.HANDED_OVER):
                lock.owner = thread | (has_waited & lock.WAITED_FOR)
                lock.entered = (1 << 63) - monotonic_ns()  # as a stack grows: downwards
            elif lock.thread != thread:
                lock.owner |= lock.WAITED_FOR | has_waited
                return int(lock.owner & 0xFFFFFFFF)
            lock.depth += 1
            return 0

    def leave(address: int, depth: int) -> None:
        lock = StoreLock.from_address(address)
        with atomic[0]:
            if lock.thread == get_ident() and lock.depth > depth:
                lock.depth = depth
                if depth == 0:
                    handed_over = lock.owner & lock.HANDED_OVER and waiting.get(address)
                    lock.owner = lock.BITS if handed_over else 0

    def count(address: int) -> int:
        lock = StoreLock.from_address(address)
        with atomic[0]:
            return int(lock.depth) if lock.thread == get_ident() else 0

    def wake(address: int) -> None:
        pass

    def wait(address: int, word: int, seconds: float) -> None:
        with atomic[0]:
            waiting[address] = waiting.get(address, 0) + 1
        try:
            sleep(0.001)
        finally:
            with atomic[0]:
                waiting[address] -= 1
                if not waiting[address]:
                    del waiting[address]

    return {"take": take, "leave": leave, "depth": count, "wake": wake, "wait": wait}
