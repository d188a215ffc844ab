"""Files of subcommands: a module to read, and files to write."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from asm_libcalls.cli.subcommands import CHECK_FAILED, NOT_HERE, USAGE, CommandError

if TYPE_CHECKING:
    import argparse


def add_module(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments for a module, and how it is compiled."""
    parser.add_argument(
        "file", metavar="FILE", help="a module: .wasm, or .wat; - is standard input"
    )
    parser.add_argument(
        "--inline",
        action="store_true",
        help="use a CPU instruction in place of a libcall where there is one",
    )


def read_module(name: str) -> bytes:
    """Read a module, - for standard input; convert the text format."""
    path = Path(name)
    try:
        content = sys.stdin.buffer.read() if name == "-" else path.read_bytes()
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}", USAGE) from None
    is_text = content.lstrip().startswith((b"(", b";;")) if name == "-" else path.suffix == ".wat"
    if not is_text:
        return content
    from asm_libcalls.toy_jit.text_format import NoConverter, TextRefused, convert

    try:
        return convert(content, str(path))
    except TextRefused as error:
        raise CommandError(str(error), CHECK_FAILED) from None
    except NoConverter as error:
        raise CommandError(str(error), NOT_HERE) from None


def refuse_same_file(source: str, target: str) -> None:
    """Raise CommandError where writing one file would replace the other; - is no file's name."""
    paths = [Path(name) for name in (source, target) if name != "-"]
    if all(path.is_file() for path in paths) and len(paths) == 2 and paths[0].samefile(paths[1]):
        raise CommandError(f"{target} is the same file as {source}, and is not replaced", USAGE)


def write_files(files: dict[Path, bytes]) -> None:
    """Write all files or none; a process that has loaded an old one keeps it.

    Each is written under another name, and all are renamed at the end, in order. Devices
    and pipes are not replaced: they are written to, at the end. A symbolic link stays one.
    """
    unfinished: dict[Path, Path] = {}
    path = Path()
    try:
        special = [path for path in files if path.exists() and not path.is_file()]
        for path, content in files.items():
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if path in special:
                continue
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.resolve().parent)
            unfinished[path] = Path(name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            mask = os.umask(0)
            os.umask(mask)
            Path(name).chmod(0o666 & ~mask)
        for path, content in files.items():
            if path in special:
                path.write_bytes(content)
            else:
                unfinished[path].replace(path.resolve())
                del unfinished[path]
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror or error}", USAGE) from None
    finally:
        for left in unfinished.values():
            left.unlink()
