"""What compiled code calls beside the libcalls: stack limits, interrupts, ``table.get``.

All of it is Python behind thunks, since it is rare: a thread's first entry, a request to stop, and
a reference that comes out of a table and has to be rooted.
"""

from __future__ import annotations

import ctypes

from asm_libcalls import externref, libc
from asm_libcalls.binding import default_binding
from asm_libcalls.entry import MachineEntry
from asm_libcalls.host_function import HostFunction
from asm_libcalls.instance import Instance, instance_of
from asm_libcalls.traps import Interrupt, TableOutOfBounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.x86_64.pages import LoadedImage

__all__ = ["ask_to_stop", "fill_slots", "root", "runtime_addresses"]

_STOP = (1 << 64) - 1  # no stack pointer is that high

_MARGIN = 512 * 1024
"""Bytes of the native stack that compiled code leaves to the host functions that it calls."""

_asked: set[int] = set()  # vmctx of the instances that Instance.interrupt() wants to stop


def ask_to_stop(instance: Instance, trap: bool) -> None:
    """Have an instance's code call us at its next check; with `trap`, to trap there."""
    if trap:
        _asked.add(instance.vmctx)
    instance.interrupts.stack_limit = _STOP


def _interrupted(vmctx: int) -> None:
    # Signal handlers have run by now: Python does that when it enters a function.
    instance = instance_of(vmctx)
    instance.interrupts.stack_limit = instance.interrupts.native_stack_limit
    if vmctx in _asked:
        _asked.discard(vmctx)
        raise Interrupt


def root(instance: Instance, pointer: int) -> int:
    """Have an externref that enters a frame kept alive by the activations table."""
    if pointer:
        owned = externref.retain(pointer)
        instance.activations_table.insert_with_gc(owned, instance.stack_map_registry)
    return pointer


def _table_get(vmctx: int, table_index: int, index: int) -> int:
    instance = instance_of(vmctx)
    table = instance.tables[table_index]
    if index >= len(table):
        raise TableOutOfBounds
    return root(instance, table.raw(index, 1)[0])


class _ThreadStack:
    """The bounds of this thread's stack, from the C library."""

    def __init__(self) -> None:
        c_int, pointer = ctypes.c_int, ctypes.c_void_p
        self._self = libc.prototype("pthread_self", ctypes.c_ulong)
        self._get = libc.prototype("pthread_getattr_np", c_int, ctypes.c_ulong, pointer)
        self._stack = libc.prototype("pthread_attr_getstack", c_int, pointer, pointer, pointer)
        self._destroy = libc.prototype("pthread_attr_destroy", c_int, pointer)

    def limit(self) -> int:
        """Work out the lowest stack pointer, and remember it in the thread's record."""
        attributes = (ctypes.c_uint64 * 16)()  # glibc's has 56 bytes
        low, size = ctypes.c_size_t(), ctypes.c_size_t()
        at = ctypes.addressof(attributes)
        if self._get(self._self(), at):
            raise MemoryError("the bounds of this thread's stack are not known")
        self._stack(at, ctypes.addressof(low), ctypes.addressof(size))
        self._destroy(at)
        limit = low.value + min(_MARGIN, size.value // 4)
        entry = default_binding().entry
        assert isinstance(entry, MachineEntry)
        entry.set_stack_limit(limit)
        return limit


_stack = _ThreadStack()
_functions: dict[str, HostFunction] = {}


def _address(name: str) -> int:
    if name not in _functions:
        table: dict[str, tuple[Callable[..., int | None], str]] = {
            "toy_jit_table_get": (_table_get, "(vmctx, u32, u32) -> externref"),
            "toy_jit_interrupted": (_interrupted, "(vmctx)"),
            "toy_jit_stack_limit": (_stack.limit, "() -> pointer"),
        }
        function, signature = table[name]
        _functions[name] = HostFunction(function, signature, bits=True)
    return _functions[name].address


def runtime_addresses() -> dict[str, int]:
    """Return the C addresses that compiled code is linked to, by symbol."""
    binding = default_binding()
    names = ("toy_jit_table_get", "toy_jit_interrupted")
    return {**binding.symbols(), **{name: _address(name) for name in names}}


def fill_slots(loaded: LoadedImage) -> None:
    """Fill in the slots of an image that enters compiled code."""
    backend = default_binding().x86_64
    assert backend is not None
    for name in loaded.image.slots:
        if name == "activations_key":
            value = backend.loaded.slot(name)
        elif name.startswith("toy_jit"):
            value = _address(name)
        else:
            value = libc.function_address(name)
        loaded.set_slot(name, value)
