"""The compiler of one function with vectors: FunctionCompiler with VectorEmitter's places."""

from __future__ import annotations

from asm_libcalls.toy_jit.codegen.compiler import FunctionCompiler
from asm_libcalls.toy_jit.codegen.vector_handlers import make_vector_handlers
from asm_libcalls.toy_jit.codegen.vectors import VectorEmitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class VectorFunctionCompiler(VectorEmitter, FunctionCompiler):
    """Compiles one function with vectors; each function needs a new compiler."""

    def handlers(self) -> Sequence[Callable[[Any, Any], object]]:
        """Return the handlers by opcode."""
        return make_vector_handlers(self.layout.inline)
