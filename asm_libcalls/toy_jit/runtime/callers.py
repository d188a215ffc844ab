"""Which instance called the host function that is running: what ``access_caller`` asks."""

from __future__ import annotations

import ctypes
from functools import wraps

from asm_libcalls.native.stack_walker import calling_frame
from asm_libcalls.runtime.instance import instance_of
from asm_libcalls.toy_jit.codegen.places import VMCTX_IN_FRAME
from asm_libcalls.toy_jit.link import code_map
from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["access_caller", "calling_runtime"]


def calling_runtime() -> CompiledInstance | None:
    """Return what the code runs in that called this thread's innermost host function.

    None where that was no WebAssembly, but Python. An instance that calls an import which another
    one exports again is the caller all the same: its frame is asked, not who was linked to what.
    """
    frame = calling_frame()
    if frame is None or code_map.find(frame[0]) is None:
        return None
    instance = instance_of(ctypes.c_size_t.from_address(frame[1] + VMCTX_IN_FRAME).value)
    assert isinstance(instance, CompiledInstance)
    return instance


def access_caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a host function that is given the calling instance before its arguments.

    The name is wasmtime-py's. So a function needs no variable that is set when there is an
    instance, and works for any number of them::

        @toy_jit.access_caller
        def log(caller, address, length):
            print(bytes(caller.memory)[address : address + length].decode())

        instance = toy_jit.Instance(module, {"env": {"log": log}})

    Parameters
    ----------
    function : callable
        Called with the :class:`~asm_libcalls.toy_jit.Instance` whose code calls it, also while its
        start function runs, and the arguments. Where Python calls it, it is given None.

    Returns
    -------
    callable
        To be given as an import.
    """
    if not callable(function):
        raise TypeError(f"access_caller(): function must be callable, got {function!r}")

    @wraps(function)
    def call(*arguments: Any) -> Any:
        runtime = calling_runtime()
        return function(None if runtime is None else runtime.owner, *arguments)

    return call
