"""What compiled code calls beside the libcalls: stack limits, interrupts, ``table.get``.

All of it is Python behind thunks, since it is rare: a thread's first entry, a request to stop, and
a reference that comes out of a table and has to be rooted.
"""

from __future__ import annotations

import ctypes
from _thread import _local

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import libc
from asm_libcalls.native.host_function import HostFunction
from asm_libcalls.runtime import externref
from asm_libcalls.runtime.activations import stack_frames
from asm_libcalls.runtime.instance import Instance, instance_of
from asm_libcalls.toy_jit import backtrace
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.traps import TableOutOfBounds, Trap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.toy_jit.link.linker import CompiledCode

__all__ = ["VMCTX_IN_FRAME", "CompiledInstance", "fill_slots", "runtime_addresses"]

_MARGIN = 512 * 1024
"""Bytes of the native stack that compiled code leaves to the host functions that it calls."""

VMCTX_IN_FRAME = -8
"""From rbp, where every frame of compiled code has its vmctx."""


class CompiledInstance(Instance):
    """What compiled code runs in.

    Attributes
    ----------
    code : CompiledCode
        What it runs, kept as long as this instance or a function of it is there.
    function_keepers : set of Instance
        The instances of function references that were given to it.
    asked_to_trap : bool
        Whether it is to trap at its next check.
    owner : asm_libcalls.toy_jit.Instance
        What users have of it; its functions keep it alive, as they do this.
    """

    owner: Any

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self.code = code
        self.function_keepers: set[Instance] = set()
        self.asked_to_trap = False
        super().__init__(**parts)
        interrupts.stoppable[self.vmctx] = self

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
            self._release()

    def __del__(self) -> None:
        # Code that runs has a function of the instance, so this one has none running.
        if getattr(self, "_vmctx", 0) and interrupts is not None:
            self._release()

    def _release(self) -> None:
        interrupts.stoppable.pop(self.vmctx, None)
        interrupts.ask_to_stop(self, trap=False)
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
    if index >= len(table):
        raise TableOutOfBounds
    pointer = table.raw(index, 1)[0]
    if pointer:
        owned = externref.retain(pointer)
        instance.activations_table.insert_with_gc(owned, instance.stack_map_registry)
    return pointer


class _ThreadStack:
    """The bounds of this thread's stack, from the C library."""

    def __init__(self) -> None:
        c_int, pointer = ctypes.c_int, ctypes.c_void_p
        self._self = libc.prototype("pthread_self", ctypes.c_ulong)
        self._get = libc.prototype("pthread_getattr_np", c_int, ctypes.c_ulong, pointer)
        self._stack = libc.prototype("pthread_attr_getstack", c_int, pointer, pointer, pointer)
        self._destroy = libc.prototype("pthread_attr_destroy", c_int, pointer)

    def limit(self) -> int:
        """Return the lowest stack pointer that compiled code may have, and note it down."""
        record = interrupts.current_record()
        assert record is not None  # it is entering
        if not hasattr(_limits, "value"):
            _limits.value = self._work_out()
        limit: int = _limits.value
        record.stack_limit = limit
        interrupts.watcher.entered(record)
        return limit

    def _work_out(self) -> int:
        attributes = (ctypes.c_uint64 * 16)()  # glibc's has 56 bytes
        low, size = ctypes.c_size_t(), ctypes.c_size_t()
        at = ctypes.addressof(attributes)
        if self._get(self._self(), at):
            raise MemoryError("the bounds of this thread's stack are not known")
        self._stack(at, ctypes.addressof(low), ctypes.addressof(size))
        self._destroy(at)
        return int(low.value + min(_MARGIN, size.value // 4))


_limits = _local()
_stack = _ThreadStack()
_functions: dict[str, HostFunction] = {}


def _address(name: str) -> int:
    if name not in _functions:
        table: dict[str, tuple[Callable[..., int | None], str]] = {
            "toy_jit_table_get": (_table_get, "(vmctx, u32, u32) -> externref"),
            "toy_jit_interrupted": (interrupts.interrupted, "(vmctx)"),
            "toy_jit_stack_limit": (_stack.limit, "() -> pointer"),
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
    names = ("toy_jit_interrupted", "toy_jit_table_get")
    return {**binding.symbols(), **{name: _address(name) for name in names}}


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
