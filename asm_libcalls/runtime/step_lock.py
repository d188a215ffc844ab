"""The lock that steps of Python and of machine code share, in builds without the GIL.

Steps use a Python lock (``asm_libcalls/steps.py``) until :func:`share` replaces it. That is before
the first address of machine code that counts references is returned.
"""

from __future__ import annotations

from functools import partial
from time import sleep

from asm_libcalls import steps
from asm_libcalls.emitter import libc
from asm_libcalls.x86_64.trampolines import (
    END_STEP,
    LEAVE_STEPS,
    STEP_LOCK,
    STEPS_DEPTH,
    TAKE_STEPS,
)
from asm_libcalls.x86_64.trampolines.lock_layouts import StepLock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage

_PAUSES = (0.0, 0.00005, 0.0002, 0.001)
"""Seconds that a thread sleeps after each attempt; the last item repeats."""


class SharedLock:
    """The lock of all steps, which machine code takes too.

    A signal handler may raise after any call. So a step reads `depth`, takes the lock in a ``try``,
    and leaves in ``finally`` to the depth that it has read. `attempt` returns 1 if it has begun a
    step. `attempt`, `leave`, `depth` and `end` are machine code of
    ``x86_64/trampolines/step_lock.py``, and run no Python code.
    """

    def __init__(self, loaded: LoadedImage) -> None:
        from asm_libcalls.native.native_function import routine_functions

        self.address = libc.malloc_lines(1)  # of the StepLock, never freed: machine code uses it
        signatures = {
            TAKE_STEPS: "(pointer) -> u64",
            LEAVE_STEPS: "(pointer, u64)",
            STEPS_DEPTH: "(pointer) -> u64",
            END_STEP: "(pointer)",
        }
        made = routine_functions(loaded, signatures, __name__)
        self.attempt, self.leave, self.depth, self.end = (
            partial(each, self.address) for each in made
        )

    @property
    def state(self) -> StepLock:
        """The lock in memory."""
        return StepLock.from_address(self.address)

    def take(self) -> None:
        """Begin a step; wait while another thread is in one."""
        for looks, _ in enumerate(iter(self.attempt, 1)):
            self.pause(looks)

    def pause(self, looks: int) -> None:
        """Sleep before the next attempt, longer after more attempts (`looks`)."""
        sleep(_PAUSES[min(looks, len(_PAUSES) - 1)])


def share(loaded: LoadedImage) -> None:
    """Have steps of Python and of the image's machine code exclude each other from now on."""
    if not steps.HAS_GIL and not loaded.slot(STEP_LOCK):
        loaded.set_slot(STEP_LOCK, steps.use(SharedLock(loaded)).address)
