"""``build-library FILE.so``: writes the libcalls as a shared object for other tools."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from asm_libcalls.cli.files import write_files
from asm_libcalls.cli.subcommands import NOT_HERE, OK, USAGE, CommandError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from asm_libcalls.libcalls import Declaration

HELP = "write the libcalls as a shared object that other tools load by name"
DESCRIPTION = """Write an ELF shared object with the libcalls that are pure machine code: rounding,
64-bit integers, and memories except growing. Other tools load it by name (ctypes.CDLL, cffi's
dlopen, llvmlite's load_library_permanently, a linker) and find wasmtime_f64_nearest and its
relatives in it, without Python. A trap calls the function given to asm_libcalls_set_trap_handler;
without one, it ends the process by SIGILL. With --table llvm the library has __divti3 and its
relatives, which end the process by SIGFPE."""

_LEVELS = {
    "x86-64-v2": "x86-64-v2",
    "x86-64-v3": "x86-64-v3",
    "x86-64-v4": "x86-64-v4-erms",  # every such CPU has fast string instructions
}
_NATIVE = "native"

_TABLES = {
    "wasmtime": ("library", "asm_libcalls.libcalls"),
    "llvm": ("llvm_library", "asm_libcalls.llvm.libcalls"),
}
"""The library's image and the module of the rows, by table."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE.so", help="what to write; replaced if it is there")
    parser.add_argument(
        "--table",
        choices=[*_TABLES],
        default="wasmtime",
        help="which libcalls: Wasmtime's, or LLVM's under compiler-rt's names, for use without "
        "compiler-rt (default: %(default)s)",
    )
    parser.add_argument(
        "--cpu-level",
        choices=[*_LEVELS, _NATIVE],
        default="x86-64-v2",
        help="the oldest CPUs that can run it, or this one (default: %(default)s); the dynamic "
        "linker refuses to load it on older ones",
    )
    parser.add_argument("--header", metavar="FILE.h", help="write the C declarations too")


def run(arguments: argparse.Namespace) -> int:
    """Write the library, print a summary, and return the exit code."""
    from asm_libcalls.emitter.availability import Unavailable
    from asm_libcalls.x86_64 import code_cache

    kind, module = _TABLES[arguments.table]
    try:
        image, content = code_cache.content(
            kind, _features(arguments.cpu_level), Path(arguments.file).name
        )
    except Unavailable as reason:
        raise CommandError(f"no library can be made: {reason}", NOT_HERE) from None
    rows = import_module(module).DECLARATIONS.values()
    declarations = [row for row in rows if {row.name, row.symbol} & image.routines.keys()]
    files = {Path(arguments.file): content}
    if arguments.header:
        header = Path(arguments.header)
        if header.resolve() == Path(arguments.file).resolve():
            raise CommandError(f"{header} cannot be both the library and the header", USAGE)
        files = {header: _header(arguments.table, declarations).encode(), **files}
    write_files(files)
    count, level = len(declarations), arguments.cpu_level
    print(f"{arguments.file}: {count} libcalls for {level}, {len(content)} bytes")
    return OK


def _features(level: str) -> frozenset[str]:
    from asm_libcalls.x86_64.image_kinds import LEVELS

    if level != _NATIVE:
        return LEVELS[_LEVELS[level]]
    from asm_libcalls.binding import default_binding

    backend = default_binding().x86_64
    if backend is None:
        raise CommandError(
            f"what this CPU can run is not known: {default_binding().x86_64_reason}; "
            "name a level with --cpu-level",
            NOT_HERE,
        )
    return backend.cpu.features


_TRAPS = """\
typedef struct VMContext VMContext;

/* Set the function that is called when a libcall traps, and return the previous one. It
   must not return; without one the process ends. */
typedef void (*asm_libcalls_trap_handler)(uint32_t code);
asm_libcalls_trap_handler {}(asm_libcalls_trap_handler handler);"""


def _header(table: str, declarations: Sequence[Declaration]) -> str:
    from asm_libcalls import __version__
    from asm_libcalls.trap_codes import TrapCode
    from asm_libcalls.x86_64.library import SET_TRAP_HANDLER

    is_llvm = table == "llvm"
    what = "what LLVM calls" if is_llvm else "WebAssembly runtime libcalls"
    guard = f"ASM_LIBCALLS_{'LLVM_' * is_llvm}H"
    lines = [
        f"/* The library that asm_libcalls {__version__} writes: {what}. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "#include <stdint.h>",
        "#ifdef __cplusplus",
        'extern "C" {',
        "#endif",
        "",
    ]
    if not is_llvm:
        lines.append(_TRAPS.format(SET_TRAP_HANDLER))
        lines += [f"#define ASM_LIBCALLS_TRAP_{code.name} {int(code)}" for code in TrapCode]
        lines.append("")
    for declaration in declarations:
        lines += [f"/* {declaration.doc} */", declaration.c_declaration]
    lines += ["", "#ifdef __cplusplus", "}", "#endif", "#endif", ""]
    return "\n".join(lines)
