"""What compiled code calls beside the libcalls: entries, interrupts, ``table.get``.

All of it is Python behind thunks, since it is rare: a thread's first entry, a request to stop, and
a reference that comes out of a table and has to be rooted.
"""

from __future__ import annotations

import ctypes

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import libc
from asm_libcalls.native.host_function import HostFunction
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.runtime.instance import Instance, instance_of
from asm_libcalls.toy_jit import backtrace
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance
from asm_libcalls.traps import Trap
from asm_libcalls.x86_64.trampolines.thread_records import CHECK_STACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.toy_jit.link.linker import CompiledCode

__all__ = ["VMCTX_IN_FRAME", "CompiledInstance", "fill_slots", "runtime_addresses"]

VMCTX_IN_FRAME = -8
"""From rbp, where every frame of compiled code has its vmctx."""


class CompiledInstance(StoppableInstance):
    """What compiled code runs in.

    Attributes
    ----------
    code : CompiledCode
        What it runs, kept as long as this instance or a function of it is there.
    function_keepers : set of Instance
        The instances of function references that were given to it.
    owner : asm_libcalls.toy_jit.Instance
        What users have of it; its functions keep it alive, as they do this.
    """

    owner: Any

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self.code = code
        self.function_keepers: set[Instance] = set()
        super().__init__(**parts)

    def close(self) -> None:
        """Release what the instance holds; a function of it that is called then raises ValueError.

        Raises
        ------
        RuntimeError
            Code of the instance is running in this thread.
        """
        if not self.closed:
            if self._is_running():
                raise RuntimeError("close(): the Instance is running code")
            interrupts.stoppable.pop(self.vmctx, None)
            self.look()
            self._release()

    def __del__(self) -> None:
        # Code that runs has a function of the instance, so this one has none running.
        if getattr(self, "_vmctx", 0) and interrupts is not None:
            self._release()

    def _release(self) -> None:
        # What compiled code reads before its first check is elsewhere if it is imported.
        self._kept = self.memories[: self.offsets.num_imported_memories]
        super().close()

    def _is_running(self) -> bool:
        return any(
            backtrace.find(address) is not None
            and ctypes.c_size_t.from_address(frame + VMCTX_IN_FRAME).value == self.vmctx
            for address, frame in stack_frames() or ()
        )


def _table_get(vmctx: int, table_index: int, index: int) -> int:
    instance = instance_of(vmctx)
    table = instance.tables[table_index]
    (owned,) = table.owned(index, 1)
    if owned:
        instance.activations_table.insert_with_gc(owned, instance.stack_map_registry)
    return owned


_functions: dict[str, HostFunction] = {}


def _address(name: str) -> int:
    if name not in _functions:
        table: dict[str, tuple[Callable[..., int | None], str]] = {
            "toy_jit_table_get": (_table_get, "(vmctx, u32, u32) -> externref"),
            "toy_jit_interrupted": (interrupts.interrupted, "(vmctx)"),
            "toy_jit_interrupts": (interrupts.interrupts_of_thread, "() -> pointer"),
        }
        function, signature = table[name]
        _functions[name] = HostFunction(_traced(function), signature, bits=True)
    return _functions[name].address


def _traced(function: Callable[..., int | None]) -> Callable[..., int | None]:
    def call(*arguments: int) -> int | None:
        try:
            return function(*arguments)
        except Trap as trap:
            backtrace.extend(trap)
            raise

    return call


def runtime_addresses() -> dict[str, int]:
    """Return the C addresses that compiled code is linked to, by symbol."""
    binding = default_binding()
    assert binding.x86_64 is not None
    names = ("toy_jit_interrupted", "toy_jit_table_get")
    return {
        **binding.symbols(),
        **{name: _address(name) for name in names},
        CHECK_STACK: binding.x86_64.loaded.routine(CHECK_STACK),
    }


def fill_slots(loaded: LoadedImage) -> None:
    """Fill in the slots of an image that enters compiled code."""
    backend = default_binding().x86_64
    assert backend is not None
    for name in loaded.image.slots:
        if name == "activations_key":
            value = backend.loaded.slot(name)
        elif name in backend.loaded.image.routines:
            value = backend.loaded.routine(name)
        elif name.startswith("toy_jit"):
            value = _address(name)
        elif name.startswith("adapter "):
            continue  # for whoever makes an adapter of the stencil
        else:
            value = libc.function_address(name)
        loaded.set_slot(name, value)
