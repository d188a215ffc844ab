"""The results of a run: written and read as JSON, printed as tables."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asm_libcalls
from asm_libcalls import output
from asm_libcalls.benchmark.timing import OURS, Figure, Spread, Timed
from asm_libcalls.output import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers

FORMAT = 1


class Results:
    """The measured cases of a run, and a description of the machine and versions."""

    def __init__(
        self, cases: Sequence[Timed], about: dict[str, Any], notes: Sequence[str], quick: bool
    ) -> None:
        self.cases = list(cases)
        self.about = about  # date, CPU, versions
        self.notes = list(notes)  # what was left out, and why
        self.quick = quick

    def of(self, suite: str) -> list[Timed]:
        """Return a suite's cases, in order."""
        return [case for case in self.cases if case.suite == suite]

    def write(self, path: Path) -> None:
        """Write the results as JSON."""
        value = {
            "format": FORMAT,
            "quick": self.quick,
            "about": self.about,
            "notes": self.notes,
            "cases": [
                {
                    **case._asdict(),
                    "figures": {
                        label: {
                            part: [float(f"{x:.5g}") for x in spread]
                            for part, spread in figure._asdict().items()
                        }
                        for label, figure in case.figures.items()
                    },
                }
                for case in self.cases
            ],
        }
        path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what :meth:`write` wrote; ValueError if the file is something else."""
        try:
            value = json.loads(path.read_text())
            if value["format"] != FORMAT:
                raise ValueError(f"{path}: format {value['format']}, this reads {FORMAT}")
            cases = [
                Timed(**row)._replace(
                    figures={
                        label: Figure(**{part: Spread(*three) for part, three in figure.items()})
                        for label, figure in row["figures"].items()
                    }
                )
                for row in value["cases"]
            ]
            return cls(cases, dict(value["about"]), list(value["notes"]), bool(value["quick"]))
        except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a run of this benchmark: {error!r}") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON: {error}") from error


def about_this_machine(peers: Peers) -> dict[str, Any]:
    """Describe the machine, its Python and the peers' versions."""
    report = asm_libcalls.backend_report()
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "asm_libcalls": report["asm_libcalls"],
        "backend": report["x86_64"],
        "cpu": report.get("cpu", platform.processor() or platform.machine()),
        "cpu_features": report.get("cpu_features", ""),
        "byte_ranges": report.get("byte_ranges", ""),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "c_library": " ".join(platform.libc_ver()).strip(),
        "python": f"{platform.python_implementation()} {sys.version.split()[0]}",
        "numpy": peers.version(peers.numpy),
        "numba": peers.version(peers.numba),
        "cffi": peers.version(peers.cffi),
        "c_compiler": peers.c_compiler,
    }


def print_results(results: Results) -> None:
    """Print a table for each suite, the notes, and the machine."""
    for suite in dict.fromkeys(case.suite for case in results.cases):
        print(f"\n{suite}\n")
        _print_suite(results.of(suite))
    print()
    for key, value in results.about.items():
        if value:
            print(f"{key.replace('_', ' ') + ':':<14} {value}")
    for note in results.notes:
        print(f"note: {note}")


def _print_suite(cases: list[Timed]) -> None:
    sized = any(case.size for case in cases)
    between = "least to most" if cases[0].suite == "places" else "quartiles"
    headers = ["case", *(["size"] if sized else []), "candidate", "each", "ours / it", between]
    rows = []
    for case in cases:
        for i, (label, figure) in enumerate(case.figures.items()):
            first = i == 0
            ratio = figure.ratio
            faster = ratio.median <= 1
            rows.append(
                [
                    Cell(case.name if first else "", "bold"),
                    *([Cell(f"{case.size:,}" if first and case.size else "")] if sized else []),
                    Cell(label, "cyan" if label == OURS else ""),
                    Cell(_amount(case, figure.nanoseconds.median)),
                    Cell(
                        "" if label == OURS else f"{ratio.median:.3g}",
                        "green" if faster else "yellow",
                    ),
                    Cell("" if label == OURS else f"{ratio.low:.3g} to {ratio.high:.3g}"),
                ]
            )
    output.print_table(headers, rows)


def _amount(case: Timed, value: float) -> str:
    if (case.suite, case.name) == ("imports", "memory"):
        return f"{value / 2**20:.1f} MiB"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} ns"
