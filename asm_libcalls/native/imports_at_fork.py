"""Imports of other threads during a fork, for which the child would wait for ever.

The package's functions import modules when they first need them. CPython leaves the lock of a
module that another thread was importing taken in the child. The child waits for ever if it needs
that module. So a fork waits until other threads have imported what the package needs. An import can
still begin between that and the fork: the child forgets it, and imports the module again.

``process.py`` registers both functions, and imports this module at the first fork.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from time import monotonic, sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LONGEST_WAIT = 5.0
"""Seconds that a fork waits. The other thread may itself be waiting, for the thread that forks."""

_OWN = __name__.partition(".")[0]
_NEEDED = {_OWN, "numpy", "peachpy", *sys.stdlib_module_names}


def _locks() -> Iterator[tuple[str, int | None]]:
    """Yield the modules that other threads may be importing, and the owners of their locks."""
    # CPython has no public name for these: weak references to the locks in use, by module.
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    for name, reference in [*locks.items()]:
        owner = getattr(reference(), "owner", None)
        if owner != get_ident():
            yield name, owner


def wait() -> None:
    """Wait until other threads have imported what the package needs. Called before a fork."""
    until = monotonic() + LONGEST_WAIT
    # A lock without an owner may be one that the traceback of an error keeps.
    while any(owner and name.partition(".")[0] in _NEEDED for name, owner in _locks()):
        if monotonic() > until:
            return
        sleep(0.0001)


def forget() -> None:
    """Forget what other threads were importing. Called in the child."""
    for name, _ in _locks():
        if name.partition(".")[0] == _OWN:
            sys.modules["_frozen_importlib"]._module_locks.pop(name, None)
            specification = getattr(sys.modules.get(name), "__spec__", None)
            if getattr(specification, "_initializing", False):
                del sys.modules[name]
