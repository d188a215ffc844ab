"""Times candidates that do the same work, interleaved round by round.

A *sample* runs a candidate for a given time and gives nanoseconds for each operation. It counts
this thread's processor time, so other programs do not count. A *round* takes one sample of each
candidate, in a random order. The figure of a candidate is the median of its samples. The ratio of
two candidates is the median of the ratios of their samples *of the same round*, because a slow
moment of the machine affects a whole round.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

OURS = "asm_libcalls"
"""The label of the candidate that the others are compared with."""


_clock = getattr(time, "thread_time_ns", time.perf_counter_ns)
"""The clock: this thread's processor time, or wall time on systems without such a clock."""


class Effort(NamedTuple):
    """How long to measure."""

    rounds: int  # rounds of a case whose samples are short
    fewest_rounds: int  # rounds of a case whose single operation takes longer than a sample should
    sample: float  # seconds that a sample should take
    case: float  # seconds that a case should take at most, all candidates together


class Candidate(NamedTuple):
    """One way to do a case's work."""

    label: str  # name of the peer, the same in all cases
    run: Callable[[int], object]  # `run(times)` does the work that many times
    before: Callable[[], object] = lambda: None  # done before each sample, untimed


class Case(NamedTuple):
    """Some work, and the candidates that do it."""

    suite: str  # for example `"arrays"`
    name: str  # for example `"ceil f32 contiguous"`
    size: int  # elements or bytes of one run; 0 if neither applies
    operations: int  # operations of one run; figures are for one of them
    candidates: tuple[Candidate, ...]


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


class Figure(NamedTuple):
    """The time of one candidate."""

    nanoseconds: Spread  # time of one operation
    # Our time divided by this candidate's, round by round; below 1, ours is faster. 1 for ours.
    ratio: Spread


class Timed(NamedTuple):
    """A case, measured."""

    suite: str
    name: str
    size: int
    rounds: int
    figures: dict[str, Figure]  # by the candidates' labels


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles, interpolated between neighbours."""
    if len(values) == 1:  # which Python before 3.13 refuses
        return Spread(*values, *values, *values)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


def figures(values: Mapping[str, Sequence[float]]) -> dict[str, Figure]:
    """Return the figure of each label from its values, which are in the order of the rounds.

    Ratios are those of :data:`OURS`; without it, of the first.
    """
    ours = values[OURS if OURS in values else next(iter(values))]
    found = {}
    for label, own in values.items():
        ratios = [a / b for a, b in zip(ours, own, strict=True) if b]
        found[label] = Figure(spread(own), spread(ratios or [0.0]))
    return found


def repeat(
    function: Callable[..., object], arguments: tuple[Any, ...] = (), keep: object = None
) -> Callable[[int], None]:
    """Return a function that repeats a call, and keeps an object alive."""

    def run(times: int, keep: object = keep) -> None:
        for _ in range(times):
            function(*arguments)

    return run


def measure(case: Case, effort: Effort) -> Timed:
    """Time a case's candidates."""
    labels = [candidate.label for candidate in case.candidates]
    if len(set(labels)) != len(labels):
        raise ValueError(f"{case.name}: two candidates of one label in {labels}")
    times = [_times_for(candidate, effort.sample) for candidate in case.candidates]
    one_round = sum(
        _sample(candidate, n) * n for candidate, n in zip(case.candidates, times, strict=True)
    )
    rounds = max(effort.fewest_rounds, min(effort.rounds, int(effort.case / max(one_round, 1e-9))))
    rounds |= 1  # odd, so that a median is a sample
    samples: dict[str, list[float]] = {label: [] for label in labels}
    chance = random.Random(case.name)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            # A random order: in a fixed one, the same candidate would profit from filled caches.
            for k in chance.sample(range(len(labels)), len(labels)):
                seconds = _sample(case.candidates[k], times[k])
                samples[labels[k]].append(1e9 * seconds / case.operations)
    finally:
        if collecting:
            gc.enable()
    return Timed(case.suite, case.name, case.size, rounds, figures(samples))


def _sample(candidate: Candidate, times: int) -> float:
    candidate.before()
    started = _clock()
    candidate.run(times)
    return max(_clock() - started, 1) / times / 1e9


def _times_for(candidate: Candidate, seconds: float) -> int:
    """Return the number of runs of a candidate that takes about this time."""
    candidate.run(1)  # compiles and loads what is needed on first use
    times = 1
    while True:
        # The best of three: a disturbed sample would make all others too short.
        took = times * min(_sample(candidate, times) for _ in range(3))
        if took >= seconds / 2:
            return max(1, round(times * seconds / took))
        times = max(2 * times, min(int(times * seconds / took), 100 * times))
