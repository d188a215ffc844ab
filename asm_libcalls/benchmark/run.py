"""Runs the benchmark with the command line's options: measures, prints, writes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from asm_libcalls.benchmark.timing import Effort, Timed, measure

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any

    from asm_libcalls.benchmark.results import Results

SUITES = (
    "calls",
    "native",
    "llvm",
    "memory",
    "places",
    "references",
    "arrays",
    "toy_jit",
    "stores",
    "imports",
)
_MEASURE_THEMSELVES = ("places", "stores", "imports")

FULL = Effort(rounds=51, fewest_rounds=9, sample=5e-4, case=0.6)
QUICK = Effort(rounds=3, fewest_rounds=3, sample=5e-5, case=0.01)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "suites",
        metavar="SUITE",
        nargs="*",
        help=f"what to measure ({', '.join(SUITES)}); all if none is named",
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only cases whose names contain this"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file")
    parser.add_argument(
        "--quick", action="store_true", help="some seconds and rough figures, to see that it runs"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="measure nothing: print a file of --json",
    )


def main(arguments: argparse.Namespace) -> int:
    """Measure or read figures, print and write them, and return the exit code."""
    from asm_libcalls.benchmark.results import Results, print_results

    unknown = [name for name in arguments.suites if name not in SUITES]
    if unknown:
        raise ValueError(f"no suite is named {unknown[0]!r}; there are {', '.join(SUITES)}")
    if arguments.source:
        results = Results.read(arguments.source)
    else:
        results = run_suites(arguments.suites or SUITES, arguments.quick, _tell, arguments.only)
        print("\r" + " " * 78 + "\r", end="", file=sys.stderr, flush=True)
    print_results(results)
    if arguments.json:
        results.write(arguments.json)
        print(f"written: {arguments.json}")
    return 0


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text[:78]:<78}", end="", file=sys.stderr, flush=True)


def run_suites(
    names: Sequence[str],
    quick: bool = False,
    tell: Callable[[str], None] = lambda text: None,
    only: str = "",
) -> Results:
    """Measure the suites of these names.

    `quick` measures briefly, for rough figures. `tell` is called with the name of the next
    measurement. `only` is a text that the name of a case must contain. (Imports are one
    measurement.)
    """
    from asm_libcalls.benchmark.peers import Peers
    from asm_libcalls.benchmark.results import Results, about_this_machine

    peers = Peers()
    measured: list[Timed] = []
    for name in SUITES:
        if name not in names:
            continue
        suite: Any = importlib.import_module(f"asm_libcalls.benchmark.{name}")
        if name in _MEASURE_THEMSELVES:
            measured += suite.measure(peers, quick, tell, only)
            continue
        for case in suite.cases(peers, quick):
            if only not in case.name:
                continue
            tell(f"{name}: {case.name} {case.size or ''}")
            measured.append(measure(case, QUICK if quick else FULL))
    return Results(measured, about_this_machine(peers), peers.notes, quick)
