"""Frames of WebAssembly functions: the items of an exception's ``wasm_backtrace``."""

from __future__ import annotations

from asm_libcalls.signatures.arguments import printable


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
        name = printable(self.function_name or f"function {self.function_index}")
        return f"{name} at byte {self.offset:#x}"

    def __repr__(self) -> str:
        return f"<WasmFrame {self}>"
