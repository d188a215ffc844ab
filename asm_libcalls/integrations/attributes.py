"""LLVM's attributes of functions whose result depends on their arguments alone.

Source: LLVM Language Reference, "Function Attributes".
"""

from __future__ import annotations

import llvmlite.ir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class _Attributes(llvmlite.ir.values.FunctionAttributes):  # type: ignore[misc]
    """The attributes of a function, with those that ``llvmlite.ir`` does not list."""

    _known = frozenset(
        [*llvmlite.ir.values.FunctionAttributes._known, "speculatable", "willreturn"]
    )


def declare_pure(function: Any, *, is_total: bool) -> None:
    """Declare that an ``llvmlite.ir.Function`` returns, and has no effect but its result.

    LLVM may then merge calls with the same arguments, and remove calls without a use. A total
    function returns for all arguments. LLVM may then call it where the program would not, for
    example before a loop without an iteration.
    """
    attributes = _Attributes(set(function.attributes))
    for attribute in ("nounwind", "readnone", "willreturn"):
        attributes.add(attribute)
    if is_total:
        attributes.add("speculatable")
    function.attributes = attributes
