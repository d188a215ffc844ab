"""``verify --exhaustive``: f32 rounding over all 2^32 patterns, with a bar that shows how far."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli.subcommands import CHECK_FAILED, OK, USAGE, CommandError
from asm_libcalls.output import Cell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from asm_libcalls.binding import Libcall

    ProgressBar = Callable[[list[Libcall], int], AbstractContextManager[Callable[[str, int], None]]]

__all__ = ["run"]


def run(arguments: argparse.Namespace, progress_bar: ProgressBar) -> int:
    """Check every pattern of the named libcalls, all f32 rounding by default; print."""
    from asm_libcalls import LIBCALLS
    from asm_libcalls.checks.exhaustive import FUNCTIONS, PATTERNS, verify_exhaustively

    names = tuple(dict.fromkeys(arguments.names)) or FUNCTIONS
    wrong = [name for name in names if name not in FUNCTIONS]
    if wrong:
        raise CommandError(
            f"--exhaustive is for {', '.join(FUNCTIONS)}, not for {', '.join(wrong)}", USAGE
        )
    libcalls = [LIBCALLS[name] for name in names]
    if not arguments.json:
        print(f"{len(names)} libcalls, {PATTERNS:,} patterns each\n", flush=True)
    results = []
    with progress_bar(libcalls, PATTERNS) as tell:
        for name in names:
            results += verify_exhaustively((name,), tell)
    if arguments.json:
        output.print_json(
            {
                "patterns": PATTERNS,
                "libcalls": [
                    {
                        "name": result.name,
                        "compared": list(result.ways),
                        "patterns": result.patterns,
                        "seconds": round(result.seconds, 1),
                        "difference": result.difference and result.difference._asdict(),
                    }
                    for result in results
                ],
            }
        )
    else:
        rows = [
            [
                Cell(result.name, "bold"),
                Cell(", ".join(result.ways)),
                Cell(f"{result.patterns:,}"),
                Cell(f"{result.seconds:.0f} s"),
                Cell("DIFFERS", "bold red") if result.difference else Cell("agrees", "green"),
            ]
            for result in results
        ]
        output.print_table(["libcall", "compared with the oracle", "patterns", "time", ""], rows)
        for result in results:
            if result.difference:
                print(f"\n{result.name}: {result.difference}")
    return CHECK_FAILED if any(result.difference for result in results) else OK
