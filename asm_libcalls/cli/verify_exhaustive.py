"""``verify --exhaustive``: checks f32 rounding and half precision over all patterns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli.subcommands import (
    CHECK_FAILED,
    LLVM,
    OK,
    USAGE,
    WASMTIME,
    CommandError,
    find_libcall,
)
from asm_libcalls.output import Cell

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from asm_libcalls.checks.exhaustive import Exhaustive
    from asm_libcalls.libcall import Libcall

    ProgressBar = Callable[[list[Libcall], int], AbstractContextManager[Callable[[str, int], None]]]


def run(arguments: argparse.Namespace, progress_bar: ProgressBar) -> int:
    """Check every pattern of the named libcalls, by default all of the table, and print."""
    from asm_libcalls.checks import exhaustive
    from asm_libcalls.checks.exhaustive import PATTERNS
    from asm_libcalls.llvm.checks import exhaustive as llvm_exhaustive

    checks: dict[str, Callable[..., Exhaustive]] = {}
    if arguments.table != LLVM:
        checks |= dict.fromkeys(exhaustive.FUNCTIONS, exhaustive.verify_exhaustively)
    if arguments.names or arguments.table != WASMTIME:
        checks |= dict.fromkeys(llvm_exhaustive.FUNCTIONS, llvm_exhaustive.verify_exhaustively)
    libcalls = [find_libcall(name) for name in dict.fromkeys(arguments.names or checks)]
    names = [libcall.name for libcall in libcalls]
    wrong = [name for name in names if name not in checks]
    if wrong:
        raise CommandError(
            f"--exhaustive is for {', '.join(checks)}, not for {', '.join(wrong)}", USAGE
        )
    if not arguments.json:
        print(f"{len(names)} libcalls, all {PATTERNS:,} patterns, or all there are\n", flush=True)
    with progress_bar(libcalls, PATTERNS) as tell:
        results = [checks[name](name, tell) for name in names]
    if arguments.json:
        objects = [
            {
                "name": result.name,
                "compared": list(result.ways),
                "patterns": result.patterns,
                "seconds": round(result.seconds, 1),
                "difference": result.difference and result.difference._asdict(),
            }
            for result in results
        ]
        output.print_json({"patterns": PATTERNS, "libcalls": objects})
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
