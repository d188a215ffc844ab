"""Deserialized modules in place of those that tests make."""

from __future__ import annotations

from functools import wraps
from typing import Any

import pytest

VARIABLE = "ASM_LIBCALLS_TEST_SERIALIZED"
"""If it is set, each module of every test is a deserialized one."""


def replace_modules(patch: pytest.MonkeyPatch) -> None:
    """Let ``toy_jit.Module(...)`` have the code of a module that was deserialized."""
    from asm_libcalls import toy_jit

    module_class = toy_jit.Module
    compiles = module_class.__init__

    @wraps(compiles)
    def compile_and_load(module: Any, wasm: Any, options: Any = None) -> None:
        compiles(module, wasm, options)
        loaded = module_class.deserialize(module.serialize(), options)
        module.decoded, module._code = loaded.decoded, loaded._code

    patch.setattr(module_class, "__init__", compile_and_load)
