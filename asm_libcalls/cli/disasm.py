"""``disasm NAME``: prints the machine code of a libcall, read from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls import output
from asm_libcalls.cli.subcommands import (
    NOT_HERE,
    OK,
    CommandError,
    add_json,
    find_libcall,
    missing_disassembler,
)

if TYPE_CHECKING:
    import argparse

    from asm_libcalls.cli.disassembly import Instruction
    from asm_libcalls.emitter.pages import LoadedImage

HELP = "disassemble a libcall's bytes in memory"
DESCRIPTION = """Disassemble the machine code of a libcall, as it is in memory. Other routines and
slots of the image are shown by name. NAME can also be a routine of the runtime, for example
asm_libcalls_raise_trap."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="a libcall, its C symbol, or a routine")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Disassemble, print, and return the exit code."""
    from asm_libcalls.cli.disassembly import disassemble

    name, loaded = _routine(arguments.name)
    try:
        instructions = disassemble(loaded, name)
    except ImportError as error:
        raise missing_disassembler("disasm", error) from None
    if arguments.json:
        rows = [
            {**each._asdict(), "address": f"{each.address:#x}", "code": each.code.hex()}
            for each in instructions
        ]
        address = f"{loaded.routine(name):#x}"
        output.print_json({"name": name, "address": address, "instructions": rows})
    else:
        _print(name, instructions)
    return OK


def _routine(name: str) -> tuple[str, LoadedImage]:
    """Return the routine of a name, and its image."""
    from asm_libcalls.binding import default_binding
    from asm_libcalls.llvm.binding import default_llvm_binding

    backend = default_binding().x86_64
    if backend is not None and name in backend.loaded.image.routines:
        return backend.routine_of(name), backend.loaded
    libcall = find_libcall(name)
    if libcall.backend != "x86_64" or backend is None:
        raise CommandError(
            f"{libcall.name} is served by the {libcall.backend}, there is no machine code to "
            f"show: {libcall.reason}",
            NOT_HERE,
        )
    if libcall.name in default_llvm_binding().libcalls:
        return libcall.symbol, default_llvm_binding().loaded or backend.loaded
    return backend.routine_of(libcall.name), backend.loaded


def _print(name: str, instructions: list[Instruction]) -> None:
    size = sum(len(instruction.code) for instruction in instructions)
    print(f"{name}, {size} bytes at {instructions[0].address:#x}:")
    code_width = max(len(instruction.code.hex(" ")) for instruction in instructions)
    text_width = max((len(i.text) for i in instructions if i.comment), default=0)
    for i in instructions:
        if i.label:
            print(f"{i.label}:")
        comment = f"  ; {i.comment}" if i.comment else ""
        text = i.text.ljust(text_width) if comment else i.text
        print(f"  +{i.offset:<4x} {i.address:x}  {i.code.hex(' '):<{code_width}}  {text}{comment}")
