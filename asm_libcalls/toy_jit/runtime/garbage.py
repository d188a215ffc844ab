"""Python's garbage collector, and the externrefs that compiled code has let go.

What a function was given stays in the activations table of its instance when the function has
returned. Python's collector does not see that nothing else refers to it: an object that has its
instance, and has passed itself to a function, would live for ever. So when the collector begins,
the activations tables are emptied first, if no native code runs that could use what is in them.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import weakref

from asm_libcalls.native import process
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.runtime.releasing import may_be_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["collect_with_python"]

_OLDEST = 0 if "t" in sys.abiflags else 1 if sys.version_info[:2] == (3, 14) else 2
"""The generation of a collection that sees old objects. Without a GIL each one does. 3.14.0 looks
at some of them each time, and has no others by itself."""

_STATE = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
_interpreter = ctypes.PYFUNCTYPE(ctypes.c_void_p)(("PyInterpreterState_Get", ctypes.pythonapi))
_first_state = _STATE(("PyInterpreterState_ThreadHead", ctypes.pythonapi))
_next_state = _STATE(("PyThreadState_Next", ctypes.pythonapi))

_instances: weakref.WeakSet[Instance] = weakref.WeakSet()


def collect_with_python(instance: Instance) -> None:
    """Empty the activations table of an instance whenever Python's collector looks at all objects.

    This is for instances whose users have no pointers of externrefs: what Python code has inserted
    into the table for a call that it is going to make does not survive.
    """
    _instances.add(instance)
    if _collect not in gc.callbacks:
        gc.callbacks.append(_collect)


def _collect(
    phase: str,
    information: dict[str, Any],
    is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """Be called by the collector."""
    if phase != "start" or information["generation"] < _OLDEST or is_finalizing():
        return
    filled = [each for each in _instances if len(each.activations_table)]
    errors: list[BaseException] = []
    for instance in filled:
        # Asked each time: a destructor may start a thread.
        if _others_may_run() or may_be_running():
            break
        try:
            instance.activations_table.gc(instance.stack_map_registry)
        except BaseException as error:
            errors.append(error)
    if errors:
        try:
            raise errors[0]  # Python prints it
        finally:
            errors.clear()


def _others_may_run() -> bool:
    """Return whether there are other threads that run Python, those of C libraries included."""
    if process.may_run_elsewhere():
        return True
    # What a C library started, Python has not counted. (With a GIL the list stays as it is here;
    # without one it is right where there is one thread, and no more is asked of it.)
    states = 0
    state = _first_state(_interpreter())
    while state:
        states += 1
        state = _next_state(state)
    return states > 1 + sum(count() for count in process.own_threads)
