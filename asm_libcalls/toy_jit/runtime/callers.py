"""``access_caller``: find the instance that called the host function that is running."""

from __future__ import annotations

import ctypes
from functools import wraps

from asm_libcalls.native.stack_walker import calling_frame
from asm_libcalls.runtime.instance import instance_of
from asm_libcalls.signatures.arguments import shown
from asm_libcalls.toy_jit.codegen.places import VMCTX_IN_FRAME
from asm_libcalls.toy_jit.link import code_map
from asm_libcalls.toy_jit.runtime.compiled_instance import CompiledInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def calling_runtime() -> CompiledInstance | None:
    """Return the instance whose code called this thread's innermost host function.

    None if Python called it. The caller is taken from its frame, not from the links between
    instances: so it is right too where another instance re-exports the host function.
    """
    frame = calling_frame()
    if frame is None or code_map.find(frame[0]) is None:
        return None
    instance = instance_of(ctypes.c_size_t.from_address(frame[1] + VMCTX_IN_FRAME).value)
    assert isinstance(instance, CompiledInstance)
    return instance


def access_caller(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a host function that gets the calling instance as its first argument.

    The name is wasmtime-py's. The function needs no variable for the instance, and works for any
    number of instances::

        @toy_jit.access_caller
        def log(caller, address, length):
            print(bytes(caller.memory)[address : address + length].decode())

        instance = toy_jit.Instance(module, {"env": {"log": log}})

    Parameters
    ----------
    function : callable
        Called with the :class:`~asm_libcalls.toy_jit.Instance` whose code calls it, and the
        arguments. This works in a start function too. If Python calls it, it gets None.

    Returns
    -------
    callable
        For use as an import.
    """
    if not callable(function):
        raise TypeError(f"access_caller(): function must be callable, got {shown(function)}")

    @wraps(function)
    def call(*arguments: Any) -> Any:
        runtime = calling_runtime()
        return function(None if runtime is None else runtime.owner, *arguments)

    return call
