"""From functions to code that runs: the layout of a module's code, its links, its load.

Code knows its module's VMContext layout and this process's addresses, but no instance: instances
of a module share it.
"""

from __future__ import annotations

import ctypes
from functools import partial

from asm_libcalls.binding import default_binding
from asm_libcalls.emitter import code_names, pages
from asm_libcalls.emitter.image import Routine, link
from asm_libcalls.owned import Resource
from asm_libcalls.runtime.instance import DEFAULT_STACK_MAP_REGISTRY
from asm_libcalls.toy_jit import backtrace
from asm_libcalls.toy_jit.codegen.compiler import FunctionCompiler
from asm_libcalls.toy_jit.codegen.layout import CodeLayout
from asm_libcalls.toy_jit.codegen.places import halves
from asm_libcalls.toy_jit.codegen.templates import load_vectors
from asm_libcalls.toy_jit.codegen.vectors import VectorFunctionCompiler
from asm_libcalls.toy_jit.frontend.validator import validate_function
from asm_libcalls.toy_jit.link import frames
from asm_libcalls.traps import TrapCode
from asm_libcalls.x86_64.trampolines.thread_records import CHECK_STACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.emitter.pages import LoadedImage
    from asm_libcalls.toy_jit.frontend.module import Module
    from asm_libcalls.toy_jit.options import CompileOptions

__all__ = ["CompiledCode", "compile_module"]


class CompiledCode:
    """A module's code in memory.

    Attributes
    ----------
    address : int
    size : int
    layout : CodeLayout
    pages : Resource
        Keeps the code where it is: all that can run or name the code refers to this.
    """

    def __init__(self, module: Module, layout: CodeLayout) -> None:
        self.layout = layout
        self.size = len(layout.code)
        image = link([Routine("code", bytes(layout.code), self.size)])
        loaded = pages.load(image, announced=False)
        self.address = loaded.routine("code")
        DEFAULT_STACK_MAP_REGISTRY.register(self.address, self.size, layout.stack_maps)
        backtrace.register(module, layout, self.address)
        code_names.announce(self.address, partial(frames.functions, module, layout, self.address))
        self.pages = Resource(partial(_unload, loaded, layout.counters))

    def function_address(self, defined_index: int) -> int:
        """Return the address of a function, by its index among the defined ones."""
        return self.address + self.layout.functions[defined_index][0]

    def code_of(self, defined_index: int) -> bytes:
        """Return the code of a function as it is in memory."""
        start, end = self.layout.functions[defined_index]
        return ctypes.string_at(self.address + start, end - start)


def _unload(loaded: LoadedImage, counters: object) -> None:
    # What the code writes to goes with it, not before.
    # Forgotten first: another module may get the same addresses as soon as they are free.
    DEFAULT_STACK_MAP_REGISTRY.unregister(loaded.address)
    backtrace.forget(loaded.address)
    pages.unload(loaded)


def compile_module(module: Module, options: CompileOptions) -> CompiledCode:
    """Validate and compile every function of a decoded module, link and load the code.

    Raises
    ------
    InvalidModule
        A function is not valid.
    """
    layout = CodeLayout(module, options)
    compiler = FunctionCompiler(layout)
    for index in range(module.imported_functions, len(module.functions)):
        function = module.functions[index]
        body = validate_function(module, index)
        if body.vectors:
            load_vectors(function.start)
            VectorFunctionCompiler(layout).compile(body, function.type)
        else:
            compiler.compile(body, function.type)
    _link(compiler)
    return CompiledCode(module, layout)


def _link(compiler: FunctionCompiler) -> None:
    """Emit what is behind the functions, and fill in the distances of calls."""
    layout, code = compiler.layout, compiler.code
    targets: dict[str, int] = {}
    raise_trap = default_binding().runtime_symbols()["asm_libcalls_raise_trap"]
    compiler.traps = []
    for trap in TrapCode:
        targets[f"trap.{trap.name}"] = len(code)
        compiler.emit("stub.trap", int(trap), *halves(raise_trap))
    targets["interrupt"] = len(code)
    compiler.emit("stub.interrupt", *halves(layout.addresses["toy_jit_interrupted"]))
    targets["trap.overflow"] = len(code)
    compiler.emit("stub.overflow", *halves(layout.addresses[CHECK_STACK]))
    layout.stubs = targets
    for at, role in (*layout.calls, *((at, role) for at, role, _ in compiler.traps)):
        kind, _, index = role.partition(".")
        if kind == "function":
            defined = int(index) - layout.offsets.num_imported_functions
            compiler.patch_jump(at, layout.functions[defined][0])
        else:
            compiler.patch_jump(at, targets[role])
    for value, patches in layout.constants.items():
        code += b"\xcc" * (-len(code) % 16)  # as the load of one requires
        compiler.land(patches)
        code += value.to_bytes(16, "little")
