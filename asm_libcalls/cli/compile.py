"""``compile FILE -o OUT``: compiles a WebAssembly module into a file for ``run``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from asm_libcalls.cli.files import add_module, read_module, refuse_same_file, write_files
from asm_libcalls.cli.subcommands import CHECK_FAILED, NOT_HERE, OK, CommandError

if TYPE_CHECKING:
    import argparse

HELP = "compile a WebAssembly module into a file"
DESCRIPTION = """Compile a WebAssembly module with toy_jit into a file, which "run
--allow-precompiled" and toy_jit.Module.deserialize load without compiling again. It is for this
version of the package, and for CPUs with the features of this one. It contains machine code: load
such a file only if you trust its origin as you trust a program's."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_module(parser)
    parser.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="the file to write, or to replace"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compile, write the file, and return the exit code."""
    from asm_libcalls import toy_jit

    refuse_same_file(arguments.file, arguments.output)
    binary = read_module(arguments.file)
    try:
        options = toy_jit.compile_options(inline=arguments.inline)
        content = toy_jit.Module(binary, options).serialize()
    except toy_jit.InvalidModule as error:
        raise CommandError(f"{arguments.file} is not valid: {error}", CHECK_FAILED) from None
    except (RuntimeError, OSError) as error:
        raise CommandError(str(error), NOT_HERE) from None
    write_files({Path(arguments.output): content})
    print(f"{arguments.output}: {len(binary)} bytes of WebAssembly, {len(content)} bytes")
    return OK
