"""The programs of tests/programs: their modules, and the calls whose results are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parent / "programs"
CALLS: dict[str, list[dict[str, Any]]] = json.loads(
    (PROGRAMS / "calls.json").read_text(encoding="utf-8")
)


def wasm(name: str) -> bytes:
    """A program's module."""
    return (PROGRAMS / f"{name}.wasm").read_bytes()


def input_of(call: dict[str, Any]) -> bytes:
    """The input of a call in the program's memory."""
    return b"".join(text.encode() * count for text, count in call.get("input", []))


def patterns(call: dict[str, Any]) -> list[int]:
    """A call's arguments as bit patterns."""
    return [int(pattern) for _, pattern in call["arguments"]]
