"""The families of libcalls that are machine code: the rows of a table, and a file here for each.

A family's file yields its routines (``routines``) and may say what it needs of the CPU
(``REQUIRES``) and how a trap is seen coming (``GUARDS``). It imports PeachPy in functions alone,
because what it says is asked for where an image has its routines and PeachPy is not there.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import ModuleType

    from asm_libcalls.emitter.image import Routine
    from asm_libcalls.libcalls import Declaration

__all__ = ["guard_of", "module_of", "routines", "why_not"]


def module_of(declaration: Declaration) -> ModuleType | None:
    """Return the file of a libcall's family; None where it has none."""
    from importlib import import_module

    name = declaration.module("x86_64")
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return None


def why_not(declaration: Declaration, features: frozenset[str]) -> str:
    """Return why a CPU with these features can not run a libcall's family; "" where it can."""
    missing = _requires(module_of(declaration)) - features
    return f"the CPU lacks {', '.join(sorted(missing))}" if missing else ""


def guard_of(declaration: Declaration) -> str:
    """Return the stencil by which a function sees the traps of a libcall coming, or ""."""
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
