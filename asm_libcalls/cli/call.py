"""``call NAME ARGS...``: one call, its result as a number and in bits."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli.subcommands import (
    NOT_HERE,
    OK,
    TRAPPED,
    USAGE,
    CommandError,
    add_json,
    find_libcall,
)
from asm_libcalls.signatures.arguments import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

HELP = "call a numeric libcall"
DESCRIPTION = """Call a numeric libcall. Numbers are written in WebAssembly's text syntax: 42, -1,
0xff; for floats also 1.5, 0x1.8p3, inf, nan and nan:0x200000 (a NaN with this payload). The
result comes back in the same syntax, with its bits."""

_MINUS_SIGN = "\N{MINUS SIGN}"
_NEGATIVE_NUMBER = re.compile(r"-(?=[0-9.]|inf|nan)", re.IGNORECASE)


def protect_negative_numbers(arguments: list[str]) -> list[str]:
    """Keep argparse from taking ``-inf`` or ``-0x1`` for options.

    argparse takes every word that begins with ``-`` for an option, except plain decimal numbers. So
    a number's minus is U+2212 until :func:`restore_negative_numbers`.
    """
    return [_NEGATIVE_NUMBER.sub(_MINUS_SIGN, word, count=1) if word[:1] == "-" else word
            for word in arguments]  # fmt: skip


def restore_negative_numbers(arguments: Iterable[str]) -> list[str]:
    """Undo :func:`protect_negative_numbers`."""
    return [word.replace(_MINUS_SIGN, "-") for word in arguments]


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="a libcall, or its C symbol")
    parser.add_argument(
        "arguments",
        metavar="ARG",
        nargs="*",
        default=[],  # else argparse lists it among what is required
        help="a number for each parameter, in order",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Call, print, and return the exit code."""
    from asm_libcalls.checks.engine import trap_name
    from asm_libcalls.signatures.literals import describe, parse
    from asm_libcalls.traps import Trap

    name, *texts = restore_negative_numbers((arguments.name, *arguments.arguments))
    libcall = find_libcall(name)
    names = libcall.declaration.parameters
    types = libcall.signature.parameters
    pointers = [n for n, t in zip(names, types, strict=True) if t.kind == "pointer"]
    if pointers:
        listed = ", ".join(pointers)
        why = (
            f"it works on an instance, and there is none to give it ({listed}); in Python "
            "asm_libcalls.Instance makes one"
            if libcall.takes_instance
            else f"it stores a result ({listed}) in a buffer, which asm_libcalls.llvm takes in "
            "Python"
        )
        raise CommandError(f"{libcall.name} cannot be called from here: {why}", NOT_HERE)
    if len(texts) != len(types):
        expected = " ".join(f"{n}:{t.name}" for n, t in zip(names, types, strict=True))
        raise CommandError(
            f"{libcall.name} takes {counted(len(types), 'number')} ({expected}), got {len(texts)}",
            USAGE,
        )
    try:
        patterns = [
            parse(value_type, text, f"{libcall.name}: {name}")
            for value_type, name, text in zip(types, names, texts, strict=True)
        ]
    except (ValueError, OverflowError) as error:
        raise CommandError(str(error), USAGE) from None
    try:
        pattern = libcall.call_bits(*patterns)
    except Trap as trap:
        code = trap_name(trap.code)
        if arguments.json:
            output.print_json({"trap": {"code": int(trap.code), "name": code, "text": str(trap)}})
        call = f"{libcall.name}({', '.join(texts)})"
        print(f"asm-libcalls: {call} trapped: {trap} ({code})", file=sys.stderr)
        return TRAPPED
    result = None
    if libcall.signature.result is not None:
        result = describe(libcall.signature.result, pattern)
    if arguments.json:
        output.print_json({"result": result, "backend": libcall.backend})
    elif result is not None:
        print(f"{result['text']}  {result['type']} {result['bits']}")
    return OK
