"""Print the cases that became slower between two runs of the benchmark.

    python tools/compare_benchmarks.py BEFORE.json AFTER.json

The files are of ``bench --json``. The exit code is 1 if a case became slower by more than the noise
between two runs of the same code.

Runs are compared by their ratios to peers, which were measured interleaved with ours: a machine
that is slower today is slower for the peers too. Nanoseconds are compared only for a case without a
peer that is in both runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from asm_libcalls.benchmark.results import Results
from asm_libcalls.benchmark.timing import OURS, Spread, Timed

THRESHOLD = 1.10
"""A median that is worse by less than this factor is noise, whatever the quartiles say."""


class Change(NamedTuple):
    """A case that became slower."""

    case: str  # suite, name and size
    against: str  # the peer of the ratio, or "" for nanoseconds
    # `before`, `after`: ours divided by the peer's, or nanoseconds
    before: Spread
    after: Spread

    @property
    def factor(self) -> float:
        """The factor by which it became slower."""
        return self.after.median / self.before.median

    def __str__(self) -> str:
        unit = f"of {self.against}" if self.against else "ns"
        return (
            f"{self.case}: {self.factor:.2f} times as slow: {self.before.median:.3g} {unit} before "
            f"({self.before.low:.3g} to {self.before.high:.3g}), now {self.after.median:.3g} "
            f"({self.after.low:.3g} to {self.after.high:.3g})"
        )


def compare(before: Results, after: Results) -> list[Change]:
    """Return the cases that became slower, the worst first.

    A case became slower where the median did by more than :data:`THRESHOLD` and the quartiles do
    not overlap, and against most of its peers, since a single peer may have become faster itself.
    """
    earlier = {_key(case): case for case in before.cases}
    changes = []
    for case in after.cases:
        known = earlier.get(_key(case))
        if known is None or OURS not in case.figures or OURS not in known.figures:
            continue
        seen = list(_changes(known, case))
        slower = [change for change in seen if _beyond_noise(change)]
        if slower and 2 * len(slower) > len(seen):
            changes.append(max(slower, key=lambda change: change.factor))
    return sorted(changes, key=lambda change: -change.factor)


def _key(case: Timed) -> tuple[str, str, int]:
    return case.suite, case.name, case.size


def _changes(before: Timed, after: Timed) -> Iterator[Change]:
    size = f", {after.size:,}" if after.size else ""
    name = f"{after.suite}: {after.name}{size}"
    # Other ways to call our own code are no peers.
    peers = [
        label for label in after.figures if label in before.figures and not label.startswith(OURS)
    ]
    for label in peers:
        yield Change(name, label, before.figures[label].ratio, after.figures[label].ratio)
    if not peers:
        figures = before.figures[OURS], after.figures[OURS]
        yield Change(name, "", figures[0].nanoseconds, figures[1].nanoseconds)


def _beyond_noise(change: Change) -> bool:
    return change.factor > THRESHOLD and change.after.low > change.before.high


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare two files; return 1 if a case became slower, 2 if a file cannot be read."""
    parser = argparse.ArgumentParser(description="Tell what became slower between two runs.")
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    files = parser.parse_args(arguments)
    try:
        earlier, later = Results.read(files.before), Results.read(files.after)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if earlier.quick or later.quick:
        print("note: a quick run is no measure")
    if earlier.about.get("cpu") != later.about.get("cpu"):
        print(f"note: other CPUs: {earlier.about.get('cpu')}, then {later.about.get('cpu')}")
    changes = compare(earlier, later)
    for change in changes:
        print(change)
    known = set(map(_key, earlier.cases))
    both = sum(_key(case) in known for case in later.cases)
    print(f"{both} cases in both runs, {len(changes)} slower beyond noise")
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main())
