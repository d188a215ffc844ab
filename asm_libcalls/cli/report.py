"""``report``: prints the backend of each libcall and the reason, for a bug report."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli.subcommands import OK, add_json

if TYPE_CHECKING:
    import argparse

HELP = "print the backend report, for a bug report"
DESCRIPTION = "Print which backend serves each libcall and why, and the features of the machine."


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print, and return the exit code."""
    from asm_libcalls import backend_report

    # The report says whose inner loops serve the ufuncs, once they are imported.
    with contextlib.suppress(ImportError):  # without NumPy there are none
        import_module("asm_libcalls.ufuncs")
    report = backend_report()
    if arguments.json:
        output.print_json(report)
    else:
        print(report)
    return OK
