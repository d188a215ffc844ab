"""A whole run: the suites, their report, and what became slower between two of them."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any

from asm_libcalls.benchmark.peers import Notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asm_libcalls.benchmark.timing import Comparison

    Suite = Callable[[Notes, bool], Iterator[Comparison]]

__all__ = ["SUITES", "run", "slower"]

SUITES = ("python", "native", "memory", "arrays", "starts", "toy_jit")

_NOTICEABLE = 1.1
"""A ratio that grew by less is noise, whatever the quartiles say."""


def _suites() -> dict[str, Suite]:
    from asm_libcalls.benchmark import arrays, calls, memory, starts, toy_jit

    found: tuple[Suite, ...] = (
        calls.python, calls.native, memory.memory, arrays.arrays, starts.starts, toy_jit.toy_jit
    )  # fmt: skip
    return dict(zip(SUITES, found, strict=True))


def run(names: Sequence[str], quick: bool, tell: Callable[[Comparison], None]) -> dict[str, Any]:
    """Run suites and return the report, of plain values.

    Parameters
    ----------
    names : sequence of str
        Out of :data:`SUITES`.
    quick : bool
        Fewer sizes and rounds: to see that it works, not to quote.
    tell : callable
        Called with each comparison when it is done.
    """
    from asm_libcalls import backend_report

    notes = Notes()
    suites = _suites()
    comparisons = []
    for name in names:
        for comparison in suites[name](notes, quick):
            tell(comparison)
            plain = comparison._asdict()
            plain["peers"] = {p: figure._asdict() for p, figure in comparison.peers.items()}
            comparisons.append(plain)
    report = backend_report()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": report["python"],
        "cpu": report.get("cpu", platform.machine()),
        "quick": quick,
        "comparisons": comparisons,
        "notes": list(notes),
    }


def slower(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Say what became slower from one report to another, a line each.

    A ratio against a peer counts when its lower quartile is above the upper one of before, and
    its median at least a tenth larger.
    """
    old = {
        (c["suite"], c["name"], peer): figure
        for c in before["comparisons"]
        for peer, figure in c["peers"].items()
    }
    lines = []
    for comparison in after["comparisons"]:
        for peer, new in comparison["peers"].items():
            was = old.get((comparison["suite"], comparison["name"], peer))
            if was is None:
                continue
            if new["low"] > was["high"] and new["ratio"] > _NOTICEABLE * was["ratio"]:
                lines.append(
                    f"{comparison['suite']}: {comparison['name']} / {peer}: "
                    f"{was['ratio']:.2f} became {new['ratio']:.2f}"
                )
    return lines
