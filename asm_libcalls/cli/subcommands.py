"""The list of subcommands, one file each, with their common options, look-ups and errors.

A file ``NAME.py`` (with an underscore for a hyphen) has ``configure(parser)``, which declares its
arguments, and ``run(arguments) -> int``, which does the work, prints, and returns the exit code.
Modules that are slow to import are imported in ``run``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from asm_libcalls.libcall import Libcall

COMMANDS = (
    "list",
    "call",
    "disasm",
    "verify",
    "report",
    "bench",
    "run",
    "compile",
    "build-library",
)
"""In the order of the help; the first one is the default."""

WASMTIME, LLVM, ALL = "wasmtime", "llvm", "all"
"""The values of ``--table``."""

OK = 0
CHECK_FAILED = 1
USAGE = 2
TRAPPED = 3
NOT_HERE = 4


class CommandError(Exception):
    """A command cannot continue; the message is for the user, in one or a few lines."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def missing_disassembler(what: str, error: ImportError) -> CommandError:
    """Return the error of a command that cannot import capstone."""
    return CommandError(
        f"{what} needs the disassembler capstone, which cannot be imported here ({error}): "
        'install it with pip install "capstone>=5", or with the extra "cli" of this package',
        NOT_HERE,
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Give a command the option ``--json``."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON; numbers as bit patterns and as text"
    )


def add_table(parser: argparse.ArgumentParser, default: str) -> None:
    """Give a command the option ``--table``."""
    parser.add_argument(
        "--table",
        choices=(WASMTIME, LLVM, ALL),
        default=default,
        help="which libcalls: Wasmtime's, LLVM's, or all (default: %(default)s)",
    )


def libcalls_of(table: str) -> list[Libcall]:
    """Return the libcalls of a table, or of both, in order."""
    from asm_libcalls import LIBCALLS

    libcalls = list(LIBCALLS.values()) if table != LLVM else []
    if table != WASMTIME:
        from asm_libcalls import llvm

        libcalls += llvm.LIBCALLS.values()
    return libcalls


def find_libcall(name: str) -> Libcall:
    """Return a libcall of either table by its name or its C symbol, or raise CommandError.

    The message suggests the nearest names, or the libcalls of a WebAssembly instruction of this
    name.
    """
    from asm_libcalls import LIBCALLS
    from asm_libcalls.libcalls import SYMBOL_PREFIX

    libcall = LIBCALLS.get(name.removeprefix(SYMBOL_PREFIX))
    if libcall is not None:
        return libcall
    libcalls = {libcall.name: libcall for libcall in libcalls_of(ALL)}
    libcall = libcalls.get(name.removeprefix("__"))
    if libcall is not None:
        return libcall
    near = [n for n, found in libcalls.items() if found.declaration.instruction == name]
    if not near:
        from difflib import get_close_matches

        bare = name.lower().removeprefix(SYMBOL_PREFIX).removeprefix("__")
        near = get_close_matches(bare, libcalls, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else '"asm-libcalls list" shows all'
    raise CommandError(f"no libcall is named {name!r}; {hint}", USAGE)
