"""What compiled code runs in: an instance that keeps its code, and is not closed while it runs."""

from __future__ import annotations

import ctypes

from asm_libcalls.native.stack_walker import hides_stacks, stack_frames
from asm_libcalls.runtime.instance import Instance
from asm_libcalls.toy_jit.codegen.places import VMCTX_IN_FRAME
from asm_libcalls.toy_jit.link import code_map
from asm_libcalls.toy_jit.runtime import interrupts
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
    function_keepers : set of Instance
        The instances of function references that were given to it.
    owner : asm_libcalls.toy_jit.Instance
        What users have of it; its functions keep it alive, as they do this.
    """

    owner: Any

    def __init__(self, code: CompiledCode, **parts: Any) -> None:
        self.code = code
        self.function_keepers: set[Instance] = set()
        super().__init__(**parts)

    def close(self) -> None:
        """Release what the instance holds; a function of it that is called then raises ValueError.

        Raises
        ------
        RuntimeError
            Code of the instance is running in this thread, or may be in another greenlet of it
            whose stack cannot be read.
        """
        if not self.closed:
            if self._is_running():
                raise RuntimeError("close(): the Instance is running code")
            interrupts.stoppable.pop(self.vmctx, None)
            self.look()
            self._release()

    def __del__(self) -> None:
        # Code that runs has a function of the instance, so this one has none running.
        if getattr(self, "_vmctx", 0) and interrupts is not None:
            self._release()

    def _release(self) -> None:
        # What compiled code reads before its first check is elsewhere if it is imported.
        self._kept = self.memories[: self.offsets.num_imported_memories]
        super().close()

    def _is_running(self) -> bool:
        return hides_stacks() or any(
            code_map.find(address) is not None
            and ctypes.c_size_t.from_address(frame + VMCTX_IN_FRAME).value == self.vmctx
            for address, frame in stack_frames() or ()
        )
