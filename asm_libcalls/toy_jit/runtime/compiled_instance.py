"""CompiledInstance: the runtime instance in which a module's compiled code runs."""

from __future__ import annotations

from asm_libcalls.runtime.instance import Instance
from asm_libcalls.toy_jit.runtime.collector_hook import collect_with_python
from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode

__all__ = ["CompiledInstance"]


class CompiledInstance(StoppableInstance):
    """An instance that runs compiled code.

    Attributes
    ----------
    code : CompiledCode
        Kept alive by this instance and its functions.
    function_keepers : dict of int to Instance
        By id, the instances of function references that were passed to it.
    owner : asm_libcalls.toy_jit.Instance
        The public object. The functions keep both alive.
    """

    owner: Any

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self._begin()
        self.code = code
        self.function_keepers: dict[int, Instance] = {}
        super().__init__(**parts)
        collect_with_python(self)
