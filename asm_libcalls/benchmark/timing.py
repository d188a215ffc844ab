"""Timing that a noisy machine can not turn round: ratios, interleaved, medians of many rounds.

A *case* is one way to do a thing. The cases of a comparison take turns, round after round, so that
whatever else the machine does falls on all of them; each round gives the ratio of our time to each
peer's, and the median of the ratios is the figure, with its quartiles as the spread.
"""

from __future__ import annotations

import statistics
import time
import timeit
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Comparison", "Figure", "compare", "statement"]


class Figure(NamedTuple):
    """What one peer's time was, and ours as a ratio of it: below 1 we are faster."""

    time: float
    ratio: float
    low: float
    high: float


class Comparison(NamedTuple):
    """What a comparison found.

    Attributes
    ----------
    suite, name : str
        What was timed.
    time : float
        Our own median time, in `unit`.
    unit : str
        ``"ns"`` or, of the time-stamp counter, ``"ticks"``.
    peers : dict of str to Figure
    """

    suite: str
    name: str
    time: float
    unit: str
    peers: dict[str, Figure]


def statement(text: str, names: Mapping[str, Any]) -> Callable[[int], float]:
    """Make the case of a Python statement: nanoseconds of one execution."""
    timer = timeit.Timer(text, globals=dict(names), timer=time.perf_counter_ns)
    return lambda count: timer.timeit(count) / count


def _count_for(case: Callable[[int], float], nanoseconds: float) -> int:
    count = 1
    while True:
        begin = time.perf_counter_ns()
        case(count)
        taken = time.perf_counter_ns() - begin
        if taken >= nanoseconds or count >= 1 << 24:
            return max(1, int(count * nanoseconds / max(taken, 1)))
        count *= 4


def compare(
    suite: str,
    name: str,
    ours: Callable[[int], float],
    peers: Mapping[str, Callable[[int], float]],
    *,
    rounds: int,
    unit: str = "ns",
    round_time: float = 1e6,
) -> Comparison:
    """Time our case against its peers.

    Parameters
    ----------
    suite, name : str
    ours : callable
    peers : mapping of str to callable
    rounds : int
        How often each has its turn.
    unit : str
        Of what the cases return.
    round_time : float
        How long a turn takes, in nanoseconds, about.
    """
    cases = [ours, *peers.values()]
    counts = [_count_for(case, round_time) for case in cases]
    times: list[list[float]] = [[] for _ in cases]
    for turn in range(rounds):
        order = range(len(cases)) if turn % 2 == 0 else reversed(range(len(cases)))
        for i in order:
            times[i].append(cases[i](counts[i]))
    figures = {}
    for peer, found in zip(peers, times[1:], strict=True):
        ratios = [a / b for a, b in zip(times[0], found, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        figures[peer] = Figure(statistics.median(found), middle, low, high)
    return Comparison(suite, name, statistics.median(times[0]), unit, figures)
