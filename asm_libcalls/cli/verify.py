"""``verify``: compares a libcall's implementations over edge cases and random ones."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli import verify_exhaustive
from asm_libcalls.cli.subcommands import (
    CHECK_FAILED,
    NOT_HERE,
    OK,
    WASMTIME,
    CommandError,
    add_json,
    add_table,
    find_libcall,
    libcalls_of,
)
from asm_libcalls.output import Cell
from asm_libcalls.signatures.arguments import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from asm_libcalls.checks.engine import Verdict
    from asm_libcalls.libcall import Libcall

HELP = "compare a libcall's implementations over edge cases and random ones"
DESCRIPTION = """Compare the implementation that serves each libcall (all of a table, or those
named) with the fallback and an independent oracle, over edge cases and random ones. The first
difference of each libcall is shown in bits. A run prints its seed, by which it can be repeated."""

DEFAULT_COUNT = 5_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="a libcall; all if none is named")
    parser.add_argument(
        "--count",
        metavar="N",
        type=_whole_number,
        default=DEFAULT_COUNT,
        help=f"random cases for each libcall, after the edge cases (default {DEFAULT_COUNT})",
    )
    parser.add_argument(
        "--seed", metavar="S", type=_whole_number, help="repeat the run that printed this seed"
    )
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="check all 2^32 patterns of f32 and all 2^16 of halves instead, some minutes",
    )
    add_table(parser, WASMTIME)
    add_json(parser)


def _whole_number(text: str) -> int:
    number = int(text, 0)
    if not 0 <= number < 1 << 63:
        raise ValueError("it is negative, or no loop ends at it")
    return number


_whole_number.__name__ = "whole number"  # argparse puts it into its message


def run(arguments: argparse.Namespace) -> int:
    """Verify, print, and return the exit code."""
    if arguments.exhaustive:
        return verify_exhaustive.run(arguments, _progress_bar)
    from asm_libcalls.checks.engine import verify

    if arguments.names:
        libcalls = list(dict.fromkeys(find_libcall(name) for name in arguments.names))
    else:
        libcalls = libcalls_of(arguments.table)
    seed = arguments.seed
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
    verdicts: dict[str, Verdict] = {}
    try:
        if not arguments.json:
            # Printed first and flushed: a crash of the machine code must not lose the seed.
            print(f"{counted(len(libcalls), 'libcall')}, seed {seed}\n", flush=True)
        with _progress_bar(libcalls, arguments.count) as tell:
            for libcall in libcalls:
                verdicts[libcall.name] = verify(
                    libcall, arguments.count, seed, partial(tell, libcall.name)
                )
    except LookupError as error:
        raise CommandError(str(error), NOT_HERE) from None
    except KeyboardInterrupt:
        wrong = [name for name, verdict in verdicts.items() if not verdict.passed]
        raise KeyboardInterrupt(
            f"after {len(verdicts)} of {len(libcalls)} libcalls, "
            f"{'wrong: ' + ', '.join(wrong) if wrong else 'no difference so far'} (seed {seed})"
        ) from None
    if arguments.json:
        _print_json(verdicts, seed, arguments.count)
    else:
        _print(verdicts, seed, arguments.count)
    return OK if all(verdict.passed for verdict in verdicts.values()) else CHECK_FAILED


def _print(verdicts: dict[str, Verdict], seed: int, count: int) -> None:
    rows = []
    for name, verdict in verdicts.items():
        serving, *others = verdict.compared
        agrees = Cell("agrees", "green") if verdict.passed else Cell("DIFFERS", "bold red")
        rows.append(
            [
                Cell(name, "bold"),
                Cell(serving, "cyan"),
                Cell(", ".join(others)),
                Cell(str(verdict.cases)),
                agrees,
            ]
        )
    output.print_table(["libcall", "served by", "compared with", "cases", "result"], rows)
    for name, verdict in verdicts.items():
        difference = verdict.difference
        if difference is not None:
            print(f"\n{name} differs first in case {difference.case_number}:")
            for line in difference.lines():
                print(f"  {line}")
            print(f"  again with: verify {name} --count {count} --seed {seed}")
    cases = sum(verdict.cases for verdict in verdicts.values())
    wrong = sum(not verdict.passed for verdict in verdicts.values())
    print(f"\n{counted(cases, 'case')}, {counted(wrong, 'libcall')} with a difference")


def _print_json(verdicts: dict[str, Verdict], seed: int, count: int) -> None:
    rows = [
        {
            "name": name,
            "compared": list(verdict.compared),
            "cases": verdict.cases,
            "result": "agrees" if verdict.passed else "differs",
            "difference": verdict.difference and verdict.difference._asdict(),
        }
        for name, verdict in verdicts.items()
    ]
    output.print_json({"seed": seed, "count": count, "libcalls": rows})


@contextmanager
def _progress_bar(libcalls: list[Libcall], count: int) -> Iterator[Callable[[str, int], None]]:
    """Show the progress of the run on the standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda name, done: None
        return
    place = {libcall.name: i for i, libcall in enumerate(libcalls)}
    try:
        from rich.console import Console
        from rich.progress import Progress
    except ImportError:

        def write(name: str, done: int) -> None:
            text = f"{name} ({place[name] + 1} of {len(libcalls)}), case {done}"
            print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)

        try:
            yield write
        finally:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)
        return

    # rich must not redirect the standard output, which may be a pipe.
    with Progress(
        console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    ) as progress:
        # The edge cases are not in the count; during them the bar waits at the libcall's end.
        task = progress.add_task("", total=max(count, 1) * len(libcalls))

        def update(name: str, done: int) -> None:
            at = place[name] * count + min(done, count)
            progress.update(task, completed=at, description=name)

        yield update
