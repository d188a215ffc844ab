"""Frames of WebAssembly functions: the items of a trap's ``wasm_backtrace``."""

from __future__ import annotations

from asm_libcalls.activation import MAXIMUM_TRACE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["WasmFrame", "describe"]


class WasmFrame:
    """A frame of a WebAssembly function.

    Attributes
    ----------
    function_index : int
    function_name : str or None
        From the name section or an export.
    offset : int
        The instruction's, in bytes from the beginning of the module.
    """

    __slots__ = ("function_index", "function_name", "offset")

    def __init__(self, function_index: int, function_name: str | None, offset: int) -> None:
        self.function_index = function_index
        self.function_name = function_name
        self.offset = offset

    def __str__(self) -> str:
        name = self.function_name or f"function {self.function_index}"
        return f"{name} at byte {self.offset:#x}"

    def __repr__(self) -> str:
        return f"<WasmFrame {self}>"


def describe(backtrace: Sequence[WasmFrame]) -> list[str]:
    """Write a backtrace, a line for each frame; equal frames in succession share a line."""
    lines: list[list[Any]] = []
    for frame in map(str, backtrace):
        if lines and lines[-1][0] == frame:
            lines[-1][1] += 1
        else:
            lines.append([frame, 1])
    described = [
        f"  {'called by' if i else 'in'} {frame}" + (f", {count} times" if count > 1 else "")
        for i, (frame, count) in enumerate(lines)
    ]
    return [*described, "  ..."] if len(backtrace) == MAXIMUM_TRACE else described
