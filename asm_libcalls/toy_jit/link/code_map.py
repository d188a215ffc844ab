"""Map from addresses of compiled code to functions and instructions, for backtraces."""

from __future__ import annotations

import bisect

from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.native.process import trap_observers
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.toy_jit.backtrace import WasmFrame, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.traps import Trap

__all__ = ["extend", "find", "forget", "register"]


class _Code:
    """The addresses of a module's functions and calls."""

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
    """Add a module's code to the map."""
    _codes[address] = _Code(module, layout, address)
    bisect.insort(_starts, address)


def forget(address: int) -> None:
    """Forget the code that begins at `address`."""
    _starts.remove(address)
    del _codes[address]


def find(return_address: int) -> WasmFrame | None:
    """Return the frame with a return address, or None if that is not in compiled code."""
    before = _starts[: bisect.bisect_right(_starts, return_address)]
    # Another thread may have forgotten the code meanwhile; then the address is not in it.
    code = _codes.get(before[-1]) if before else None
    return code.frame(return_address) if code is not None else None


def extend(trap: Trap) -> None:
    """Add to a trap that leaves a Python function the frames of the code that called it."""
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
    notes = [note for note in getattr(trap, "__notes__", ()) if not note.startswith(_TITLE)]
    trap.__notes__ = [*notes, "\n".join((_TITLE, *describe(found)))]


def _observe(trap: Trap) -> None:
    _add(trap, trap.trace)


trap_observers.append(_observe)
