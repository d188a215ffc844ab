"""Release externrefs that compiled code no longer uses, before Python's garbage collector runs.

An externref that compiled code has read, or got from a host function, stays in the activations
table of its instance after the call. Python's collector cannot see that only the table refers to
it. So an object that refers to the instance would never be freed. A callback of the collector
empties the activations tables first, if no native code runs that could use their externrefs.
"""

from __future__ import annotations

import gc
import sys
from weakref import WeakValueDictionary

from asm_libcalls.native import process
from asm_libcalls.owned import raise_first
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.runtime.releasing import may_be_running
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.runtime.watcher import thread_states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_OLDEST = 0 if not HAS_GIL else 1 if sys.version_info[:2] == (3, 14) else 2
"""The lowest generation whose collections see old objects. Without a GIL all collections do. The
automatic collections of 3.14.0 are of generation 1, and see some old objects each time."""

_instances: WeakValueDictionary[int, Instance] = WeakValueDictionary()
"""By id."""


def collect_with_python(instance: Instance) -> None:
    """Empty the activations table of an instance at each collection that sees old objects.

    The instance's users must not have raw externref pointers: pointers that Python code has
    inserted into the table for a later call do not survive.
    """
    _instances[id(instance)] = instance
    if _collect not in gc.callbacks:
        gc.callbacks.append(_collect)


def _collect(
    phase: str,
    information: dict[str, Any],
    is_finalizing: Callable[[], bool] = sys.is_finalizing,
) -> None:
    """Empty the tables; a callback of the collector."""
    if phase != "start" or information["generation"] < _OLDEST or is_finalizing():
        return
    # The references are a list: other threads change the mapping meanwhile.
    instances = [reference() for reference in _instances.valuerefs()]
    filled = [each for each in instances if each is not None and len(each.activations_table)]
    errors: list[BaseException] = []
    for instance in filled:
        # Checked each time, because a destructor may start a thread.
        if _others_may_run() or may_be_running():
            break
        try:
            instance.activations_table.gc(instance.stack_map_registry)
        except BaseException as error:
            errors.append(error)
    raise_first(errors)  # the collector prints it


def _others_may_run() -> bool:
    """Return whether other threads may run Python, those of C libraries included."""
    if process.may_run_elsewhere():
        return True
    # Threads of C libraries are not counted by Python, but have thread states. (With a GIL the list
    # does not change here. Without one it is exact if this thread is the only one.)
    states = sum(1 for _ in thread_states())
    return states > 1 + sum(count() for count in process.own_threads)
