"""``bench``: compares the cost of the machine code with that of named peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls.cli.subcommands import USAGE, CommandError

if TYPE_CHECKING:
    import argparse

HELP = "measure calls, loops and arrays against Python, NumPy, C, cffi and numba"
DESCRIPTION = """Measure against named peers, interleaved in one run: calls from Python and at the C
address, memory, arrays, and importing. Every figure is a median of many rounds; a ratio below 1
means that ours is faster. It takes some minutes; --quick takes seconds."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from asm_libcalls.benchmark import run as benchmark

    benchmark.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code."""
    from asm_libcalls.benchmark import run as benchmark

    try:
        return benchmark.main(arguments)
    except (ValueError, OSError) as error:
        raise CommandError(str(error), USAGE) from None
