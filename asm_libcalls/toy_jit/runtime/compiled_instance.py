"""What compiled code runs in: an instance that keeps its code."""

from __future__ import annotations

from asm_libcalls.runtime.instance import Instance
from asm_libcalls.toy_jit.runtime.interrupts import StoppableInstance

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from asm_libcalls.toy_jit.link.compiled_code import CompiledCode

__all__ = ["CompiledInstance"]


class CompiledInstance(StoppableInstance):
    """What compiled code runs in.

    Attributes
    ----------
    code : CompiledCode
        What it runs, kept as long as this instance or a function of it is there.
    function_keepers : dict of int to Instance
        By id, the instances of function references that were given to it.
    owner : asm_libcalls.toy_jit.Instance
        What users have of it; its functions keep it alive, as they do this.
    """

    owner: Any

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self._begin()
        self.code = code
        self.function_keepers: dict[int, Instance] = {}
        super().__init__(**parts)
