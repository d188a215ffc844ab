"""``run FILE``: compiles a WebAssembly module with toy_jit and calls one of its functions."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from asm_libcalls import output
from asm_libcalls.cli.call import restore_negative_numbers
from asm_libcalls.cli.files import add_module, read_module
from asm_libcalls.cli.subcommands import (
    CHECK_FAILED,
    NOT_HERE,
    OK,
    TRAPPED,
    USAGE,
    CommandError,
    missing_disassembler,
)
from asm_libcalls.signatures.arguments import counted, printable

if TYPE_CHECKING:
    import argparse

    from asm_libcalls.toy_jit import Func, Instance, Module
    from asm_libcalls.toy_jit.wasi import Preview1
    from asm_libcalls.traps import Trap

HELP = "compile a WebAssembly module, and run it or call a function of it"
DESCRIPTION = """Compile a WebAssembly module with toy_jit, whose instructions call the libcalls,
and call an exported function, by default _start. A program made for WASI preview 1 gets the words
after FILE as its arguments (write -- before them), the standard streams, and the folders and
variables named by options; its exit code is that of the command. Other functions get numbers,
written as for "call", and null for a reference; each result is a line. A file that ends in .wat is
converted first, by wabt's wat2wasm or the Python package wasmtime."""

START = "_start"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_module(parser)
    parser.add_argument(
        "arguments",
        metavar="ARG",
        nargs="*",
        default=[],  # else argparse lists it among what is required
        help="an argument of the program, or a value for each parameter, in order",
    )
    parser.add_argument(
        "--dir",
        metavar="HOST[::GUEST]",
        action="append",
        default=[],
        help="a folder that a program may use, and its name for it",
    )
    parser.add_argument(
        "--env",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="a variable of the program's environment; without a value, that of this one",
    )
    parser.add_argument("--invoke", metavar="NAME", help="the export to call, instead of _start")
    parser.add_argument(
        "--stats",
        action="store_true",
        help="print compile time, code size, and the number of calls of each libcall",
    )
    parser.add_argument(
        "--disasm",
        metavar="FUNC",
        help="show the code of a function, by name or index; without --invoke nothing is run",
    )
    parser.add_argument(
        "--allow-precompiled",
        action="store_true",
        help='take a FILE of "compile" too; its machine code must be trusted',
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=math.inf,
        help="trap after that much computing time, the start function included",
    )


def _seconds(text: str) -> float:
    """Convert the number of seconds of --timeout."""
    import argparse

    (text,) = restore_negative_numbers([text])
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds, or is negative")
    return seconds


def run(arguments: argparse.Namespace) -> int:
    """Compile, call, print, and return the exit code."""
    from asm_libcalls import toy_jit
    from asm_libcalls.traps import Trap

    content = read_module(arguments.file)
    try:
        module_class = toy_jit.Module  # imported before the clock starts: this loads the stencils
        start = time.perf_counter()
        module = _make(module_class, content, arguments)
        seconds = time.perf_counter() - start
    except toy_jit.InvalidModule as error:
        raise CommandError(f"{arguments.file} is not valid: {error}", CHECK_FAILED) from None
    except toy_jit.DeserializeError as error:
        raise CommandError(f"{arguments.file} cannot be used: {error}", CHECK_FAILED) from None
    except (RuntimeError, OSError) as error:
        raise CommandError(str(error), NOT_HERE) from None
    status = OK
    try:
        if arguments.disasm is not None:
            _print_listing(module, arguments.disasm)
        if arguments.invoke is not None or arguments.disasm is None:
            status = _run(module, arguments)
    except Trap as trap:
        _print_trap(arguments.file, trap)
        status = TRAPPED
    finally:
        if arguments.stats:
            _print_stats(module, len(content), seconds)
    return status


def _make(module_class: type[Module], content: bytes, arguments: argparse.Namespace) -> Module:
    """Compile a module; deserialize it if it has been compiled."""
    from asm_libcalls.toy_jit import compile_options
    from asm_libcalls.toy_jit.link.serialized import MAGIC

    options = {
        "inline": arguments.inline,
        "count_libcalls": arguments.stats,
        "listing": arguments.disasm is not None,
    }
    if not content.startswith(MAGIC):
        return module_class(content, compile_options(**options))
    if not arguments.allow_precompiled:
        raise CommandError(
            f"{arguments.file} is compiled: it contains machine code, which nothing checks. "
            "--allow-precompiled runs it, if you trust it",
            USAGE,
        )
    if any(options.values()):
        raise CommandError(
            f"{arguments.file} is compiled: --inline, --stats and --disasm are for compiling", USAGE
        )
    return module_class.deserialize(content)


def _run(module: Module, arguments: argparse.Namespace) -> int:
    from asm_libcalls import toy_jit
    from asm_libcalls.toy_jit.runtime.imports import WASI

    others = [f"  {each}" for each in module.imports if each.module != WASI]
    if others:
        raise CommandError(
            f"{arguments.file} imports what the command line does not have; in Python "
            "asm_libcalls.toy_jit.Instance takes it:\n" + "\n".join(others),
            NOT_HERE,
        )
    is_program = bool(module.imports)
    if not is_program and (arguments.dir or arguments.env):
        raise CommandError(
            f"--dir and --env are for modules that import {WASI}, and {arguments.file} does not",
            USAGE,
        )
    function = _function(module, arguments)
    starts = is_program and function is not None and arguments.invoke is None
    words, patterns = arguments.arguments if starts else [], []
    if function is not None and not starts:
        patterns = _patterns(function, arguments.arguments)
    with _wasi(arguments, words) if is_program else nullcontext() as wasi:
        deadline = time.monotonic() + arguments.timeout
        instance = toy_jit.Instance(module, wasi, time_limit=arguments.timeout)
        if function is None:
            _print_exports(instance)
            return OK
        func = instance.exports[function[0]]
        with instance.time_limit(max(0.0, deadline - time.monotonic())):
            try:
                if wasi is not None and starts:
                    return wasi.start(instance) & 0xFF  # an exit code has eight bits
                if wasi is not None and START not in instance.exports:
                    wasi.initialize(instance)
                results = func.call_bits(*patterns)
            except toy_jit.wasi.Exit as end:
                return end.code & 0xFF
    _print_results(func, results)
    return OK


def _wasi(arguments: argparse.Namespace, words: list[str]) -> Preview1:
    """Make the WASI imports of a program from the command line's options."""
    from asm_libcalls.toy_jit.wasi import Preview1

    env = {}
    for text in arguments.env:
        name, is_given, value = text.partition("=")
        if is_given:
            env[name] = value
        elif name in os.environ:
            env[name] = os.environ[name]
    preopens = {}
    for text in arguments.dir:
        host, _, guest = text.partition("::")
        preopens[guest or host] = host
    sys.stdout.flush()
    try:
        return Preview1(
            args=[arguments.file, *words],
            env=env,
            stdin=sys.stdin,
            stdout=sys.stdout,
            stderr=sys.stderr,
            preopens=preopens,
        )
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}", USAGE) from None
    except ValueError as error:
        raise CommandError(str(error), USAGE) from None


def _function(module: Module, arguments: argparse.Namespace) -> tuple[str, Any] | None:
    """Return the name and the type of the export to call; None if none is called."""
    decoded = module.decoded
    exported = {
        e.name: decoded.functions[e.index].type for e in decoded.exports if e.kind == "func"
    }
    name = arguments.invoke
    if name is None:
        if START not in exported:
            if arguments.arguments:
                raise CommandError(
                    f"{arguments.file} exports no {START}: name the function with --invoke", USAGE
                )
            return None
        name = START
    if name not in exported:
        from difflib import get_close_matches

        near = get_close_matches(name, exported, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {_list(exported)}"
        raise CommandError(f"{arguments.file} exports no function {name!r}; {hint}", USAGE)
    return name, exported[name]


def _list(names: Any) -> str:
    return ", ".join(map(printable, names)) or "none"


def _patterns(function: tuple[str, Any], texts: list[str]) -> list[Any]:
    from asm_libcalls.signatures import WASM_NUMBERS
    from asm_libcalls.signatures.literals import parse
    from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES

    name, functype = function
    types = [VALUE_TYPE_NAMES[t] for t in functype.params]
    if len(texts) != len(types):
        raise CommandError(
            f"{name} takes {counted(len(types), 'value')} [{' '.join(types)}], got {len(texts)}",
            USAGE,
        )
    patterns: list[Any] = []
    for i, (type_name, text) in enumerate(zip(types, texts, strict=True)):
        where = f"{name}: argument {i + 1}"
        if type_name in WASM_NUMBERS:
            try:
                patterns.append(parse(WASM_NUMBERS[type_name], text, where))
            except (ValueError, OverflowError) as error:
                raise CommandError(str(error), USAGE) from None
        elif text == "null":
            patterns.append(None)
        else:
            raise CommandError(f"{where} must be null ({type_name}), got {text!r}", USAGE)
    return patterns


def _print_results(func: Func, results: tuple[Any, ...]) -> None:
    from asm_libcalls.signatures import WASM_NUMBERS
    from asm_libcalls.signatures.literals import describe
    from asm_libcalls.toy_jit.frontend.module import VALUE_TYPE_NAMES

    for valtype, result in zip(func.type.results, results, strict=True):
        name = VALUE_TYPE_NAMES[valtype]
        if name in WASM_NUMBERS:
            described = describe(WASM_NUMBERS[name], result)
            print(f"{described['text']}  {described['type']} {described['bits']}")
        else:
            print(f"{'null' if result is None else repr(result)}  {name}")


def _print_exports(instance: Instance) -> None:
    if not instance.exports:
        print("The module exports nothing.")
        return
    cells = [(printable(name), repr(value)) for name, value in instance.exports.items()]
    rows = [[*map(output.Cell, each)] for each in cells]
    output.print_table(("export", "what it is"), rows)


def _print_trap(file: str, trap: Trap) -> None:
    from asm_libcalls.checks.engine import trap_name
    from asm_libcalls.native.backtraces import describe

    print(f"asm-libcalls: {file} trapped: {trap} ({trap_name(trap.code)})", file=sys.stderr)
    for line in describe(trap.wasm_backtrace):
        print(line, file=sys.stderr)


def _print_stats(module: Module, size: int, seconds: float) -> None:
    functions = len(module.decoded.functions) - module.decoded.imported_functions
    lines = [
        f"{size} bytes of WebAssembly, {counted(functions, 'function')}",
        f"compiled in {seconds * 1000:.3f} ms ({size / seconds / 1000:.0f} KB a second)",
        f"{module.code.tables.size} bytes of machine code",
    ]
    counts = {name: count for name, count in module.libcall_counts().items() if count}
    width = max(map(len, counts), default=0)
    lines.append("libcalls called:" if counts else "no libcall was called")
    lines += [f"  {name:{width}}  {count}" for name, count in counts.items()]
    print("\n".join(lines), file=sys.stderr)


def _print_listing(module: Module, name: str) -> None:
    from asm_libcalls.toy_jit.link.listing import listing

    index = _index(module, name)
    decoded = module.decoded
    if index < decoded.imported_functions:
        raise CommandError(f"function {index} is imported: it has no code here", USAGE)
    start, end = module.code.tables.functions[index - decoded.imported_functions]
    try:
        lines = list(listing(module, index))
    except ImportError as error:
        raise missing_disassembler("--disasm", error) from None
    print(f"function {index}, {end - start} bytes at {module.code.address + start:#x}:")
    width = max(len(line.code.hex(" ")) for line in lines)
    for line in lines:
        comment = f"  ; {line.comment}" if line.comment else ""
        if line.code:
            print(f"  +{line.offset:<4x} {line.code.hex(' '):<{width}}  {line.text}{comment}")
        else:
            print(f"{line.offset:#x}: {line.text}" if line.offset >= 0 else f"{line.text}:")


def _index(module: Module, name: str) -> int:
    """Return the index of a function, given by either kind of name or as a number."""
    decoded = module.decoded
    names = {name: index for index, name in decoded.function_names.items()}
    names.update((e.name, e.index) for e in decoded.exports if e.kind == "func")
    if name in names:
        return names[name]
    if name.isdecimal() and int(name) < len(decoded.functions):
        return int(name)
    raise CommandError(
        f"the module has no function {name!r}: there are 0 .. {len(decoded.functions) - 1}, "
        f"and by name: {_list(names)}",
        USAGE,
    )
