"""What a trap says: the WebAssembly functions and byte offsets that it came through."""

from __future__ import annotations

import bisect

from asm_libcalls.entry import trap_observers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.linker import CompiledCode
    from asm_libcalls.toy_jit.module import Module
    from asm_libcalls.traps import Trap

__all__ = ["WasmFrame", "register"]


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


_starts: list[int] = []
_codes: dict[int, tuple[Module, CompiledCode]] = {}  # code is never unmapped, so neither is this


def register(module: Module, code: CompiledCode) -> None:
    """Make the addresses of a module's code known."""
    if code.size:
        bisect.insort(_starts, code.address)
        _codes[code.address] = (module, code)


def _frame(address: int) -> WasmFrame | None:
    at = bisect.bisect_right(_starts, address) - 1
    if at < 0:
        return None
    module, code = _codes[_starts[at]]
    site = code.site_of(address)
    if site is None:
        return None
    index = site[0] + module.imported_functions
    exported = (e.name for e in module.exports if e.kind == "func" and e.index == index)
    name = module.function_names.get(index) or next(exported, None)
    return WasmFrame(index, name, site[1])


def _observe(trap: Trap) -> None:
    frames = tuple(frame for frame in map(_frame, trap.trace) if frame is not None)
    if frames:
        trap.wasm_backtrace = frames
        if hasattr(trap, "add_note"):  # CPython 3.11 and later show it below the message
            lines = [
                f"  {'in' if i == 0 else 'called by'} {frame}" for i, frame in enumerate(frames)
            ]
            trap.add_note("WebAssembly backtrace:\n" + "\n".join(lines))


trap_observers.append(_observe)
