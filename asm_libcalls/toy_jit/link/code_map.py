"""Map from addresses of compiled code to functions and instructions, for backtraces."""

from __future__ import annotations

import bisect
import itertools
from contextlib import suppress

from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.native.backtraces import describe, name_frames, set_note
from asm_libcalls.native.process import trap_observers
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.steps import step
from asm_libcalls.toy_jit.backtrace import WasmFrame
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.module import Module

__all__ = ["extend", "find", "forget", "moment", "register"]


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
_MOMENT = "_wasm_backtrace_moment"

moment = itertools.count().__next__
"""Counts calls of Python functions and backtraces, to tell which came first."""

_starts: list[int] = []  # sorted
_codes: dict[int, _Code] = {}


def register(module: Module, layout: CodeLayout, address: int) -> None:
    """Add a module's code to the map."""
    _codes[address] = _Code(module, layout, address)
    _insert(address)


@step
def _insert(address: int) -> None:
    bisect.insort(_starts, address)


def forget(address: int) -> None:
    """Forget the code that begins at `address`."""
    _remove(address)
    del _codes[address]


@step
def _remove(address: int) -> None:
    _starts.remove(address)


@step
def _start_before(return_address: int) -> int:
    at = bisect.bisect_right(_starts, return_address)
    return _starts[at - 1] if at else 0


def find(return_address: int) -> WasmFrame | None:
    """Return the frame with a return address, or None if that is not in compiled code."""
    start = _start_before(return_address)
    # Another thread may have forgotten the code meanwhile; then the address is not in it.
    code = _codes.get(start)
    return code.frame(return_address) if code is not None else None


def extend(error: BaseException, since: int) -> None:
    """Add to an exception that leaves a Python function the frames of the code that called it.

    Parameters
    ----------
    error : BaseException
    since : int
        The :func:`moment` at which the Python function was called. What was added before that is
        of an earlier raise of the same object, and is replaced.
    """
    with suppress(Exception):  # no backtrace rather than another exception
        _extend(error, since)


def _extend(error: BaseException, since: int) -> None:
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    if attributes.get(_MOMENT, since) < since:
        attributes["wasm_backtrace"] = ()
    if len(attributes.get("wasm_backtrace", ())) >= MAXIMUM_TRACE:
        return
    trace = tuple(address for address, _ in stack_frames(innermost=True) or ())[:MAXIMUM_TRACE]
    if isinstance(error, Trap) and not error.trace:
        error.trace = trace
        name_frames(error)
    _add(error, trace)


def _add(error: BaseException, trace: Iterable[int]) -> None:
    # Not setattr: the class of a user's exception may define it.
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    before = attributes.get("wasm_backtrace", ())
    added = tuple(frame for frame in map(find, trace) if frame is not None)
    found = (*before, *added)[:MAXIMUM_TRACE]
    if found == before:
        return
    attributes["wasm_backtrace"] = found
    attributes[_MOMENT] = moment()
    set_note(error, _TITLE, describe(found))


def _observe(trap: Trap) -> None:
    _add(trap, trap.trace)


trap_observers.append(_observe)
