"""Call: one call of the guest, with its memory, its descriptors, and its interrupts."""

from __future__ import annotations

import select

from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.wasi.nonblocking import SLICE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance
    from asm_libcalls.toy_jit.wasi.descriptors import DescriptorTable
    from asm_libcalls.toy_jit.wasi.guest_memory import GuestMemory

    CallTable = dict[str, tuple[Callable[..., None], str]]


class Call:
    """One call."""

    __slots__ = ("_runtime", "descriptors", "memory", "system")

    def __init__(
        self,
        runtime: CompiledInstance | None,
        memory: GuestMemory,
        descriptors: DescriptorTable,
        system: Any,
    ) -> None:
        self._runtime = runtime
        self.memory = memory
        self.descriptors = descriptors
        self.system = system  # has the program's arguments and environment

    def check(self) -> None:
        """Raise Interrupt if the calling instance must trap, or its time limit has expired."""
        if self._runtime is not None and not self._runtime.closed:
            interrupts.interrupted(self._runtime.vmctx)

    def wait(self, interests: Mapping[int, int], seconds: float | None) -> dict[int, int]:
        """Wait until a file descriptor of the host is ready, or the time is up; return the events.

        `interests` are the events (``select.POLLIN``, ``POLLOUT``) by file descriptor. `seconds` is
        at most :data:`SLICE`; None waits until an event comes, without a limit.
        """
        poll = select.poll()
        for fd, events in interests.items():
            poll.register(fd, events)
        if seconds is not None:
            return dict(poll.poll(min(seconds, SLICE) * 1000))
        while True:
            ready = poll.poll(SLICE * 1000)
            if ready:
                return dict(ready)
            self.check()
