"""Map from addresses of compiled code to functions and instructions, for backtraces."""

from __future__ import annotations

import bisect
import itertools
from contextlib import suppress
from functools import partial

from asm_libcalls.activation import MAXIMUM_TRACE
from asm_libcalls.emitter.address_map import AddressMap
from asm_libcalls.native.backtraces import describe, found, set_note
from asm_libcalls.native.process import trap_observers
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.toy_jit.backtrace import WasmFrame
from asm_libcalls.traps import Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.link.code_tables import CodeTables


class _Code:
    """The addresses of a module's functions and calls."""

    def __init__(self, module: Module, tables: CodeTables, address: int) -> None:
        self.module = module
        self.address = address
        self.starts = [start for start, _ in tables.functions]
        self.returns = tables.returns
        self.origins = tables.origins

    def frame(self, return_address: int) -> WasmFrame | None:
        at = return_address - self.address
        i = bisect.bisect_left(self.returns, at)
        if i == len(self.returns) or self.returns[i] != at:
            return None
        defined_index = bisect.bisect_right(self.starts, at - 1) - 1
        index = self.module.imported_functions + defined_index
        return WasmFrame(index, self.module.function_name(index), self.origins[i])


_TITLE = "WebAssembly backtrace:"
_MOMENT = "_wasm_backtrace_moment"

moment = itertools.count().__next__
"""Counts calls of Python functions and backtraces, to tell which came first."""

_codes = AddressMap()


def register(module: Module, tables: CodeTables, address: int) -> None:
    """Add a module's code to the map."""
    _codes.put(address, _Code(module, tables, address))


def forget(address: int) -> None:
    """Forget the code that begins at `address`, if it is known."""
    _codes.remove(address)


def find(return_address: int) -> WasmFrame | None:
    """Return the frame with a return address, or None if that is not in compiled code."""
    code = _codes.before(return_address)
    return code.frame(return_address) if code is not None else None


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function so that its exceptions have the frames of the code that called it."""

    def call(*arguments: Any) -> Any:
        called = moment()
        try:
            return function(*arguments)
        except BaseException as error:  # of a signal handler, for example
            extend(error, called)
            raise

    return call


def extend(error: BaseException, since: int) -> None:
    """Add to an exception that leaves a Python function the frames of the code that called it.

    `since` is the :func:`moment` at which the Python function was called. What was added before
    that is of an earlier raise of the same object, and is replaced.
    """
    with suppress(Exception):  # no backtrace rather than another exception
        _extend(error, since)


def _extend(error: BaseException, since: int) -> None:
    without_trace = isinstance(error, Trap) and not error.trace  # this adds pending attributes
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    if attributes.get(_MOMENT, since) < since:
        attributes["wasm_backtrace"] = ()
    if len(attributes.get("wasm_backtrace", ())) >= MAXIMUM_TRACE:
        return
    trace = tuple(address for address, _ in stack_frames(innermost=True) or ())[:MAXIMUM_TRACE]
    if without_trace and isinstance(error, Trap):
        found(trace)(error)
    _add(error, _find_codes(trace))


def _find_codes(trace: Iterable[int]) -> list[tuple[_Code, int]]:
    """Return the return addresses in compiled code, each with that code."""
    codes = ((_codes.before(address), address) for address in trace)
    return [(code, address) for code, address in codes if code is not None]


def _add(error: BaseException, codes: Iterable[tuple[_Code, int]]) -> None:
    # Not setattr: the class of a user's exception may define it.
    attributes: dict[str, Any] = object.__getattribute__(error, "__dict__")
    before = attributes.get("wasm_backtrace", ())
    frames = (code.frame(address) for code, address in codes)
    added = tuple(frame for frame in frames if frame is not None)
    if not added or len(before) >= MAXIMUM_TRACE:
        return
    backtrace = (*before, *added)[:MAXIMUM_TRACE]
    attributes["wasm_backtrace"] = backtrace
    attributes[_MOMENT] = moment()
    set_note(error, _TITLE, describe(backtrace))


def _observe(trace: tuple[int, ...]) -> Callable[[Trap], None] | None:
    codes = _find_codes(trace)
    return partial(_add, codes=codes) if codes else None


trap_observers.append(_observe)
