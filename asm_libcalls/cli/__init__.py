"""The command line: ``python -m asm_libcalls``. Each subcommand is a file of its name."""

from asm_libcalls.cli.program import main

__all__ = ["main"]
