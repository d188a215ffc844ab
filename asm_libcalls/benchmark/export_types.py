"""Exports of toy_jit for the suite of calls: functions that return their arguments, by type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asm_libcalls.benchmark.timing import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# The types of parameters and results and the code of the function, in the binary format; arguments.
_EXPORTS: dict[str, tuple[str, str, str, tuple[Any, ...]]] = {
    OURS: ("7e7e", "7e", "2000", (0, 1)),  # two i64
    "eight i64": ("7e" * 8, "7e", "2007", tuple(range(8))),
    "i32 and f64, two results": ("7f7c", "7c7f", "20012000", (0, 1)),
    "v128": ("7b", "7b", "2000", (2**100,)),
    "externref": ("6f", "6f", "2000", (object(),)),
    "externref, None": ("6f", "6f", "2000", (None,)),
    "funcref": ("70", "70", "2000", ()),  # itself
}


def functions() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Make the exports; return each with arguments, by a description of its types."""
    from asm_libcalls.toy_jit import Instance, Module

    made = {}
    for label, (parameters, results, body, arguments) in _EXPORTS.items():
        sections = (
            (1, b"\x01\x60" + _types(parameters) + _types(results)),
            (3, b"\x01\x00"),
            (7, b"\x01\x01f\x00\x00"),
            (10, b"\x01" + _sized(b"\x00" + bytes.fromhex(body) + b"\x0b")),
        )
        wasm = b"\0asm\1\0\0\0" + b"".join(bytes([i]) + _sized(each) for i, each in sections)
        function = Instance(Module(wasm)).exports["f"]
        values = arguments or (function,)
        function(*values)  # the first call makes its builtin
        made[label] = function, values
    return made


def _types(text: str) -> bytes:
    return _sized(bytes.fromhex(text))


def _sized(content: bytes) -> bytes:
    return bytes([len(content)]) + content
