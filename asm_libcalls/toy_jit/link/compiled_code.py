"""A module's code in memory, and its registrations: stack maps, code map, unwind information."""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.emitter import code_names, pages
from asm_libcalls.emitter.image import Routine, link
from asm_libcalls.owned import Resource
from asm_libcalls.runtime.instance import DEFAULT_STACK_MAP_REGISTRY
from asm_libcalls.toy_jit.link import code_map, frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.toy_jit.codegen.layout import CodeLayout
    from asm_libcalls.toy_jit.frontend.module import Module

__all__ = ["CompiledCode"]


class CompiledCode:
    """A module's code in memory, as long as an object that can run the code refers to this one.

    Attributes
    ----------
    address : int
    size : int
    layout : CodeLayout
    """

    def __init__(self, module: Module, layout: CodeLayout) -> None:
        self.layout = layout
        self.size = len(layout.code)
        image = link([Routine("code", bytes(layout.code), self.size)])
        loaded = pages.load(image, announced=False)
        self.address = loaded.routine("code")
        DEFAULT_STACK_MAP_REGISTRY.register(self.address, self.size, layout.stack_maps)
        code_map.register(module, layout, self.address)
        code_names.announce(self.address, partial(frames.functions, module, layout, self.address))
        self._pages = Resource(partial(_unload, loaded, layout.counters))

    def function_address(self, defined_index: int) -> int:
        """Return the address of a function, by its index among the defined functions."""
        return self.address + self.layout.functions[defined_index][0]

    def code_of(self, defined_index: int) -> bytes:
        """Return a copy of a function's code."""
        start, end = self.layout.functions[defined_index]
        return ctypes.string_at(self.address + start, end - start)


def _unload(loaded: LoadedImage, counters: object) -> None:
    # `counters` is an argument to stay alive as long as the code that writes to it.
    # Unregistered first: another module may get the same addresses as soon as they are free.
    DEFAULT_STACK_MAP_REGISTRY.unregister(loaded.address)
    code_map.forget(loaded.address)
    pages.unload(loaded)
