"""The numeric libcalls, which code without a VMContext can call."""

from __future__ import annotations

from asm_libcalls.libcalls import DECLARATIONS

NUMERIC = tuple(
    name
    for name, declaration in DECLARATIONS.items()
    if all(t.kind != "pointer" for t in declaration.signature.parameters)
)
"""Their names, in the table's order."""
