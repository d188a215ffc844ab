"""Finds the file of each libcall family that has machine code, and what it needs of the CPU.

A family's file yields its routines (``routines``). It may declare the CPU features that it needs
(``REQUIRES``) and the stencils that test arguments for traps (``GUARDS``). It imports PeachPy only
in functions, because these declarations are read without PeachPy when an image has the routines.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.libcalls import Declaration


def module_of(declaration: Declaration) -> ModuleType | None:
    """Return the module of a libcall's family; None if it has none."""
    name = declaration.module("x86_64")
    try:
        __import__(name)  # importing importlib takes longer
        return sys.modules[name]
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def why_not(declaration: Declaration, features: frozenset[str]) -> str:
    """Return why a CPU with these features cannot run a libcall's family; "" if it can."""
    missing = _requires(module_of(declaration)) - features
    return f"the CPU lacks {', '.join(sorted(missing))}" if missing else ""


def guard_of(declaration: Declaration) -> str:
    """Return the stencil that tests a libcall's arguments for a trap beforehand, or ""."""
    module = module_of(declaration)
    guards: dict[str, str] = getattr(module, "GUARDS", {})
    return guards.get(declaration.name, "")


def routines(table: Iterable[Declaration], features: frozenset[str]) -> Iterator[Routine]:
    """Assemble the libcalls of a table that a CPU with these features can run."""
    families = {declaration.module("x86_64"): declaration for declaration in table}
    for declaration in families.values():
        module = module_of(declaration)
        if module is not None and features >= _requires(module):
            yield from module.routines(features)


def _requires(module: ModuleType | None) -> frozenset[str]:
    needed: frozenset[str] = getattr(module, "REQUIRES", frozenset())
    return needed
