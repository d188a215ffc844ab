"""The subcommands of the command line, one file each, and how they fail.

A file ``NAME.py`` (with an underscore for a hyphen) has ``configure(parser)``, which declares its
arguments, and ``run(arguments) -> int``, which does the work, prints, and returns the exit code.
What is slow to import is imported in ``run``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from asm_libcalls.binding import Libcall

__all__ = [
    "CHECK_FAILED",
    "COMMANDS",
    "NOT_HERE",
    "OK",
    "TRAPPED",
    "USAGE",
    "CommandError",
    "add_json",
    "find_libcall",
]

COMMANDS = ("list", "call", "disasm", "verify", "report", "bench", "run", "build-library")
"""In the order of the help; the first one is the default."""

OK = 0
CHECK_FAILED = 1
USAGE = 2
TRAPPED = 3
NOT_HERE = 4


class CommandError(Exception):
    """A command can not go on: its message is for the user, in one or a few lines.

    Attributes
    ----------
    exit_code : int
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON; numbers as bit patterns and as text"
    )


def find_libcall(name: str) -> Libcall:
    """Return a libcall by its name or its C symbol.

    Raises
    ------
    CommandError
        There is none; the message suggests the nearest names, or the libcalls behind a WebAssembly
        instruction of this name.
    """
    from asm_libcalls import LIBCALLS
    from asm_libcalls.libcalls import SYMBOL_PREFIX

    libcall = LIBCALLS.get(name.removeprefix(SYMBOL_PREFIX))
    if libcall is not None:
        return libcall
    near = [n for n, found in LIBCALLS.items() if found.declaration.instruction == name]
    if not near:
        from difflib import get_close_matches

        near = get_close_matches(name.lower().removeprefix(SYMBOL_PREFIX), LIBCALLS, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else '"asm-libcalls list" shows all'
    raise CommandError(f"no libcall is named {name!r}; {hint}", USAGE)
