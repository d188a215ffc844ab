"""The Python functions that compiled code calls besides the libcalls, and the slots of its images.

They run rarely, so they are Python behind thunks: at a thread's first entry, at a request to stop,
to wait for a store (without the GIL), and to root a reference from a table when the chunk of the
activations table is full.
"""

from __future__ import annotations

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import libc
from asm_libcalls.native.host_function import HostFunction
from asm_libcalls.runtime.instance import instance_of, part_of
from asm_libcalls.runtime.store_entries import wait_for
from asm_libcalls.toy_jit.codegen import stencils
from asm_libcalls.toy_jit.codegen.stencils.entry import WAIT_SLOT
from asm_libcalls.toy_jit.codegen.templates import LOADED
from asm_libcalls.toy_jit.link import code_map
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.x86_64.externrefs import TABLE_GET
from asm_libcalls.x86_64.trampolines import ACTIVATIONS_KEY, CHECK_STACK, PYTHON, RAISE_TRAP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from asm_libcalls.emitter.pages import LoadedImage


def _table_get(vmctx: int, table_index: int, index: int) -> int:
    instance = instance_of(vmctx)
    table = part_of(vmctx, "tables", table_index)
    owned = table.owned(index, 1)
    return instance.activations_table.insert_returned(owned, instance.stack_map_registry)


def _wait_for_store(vmctx: int) -> None:
    """Wait for a turn inside the store of an instance; a function enters only after that."""
    try:
        instance = instance_of(vmctx)
    except ValueError:
        raise ValueError("the Instance is closed") from None
    wait_for(instance)


_functions: dict[str, HostFunction] = {}


def _address(name: str) -> int:
    if name not in _functions:
        table: dict[str, tuple[Callable[..., int | None], str]] = {
            "toy_jit_table_get": (_table_get, "(vmctx, u32, u32) -> externref"),
            "toy_jit_interrupted": (interrupts.interrupted, "(vmctx)"),
            WAIT_SLOT: (_wait_for_store, "(vmctx)"),
            "toy_jit_interrupts": (interrupts.interrupts_of_thread, "() -> pointer"),
        }
        function, signature = table[name]
        _functions[name] = HostFunction(code_map.traced(function), signature, bits=True)
    return _functions[name].address


def runtime_addresses() -> dict[str, int]:
    """Return the C addresses that compiled code may call, by symbol."""
    binding = default_binding()
    backend = binding.x86_64
    assert backend is not None
    loaded = backend.loaded
    loaded.set_slot(PYTHON + TABLE_GET, _address("toy_jit_table_get"))
    return {
        **binding.symbols(),
        "toy_jit_interrupted": _address("toy_jit_interrupted"),
        "toy_jit_table_get": loaded.routine(backend.routine_of(TABLE_GET)),
        RAISE_TRAP: binding.runtime_symbols()[RAISE_TRAP],
        CHECK_STACK: loaded.routine(CHECK_STACK),
    }


def fill_slots(loaded: LoadedImage) -> None:
    """Fill in the slots of an image that enters compiled code."""
    backend = default_binding().x86_64
    assert backend is not None
    for name in loaded.image.slots:
        if name == ACTIVATIONS_KEY:
            value = backend.loaded.slot(name)
        elif name in backend.loaded.image.routines:
            value = backend.loaded.routine(name)
        elif name.startswith("toy_jit"):
            value = _address(name)
        elif name.startswith("adapter "):
            continue  # slots of a stencil; runtime/adapters.py sets those of an adapter
        else:
            value = libc.function_address(name)
        loaded.set_slot(name, value)


fill_slots(LOADED)
LOADED.keep()

ENTER = LOADED.routine(stencils.ENTER)
"""The C address of ``enter(vmctx, code, slots, count)``: see ``stencils/entry.py``."""
