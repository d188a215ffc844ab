"""Importing the package again: its modules are initialised once a process, as C extensions are.

Machine code and its function objects exist until the process ends. A program that deletes the
package from ``sys.modules`` and imports it again would have them twice.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def adopt(package: ModuleType, earlier: ModuleType) -> None:
    """Give a package that is being imported the modules of an earlier import.

    It does nothing if they differ: other files, changed files, or another ``ASM_LIBCALLS_BACKEND``.
    """
    backend = os.environ.get("ASM_LIBCALLS_BACKEND") or "auto"
    if (
        earlier is not package
        and earlier.__path__ == package.__path__
        and earlier._binding.requested == backend
        and _newest(package.__path__[0]) < earlier._imported
    ):
        _take_modules(earlier, package, package.__name__)


def _take_modules(earlier: ModuleType, package: ModuleType, name: str) -> None:
    for attribute, module in list(vars(earlier).items()):
        inner = f"{name}.{attribute}"
        if isinstance(module, type(sys)) and module.__name__ == inner and inner not in sys.modules:
            sys.modules[inner] = module
            setattr(package, attribute, module)
            _take_modules(module, module, inner)


def _newest(folder: str) -> float:
    """Return the latest modification time of the sources in a folder and its subfolders."""
    newest = 0.0
    for path, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".py"):
                newest = max(newest, os.stat(f"{path}/{name}").st_mtime)  # noqa: PTH116
    return newest
