"""The references that an activations table holds, to compare counts with."""

from __future__ import annotations

from asm_libcalls.runtime.activations_table import VMExternRefActivationsTable


def held_by(table: VMExternRefActivationsTable) -> list[int]:
    """Return the address of each entry, repetitions in the chunk included."""
    return [
        *table._chunk[: table._filled()],
        *table._over_approximated,
        *table._examined,
    ]
