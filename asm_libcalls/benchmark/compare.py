"""Two runs: what became slower, beyond what two runs of the same code differ by.

Runs are compared by their ratios to peers, which were measured interleaved with ours: a machine
that is slower today is slower for the peers too. Only where a case has no peer that both runs know
are nanoseconds compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from asm_libcalls.benchmark.timing import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asm_libcalls.benchmark.results import Results
    from asm_libcalls.benchmark.timing import Spread, Timed

__all__ = ["THRESHOLD", "Change", "compare"]

THRESHOLD = 1.10
"""A median that is worse by less than this factor is noise, whatever the quartiles say."""


class Change(NamedTuple):
    """A case that became slower.

    Attributes
    ----------
    case : str
        Suite, name and size.
    against : str
        The peer that says so, or "" for nanoseconds.
    before, after : Spread
        Ours divided by the peer's, or nanoseconds.
    """

    case: str
    against: str
    before: Spread
    after: Spread

    @property
    def factor(self) -> float:
        """How many times as slow it became."""
        return self.after.median / self.before.median

    def __str__(self) -> str:
        unit = f"of {self.against}" if self.against else "ns"
        return (
            f"{self.case}: {self.factor:.2f} times as slow: {self.before.median:.3g} {unit} before "
            f"({self.before.low:.3g} to {self.before.high:.3g}), now {self.after.median:.3g} "
            f"({self.after.low:.3g} to {self.after.high:.3g})"
        )


def compare(before: Results, after: Results) -> list[Change]:
    """Return what became slower, the worst first.

    A case became slower where the median did by more than :data:`THRESHOLD` and the quartiles do
    not overlap, and against most of its peers: a peer that became faster is not our doing.
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
    # Other ways to call our own code are no measure of it.
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
