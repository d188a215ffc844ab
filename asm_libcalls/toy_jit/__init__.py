"""A small WebAssembly JIT whose instructions call the libcalls of this package."""

from __future__ import annotations

from asm_libcalls.toy_jit.decoder import decode_module
from asm_libcalls.toy_jit.errors import InvalidModule
from asm_libcalls.toy_jit.validator import Body, validate_function, validate_module

__all__ = ["Body", "InvalidModule", "decode_module", "validate_function", "validate_module"]
