"""The edge tables in a guest: another CPU, or another kind of machine, under qemu-user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import edge_tables
from child_process import TESTS, run_program


def run_guest(command: Sequence[str], **variables: str) -> dict[str, Any]:
    """Run ``guest.py`` and check what does not depend on the machine; return what it printed."""
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    done = run_program(*command, TESTS / "guest.py", variables=variables)
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert verdict["failures"] == []
    assert verdict["cases"] == len(edge_tables.all_rows())
    return verdict
