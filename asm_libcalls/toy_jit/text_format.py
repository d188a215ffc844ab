"""Conversion of the text format (.wat), by wabt's wat2wasm or else the package wasmtime."""

from __future__ import annotations

import shutil
import subprocess


class NoConverter(RuntimeError):
    """No converter of the text format is installed."""


class TextRefused(ValueError):
    """The converter refuses the text; its message names the place."""


def convert(text: bytes, name: str) -> bytes:
    """Convert a module in the text format to the binary format; errors call it `name`.

    Raise TextRefused, or NoConverter.
    """
    converter = shutil.which("wat2wasm")
    if converter is not None:
        done = subprocess.run(
            [converter, "-", "--output=-"], input=text, capture_output=True, check=False
        )
        if done.returncode:
            message = done.stderr.decode(errors="replace").strip()
            raise TextRefused(f"wat2wasm refuses {name}:\n{message}")
        return done.stdout
    try:
        import wasmtime  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise NoConverter(
            f"{name} needs a converter of the text format, and there is none here: install wabt "
            '(its "wat2wasm"), or the Python package with pip install wasmtime'
        ) from None
    try:
        return bytes(wasmtime.wat2wasm(text))
    except wasmtime.WasmtimeError as error:
        raise TextRefused(f"wasmtime refuses {name}:\n{error}") from None
