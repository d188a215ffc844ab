"""CompiledInstance: the runtime instance in which a module's compiled code runs."""

from __future__ import annotations

from asm_libcalls.runtime.instance import Instance
from asm_libcalls.toy_jit.runtime.collector_hook import collect_with_python
from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode


class CompiledInstance(StoppableInstance):
    """An instance that runs compiled code."""

    owner: Any  # The public object. The functions keep both alive.

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self._begin()
        self.code = code  # kept alive by this instance and its functions
        # by id, the instances of function references that were passed to it
        self.function_keepers: dict[int, Instance] = {}
        super().__init__(**parts)
        collect_with_python(self)
