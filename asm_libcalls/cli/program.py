"""The entry point of the command line, ``asm-libcalls`` and ``python -m asm_libcalls``.

This module combines the subcommands of ``subcommands.py`` in one parser, and turns errors into one
line and an exit code.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from asm_libcalls import __version__
from asm_libcalls.cli import call
from asm_libcalls.cli.subcommands import COMMANDS, NOT_HERE, CommandError

PROGRAM = "asm-libcalls"

EPILOG = """\
exit codes:
  0    done
  1    a self-check failed, or verify found a difference; a module is not valid
  2    wrong usage: an unknown name, a text that is not a number, or a file that
       cannot be read or written
  3    the libcall or the module trapped
  4    not possible here: there is no machine code to show or to write, a package
       is missing, the libcall needs an instance, the module imports something,
       or the standard output cannot be written
  130  interrupted

environment:
  ASM_LIBCALLS_BACKEND   auto (the default), x86_64 or fallback
  ASM_LIBCALLS_CACHE     the folder of assembled code; off: assemble at each start
  ASM_LIBCALLS_GDB       1: name compiled code for gdb
  ASM_LIBCALLS_PERF_MAP  1: name code for perf
  ASM_LIBCALLS_TUNING    for measuring: +NAME,-NAME of wide_moves, ice_lake, slow_divide_64
"""

INTERRUPTED = 130
BROKEN_PIPE = 141
"""The exit code that a shell reports for a program ended by SIGPIPE."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default of this process; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if sys.stdout is None:
        print(f"{PROGRAM}: the standard output is closed", file=sys.stderr)
        return NOT_HERE
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names in modules can have characters that the output's encoding does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            return _run(words)
        except CommandError as error:
            print(f"{PROGRAM}: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt as interrupt:
            print(f"{PROGRAM}: interrupted {interrupt}".rstrip(), file=sys.stderr)
            return INTERRUPTED
        finally:
            sys.stdout.flush()  # detects a broken pipe here, not at the interpreter's exit
    except BrokenPipeError:  # the reader has ended
        _write_nowhere()
        return BROKEN_PIPE
    except OSError as error:  # a full disk, for example
        _write_nowhere()
        reason = error if error.filename else f"the output cannot be written: {error.strerror}"
        print(f"{PROGRAM}: {reason}", file=sys.stderr)
        return NOT_HERE


def _write_nowhere() -> None:
    """Discard the buffered output, so that the interpreter's exit reports no error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _run(words: list[str]) -> int:
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, COMMANDS[0])
    parser, subparsers = _parsers()
    if words[0] not in subparsers:
        parser.parse_args(words)  # help, version, or an error: it does not return
    name, *words = words
    after: list[str] = []
    if name == "run" and "--" in words:  # the program's own arguments are not parsed
        at = words.index("--")
        words, after = words[:at], words[at + 1 :]
    if name in ("call", "run"):
        words = call.protect_negative_numbers(words)
    # Intermixed, so that an option may stand between a name and the numbers after it.
    parsed = subparsers[name].parse_intermixed_args(words)
    if name == "run":
        parsed.arguments = [*call.restore_negative_numbers(parsed.arguments), *after]
    status: int = _command(name).run(parsed)
    return status


def _command(name: str) -> Any:
    return importlib.import_module(f"asm_libcalls.cli.{name.replace('-', '_')}")


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="The 33 libcalls of a WebAssembly compiler, as machine code and as Python.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"asm_libcalls {__version__}")
    adder = parser.add_subparsers(metavar="COMMAND", required=True)
    subparsers = {}
    for name in COMMANDS:
        command = _command(name)
        subparsers[name] = adder.add_parser(
            name, help=command.HELP, description=command.DESCRIPTION
        )
        command.configure(subparsers[name])
    return parser, subparsers
