"""A module's code in memory, and its registrations: stack maps, code map, unwind information."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import partial

from asm_libcalls.emitter import code_names, pages
from asm_libcalls.emitter.image import Routine, link
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.owned.objects import Resource
from asm_libcalls.runtime.instance import DEFAULT_STACK_MAP_REGISTRY
from asm_libcalls.toy_jit.codegen.layout import type_id
from asm_libcalls.toy_jit.link import code_map, frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.link.code_tables import CodeTables

_COUNTER_SIZE = ctypes.sizeof(ctypes.c_uint64)


class CompiledCode:
    """A module's code in memory, as long as an object that can run the code refers to this one.

    `code` is linked; its relocations are filled in here. `addresses` are those that the code may
    call, by symbol. `counts_libcalls` says that the code counts the calls of each libcall.
    """

    def __init__(
        self,
        module: Module,
        code: bytearray,
        tables: CodeTables,
        addresses: Mapping[str, int],
        counts_libcalls: bool,
    ) -> None:
        self.tables = tables
        counters = ctypes.c_uint64 * len(DECLARATIONS)
        # the number of calls of each libcall, if they are counted, in the order of DECLARATIONS
        self.counters = counters() if counts_libcalls else None
        self._fill_in(code, partial(self._value, module, addresses))
        image = link([Routine("code", bytes(code), tables.size)])
        self._image = image
        loaded = pages.load(image, announced=False, owned=True)
        self._pages = Resource(partial(_unload, loaded, self.counters))
        loaded.keep()  # from here on `_pages` owns it
        self.address = loaded.routine("code")
        DEFAULT_STACK_MAP_REGISTRY.register(self.address, tables.size, tables.stack_maps)
        code_map.register(module, tables, self.address)
        code_names.announce(self.address, partial(frames.functions, module, tables, self.address))

    def _fill_in(self, code: bytearray, value: Callable[[str], int]) -> None:
        for symbol, holes in self.tables.relocations.items():
            size = 4 if symbol.startswith("type ") else 8
            packed = value(symbol).to_bytes(size, "little")
            for at in holes:
                code[at : at + size] = packed

    def _value(self, module: Module, addresses: Mapping[str, int], symbol: str) -> int:
        """Return the value of a symbol of ``CodeLayout.relocations`` in this process."""
        kind, _, name = symbol.partition(" ")
        if kind == "counter":
            index = list(DECLARATIONS).index(name)
            return ctypes.addressof(self.counters) + index * _COUNTER_SIZE  # type: ignore[arg-type]
        return type_id(module.types[int(name)]) if kind == "type" else addresses[symbol]

    def linked_code(self) -> bytes:
        """Return the code before its relocations were filled in."""
        code = bytearray(self._image.code[: self.tables.size])
        self._fill_in(code, lambda symbol: 0)
        return bytes(code)

    def function_address(self, defined_index: int) -> int:
        """Return the address of a function, by its index among the defined functions."""
        return self.address + self.tables.functions[defined_index][0]

    def code_of(self, defined_index: int) -> bytes:
        """Return a copy of a function's code."""
        start, end = self.tables.functions[defined_index]
        return ctypes.string_at(self.address + start, end - start)


def _unload(loaded: LoadedImage, counters: object) -> None:
    # `counters` is an argument so that it exists as long as the code that writes to it.
    # Unregistered first: another module may get the same addresses as soon as they are free.
    if not loaded.mapping:
        return
    with suppress(ValueError):  # an exception has ended an earlier call after this line
        DEFAULT_STACK_MAP_REGISTRY.unregister(loaded.address)
    code_map.forget(loaded.address)
    pages.unload(loaded)
