"""The edge tables in a guest: another CPU, or another kind of machine, under qemu-user."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

import edge_tables
from child_process import TESTS, environment

TIMEOUT = 300  # seconds; a guest takes two or three


def run_guest(command: Sequence[str], **variables: str) -> dict[str, Any]:
    """Run ``guest.py`` and check what does not depend on the machine; return what it printed."""
    done = subprocess.run(
        [*command, str(TESTS / "guest.py")],
        env=environment(PYTHONDONTWRITEBYTECODE="1", **variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, f"the guest ended with {done.returncode}\n{done.stderr}"
    verdict: dict[str, Any] = json.loads(done.stdout)
    assert verdict["failures"] == []
    assert verdict["cases"] == len(edge_tables.all_rows())
    return verdict
