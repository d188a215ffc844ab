"""What a trap says: the WebAssembly functions and byte offsets that it came through."""

from __future__ import annotations

import bisect

from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.native.process import trap_observers
from asm_libcalls.native.stack_walker import stack_frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.traps import Trap

__all__ = ["WasmFrame", "describe", "extend", "find", "forget", "register"]


class WasmFrame:
    """A frame of a WebAssembly function.

    Attributes
    ----------
    function_index : int
    function_name : str or None
        From the name section or an export.
    offset : int
        Of the instruction, in bytes from the beginning of the module.
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


class _Code:
    """Where the functions and calls of a module are in memory."""

    def __init__(self, module: Module, layout: CodeLayout, address: int) -> None:
        self.module = module
        self.address = address
        self.starts = [start for start, _ in layout.functions]
        self.returns = [at for at, _ in layout.sites]
        self.offsets = [offset for _, offset in layout.sites]

    def frame(self, return_address: int) -> WasmFrame | None:
        at = return_address - self.address
        i = bisect.bisect_left(self.returns, at)
        if i == len(self.returns) or self.returns[i] != at:
            return None
        defined_index = bisect.bisect_right(self.starts, at - 1) - 1
        index = self.module.imported_functions + defined_index
        return WasmFrame(index, self.module.function_name(index), self.offsets[i])


_TITLE = "WebAssembly backtrace:"

_starts: list[int] = []  # sorted
_codes: dict[int, _Code] = {}


def register(module: Module, layout: CodeLayout, address: int) -> None:
    """Make the addresses of a module's code known."""
    _codes[address] = _Code(module, layout, address)
    bisect.insort(_starts, address)


def forget(address: int) -> None:
    """Forget the code that begins at `address`."""
    _starts.remove(address)
    del _codes[address]


def find(return_address: int) -> WasmFrame | None:
    """Return the frame whose code goes on at an address, or None if that is no code of ours."""
    before = _starts[: bisect.bisect_right(_starts, return_address)]
    # Another thread may have forgotten it meanwhile; then the address is not in it.
    code = _codes.get(before[-1]) if before else None
    return code.frame(return_address) if code is not None else None


def extend(trap: Trap) -> None:
    """Add the frames of the code that called this Python function, which a trap is leaving."""
    if len(trap.wasm_backtrace) >= MAXIMUM_TRACE:
        return
    trace = tuple(address for address, _ in stack_frames(innermost=True) or ())[:MAXIMUM_TRACE]
    if not trap.trace:
        trap.trace = trace
    _add(trap, trace)


def _add(trap: Trap, trace: Iterable[int]) -> None:
    found = tuple(frame for frame in map(find, trace) if frame is not None)
    found = (*trap.wasm_backtrace, *found)[:MAXIMUM_TRACE]
    if found == trap.wasm_backtrace:
        return
    trap.wasm_backtrace = found
    if hasattr(trap, "add_note"):  # CPython 3.11 and later show it below the message
        notes = [note for note in getattr(trap, "__notes__", ()) if not note.startswith(_TITLE)]
        trap.__notes__ = [*notes, "\n".join((_TITLE, *describe(found)))]


def describe(backtrace: Sequence[WasmFrame]) -> list[str]:
    """Write a backtrace, a line for each frame; frames that repeat themselves share one."""
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


def _observe(trap: Trap) -> None:
    _add(trap, trap.trace)


trap_observers.append(_observe)
