"""``list``: prints every libcall, its backend, its address and the result of a self-check."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from asm_libcalls import __version__, output
from asm_libcalls.cli.subcommands import (
    CHECK_FAILED,
    OK,
    WASMTIME,
    add_json,
    add_table,
    libcalls_of,
)
from asm_libcalls.output import Cell

if TYPE_CHECKING:
    import argparse

    from asm_libcalls.checks.engine import Verdict
    from asm_libcalls.libcall import Libcall

HELP = "show every libcall, its backend, its address and a live self-check (the default)"
DESCRIPTION = """Show every libcall with its C signature, the backend that serves it, its address
and the result of a self-check made now. The self-check compares the serving implementation with the
others over edge cases, whose number is in parentheses."""

NOT_CHECKED = "not checked"


class Row:
    """A libcall, its address (0 if it has none) and the result of its self-check."""

    def __init__(self, libcall: Libcall) -> None:
        from asm_libcalls.checks.engine import address_or_reason, self_check

        self.libcall = libcall
        self.verdict: Verdict | None = None
        self.address, reason = address_or_reason(libcall)
        self.failures = [reason] if reason else []  # why there is no address, or no verdict
        try:
            self.verdict = self_check(libcall)
        except (LookupError, RuntimeError, MemoryError) as error:
            self.failures.append(f"{NOT_CHECKED}, {error}")

    @property
    def result(self) -> str:
        """The self-check in a word or two."""
        if self.verdict is None:
            return NOT_CHECKED
        return "passed" if self.verdict.passed else "FAILED"

    def cells(self, *, narrow: bool) -> list[Cell]:
        """Return the cells of the table."""
        libcall = self.libcall
        signature = str(libcall.signature)
        if narrow:
            # Name and signature share a column, in two lines if one is too narrow.
            space = "" if len(libcall.name + signature) <= NARROW_COLUMN else "\n  "
            names = [Cell(libcall.name + space + signature, "bold")]
        else:
            names = [Cell(libcall.name, "bold"), Cell(signature)]
        style = "green" if self.result == "passed" else "bold red"
        cases = "" if self.verdict is None else f" ({self.verdict.cases})"
        return [
            *names,
            Cell(libcall.backend, "cyan" if libcall.backend == "x86_64" else ""),
            Cell(f"{self.address:#x}" if self.address else "-"),
            Cell(self.result + cases, style),
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain values."""
        libcall, verdict = self.libcall, self.verdict
        return {
            "name": libcall.name,
            "symbol": libcall.symbol,
            "signature": str(libcall.signature),
            "instruction": libcall.declaration.instruction,
            "backend": libcall.backend,
            "reason": libcall.reason,
            "address": f"{self.address:#x}" if self.address else None,
            "self_check": {
                "result": self.result.lower(),
                "cases": 0 if verdict is None else verdict.cases,
                "compared": [] if verdict is None else list(verdict.compared),
                "difference": verdict and verdict.difference and verdict.difference._asdict(),
            },
        }


NARROW_COLUMN = 35
"""Columns for name and signature together, so that 80 hold the whole table."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_table(parser, WASMTIME)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check, print, and return the exit code."""
    rows = [Row(libcall) for libcall in libcalls_of(arguments.table)]
    good = all(row.result == "passed" for row in rows)
    if arguments.json:
        libcalls = [row.as_json() for row in rows]
        output.print_json(
            {"asm_libcalls": __version__, "libcalls": libcalls, "counts": _counts(rows)}
        )
    else:
        _print(rows)
    return OK if good else CHECK_FAILED


def _print(rows: list[Row]) -> None:
    headers = ["name", "signature", "backend", "address", "self-check"]
    cells = [row.cells(narrow=False) for row in rows]
    width = output.terminal_width()
    if width is not None and output.table_width(headers, cells) > width:
        headers[:2] = ["libcall"]
        cells = [row.cells(narrow=True) for row in rows]
    output.print_table(headers, cells)
    print()
    print(output.paragraph(", ".join(f"{n} {what}" for what, n in _counts(rows).items())))
    for reason, families in _why_fallback(rows).items():
        print(output.paragraph(f"The fallback serves {families}: {reason}"))
    for failure, names in _failures(rows).items():
        print(output.paragraph(f"{', '.join(names)}: {failure}"))
    for row in rows:
        if row.verdict is not None and row.verdict.difference is not None:
            print(f"\n{row.libcall.name} is wrong, first here:")
            for line in row.verdict.difference.lines():
                print(f"  {line}")


def _counts(rows: list[Row]) -> dict[str, int]:
    """Count libcalls by backend and by result of the self-check, in the footer's words."""
    counts = Counter(f"served by {row.libcall.backend}" for row in rows)
    results = Counter(row.result for row in rows)
    for result, count in sorted(results.items(), reverse=True):
        counts[f"self-check{'s' if count != 1 else ''} {result}"] = count
    return dict(counts)


def _why_fallback(rows: list[Row]) -> dict[str, str]:
    """Return the families that the fallback serves, with their counts, by reason."""
    families: dict[str, Counter[str]] = {}
    for row in rows:
        if row.libcall.backend == "fallback":
            family = row.libcall.declaration.family
            families.setdefault(row.libcall.reason, Counter())[family] += 1
    return {
        reason: ", ".join(f"{family} ({n})" for family, n in counts.items())
        for reason, counts in families.items()
    }


def _failures(rows: list[Row]) -> dict[str, list[str]]:
    """Return the libcalls of each failure."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for failure in row.failures:
            names.setdefault(failure, []).append(row.libcall.name)
    return names
