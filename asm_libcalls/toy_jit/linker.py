"""From functions to code that runs: the layout of a module's code, its links, its load.

Code knows its module's VMContext layout and this process's addresses, but no instance: instances
of a module share it.
"""

from __future__ import annotations

import bisect
import ctypes
import struct

from asm_libcalls.binding import default_binding
from asm_libcalls.toy_jit.compiler import FunctionCompiler
from asm_libcalls.toy_jit.emitters import make_handlers
from asm_libcalls.toy_jit.layout import CodeLayout
from asm_libcalls.toy_jit.templates import TEMPLATES
from asm_libcalls.toy_jit.validator import validate_function
from asm_libcalls.traps import TrapCode
from asm_libcalls.x86_64 import pages
from asm_libcalls.x86_64.image import Routine, link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.module import Module

__all__ = ["CompiledCode", "compile_module"]

_DISPLACEMENT = struct.Struct("<i")


class CompiledCode:
    """A module's code in memory.

    Attributes
    ----------
    address : int
    size : int
    layout : CodeLayout
    """

    def __init__(self, layout: CodeLayout) -> None:
        self.layout = layout
        self.size = len(layout.code)
        loaded = pages.load(link([Routine("code", bytes(layout.code), self.size)]))
        self.address = loaded.routine("code")
        self._returns = [at for at, _ in layout.sites]

    def function_address(self, defined_index: int) -> int:
        """Return the address of a function, by its index among the defined ones."""
        return self.address + self.layout.functions[defined_index][0]

    def code_of(self, defined_index: int) -> bytes:
        """Return the code of a function as it is in memory."""
        start, end = self.layout.functions[defined_index]
        return ctypes.string_at(self.address + start, end - start)

    def site_of(self, return_address: int) -> tuple[int, int] | None:
        """Return the defined index and the offset in the module of a call, else None."""
        at = return_address - self.address
        i = bisect.bisect_left(self._returns, at)
        if i == len(self._returns) or self._returns[i] != at:
            return None
        starts = [start for start, _ in self.layout.functions]
        return bisect.bisect_right(starts, at - 1) - 1, self.layout.sites[i][1]


def compile_module(module: Module, inline: bool) -> CompiledCode:
    """Validate and compile every function of a decoded module, link and load the code.

    Raises
    ------
    InvalidModule
        A function is not valid.
    """
    layout = CodeLayout(module, inline)
    compiler = FunctionCompiler(layout, make_handlers(inline))
    imported = layout.offsets.num_imported_functions
    for index in range(imported, len(module.functions)):
        body = validate_function(module, index)
        compiler.compile(body, module.functions[index].type)
    _link(layout, imported)
    return CompiledCode(layout)


def _link(layout: CodeLayout, imported: int) -> None:
    code = layout.code
    targets: dict[str, int] = {}
    raise_trap = default_binding().runtime_symbols()["asm_libcalls_raise_trap"]
    for trap in TrapCode:
        targets[f"trap.{trap.name}"] = len(code)
        _stub(code, "stub.trap", {}, (int(trap), *_halves(raise_trap)))
    targets["interrupt"] = len(code)
    overflow = targets[f"trap.{TrapCode.STACK_OVERFLOW.name}"]
    interrupted = layout.addresses["toy_jit_interrupted"]
    _stub(code, "stub.interrupt", {"target": overflow}, _halves(interrupted))
    for at, role in layout.calls:
        if role in targets:
            target = targets[role]
        else:
            target = layout.functions[int(role.partition(".")[2]) - imported][0]
        _DISPLACEMENT.pack_into(code, at, target - (at + 4))


def _halves(address: int) -> tuple[int, int]:
    low, high = address & 0xFFFFFFFF, address >> 32
    return low - (low >> 31 << 32), high


def _stub(code: bytearray, name: str, targets: dict[str, int], values: tuple[int, ...]) -> None:
    bytes_, holes, jumps = TEMPLATES[name]
    start = len(code)
    code += bytes_
    for at, which in holes:
        _DISPLACEMENT.pack_into(code, start + at, values[which])
    for at, role in jumps:
        _DISPLACEMENT.pack_into(code, start + at, targets[role] - (start + at + 4))
