"""``bench``: ratios against named peers, as text, JSON and plots; and two runs compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asm_libcalls.benchmark.runs import SUITES, slower
from asm_libcalls.benchmark.runs import run as run_suites
from asm_libcalls.commands import CHECK_FAILED, NOT_HERE, OK, USAGE, CommandError

if TYPE_CHECKING:
    import argparse

    from asm_libcalls.benchmark.timing import Comparison

HELP = "time what this package does against what else does it"
DESCRIPTION = """Time this package against named peers. Every figure is a ratio, our time divided by
the peer's in the same round of the same run: the median of many rounds, with its quartiles. Peers
that are not installed are left out, with a note."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "suites",
        metavar="SUITE",
        nargs="*",
        help=f"what to time ({', '.join(SUITES)}); all if none",
    )
    parser.add_argument("--quick", action="store_true", help="a few seconds; not to be quoted")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the report")
    parser.add_argument("--plot", metavar="DIR", type=Path, help="write an SVG for each suite")
    parser.add_argument(
        "--compare",
        metavar=("BEFORE", "AFTER"),
        nargs=2,
        type=Path,
        help="time nothing: say what became slower from one report to another; exit code 1 if any",
    )


def run(arguments: argparse.Namespace) -> int:
    """Time, print, and return the exit code."""
    if arguments.compare:
        return _compare(*arguments.compare)
    unknown = [name for name in arguments.suites if name not in SUITES]
    if unknown:
        raise CommandError(
            f"no suite is named {unknown[0]!r}; there are {', '.join(SUITES)}", USAGE
        )
    report = run_suites(arguments.suites or SUITES, arguments.quick, _print)
    for note in report["notes"]:
        print(f"note: {note}")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        _plot(report, arguments.plot)
    return OK


def _print(comparison: Comparison) -> None:
    unit = comparison.unit
    time = f"{comparison.time:,.0f}" if comparison.time >= 1000 else f"{comparison.time:.1f}"
    print(f"{comparison.suite}: {comparison.name}: {time} {unit}", flush=True)
    for peer, figure in comparison.peers.items():
        print(
            f"    {figure.ratio:7.3f} of {peer:<24} ({figure.low:.3f} to {figure.high:.3f})",
            flush=True,
        )


def _plot(report: dict[str, Any], folder: Path) -> None:
    from asm_libcalls.benchmark import plots

    try:
        files = plots.draw(report, folder)
    except ImportError as error:
        raise CommandError(
            f"plots need matplotlib ({error}); install the extra `bench`", NOT_HERE
        ) from error
    for file in files:
        print(f"wrote {file}")


def _compare(before: Path, after: Path) -> int:
    try:
        lines = slower(json.loads(before.read_text()), json.loads(after.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(f"not two reports of `bench --json`: {error}", USAGE) from error
    for line in lines:
        print(line)
    print(f"{len(lines)} figures became slower", file=sys.stderr)
    return CHECK_FAILED if lines else OK
