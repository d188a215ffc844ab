"""WASI preview 1: the imports of programs compiled by clang, Rust, Go and TinyGo.

::

    wasi = toy_jit.wasi.Preview1(args=["prog", "x"], preopens={"/data": "some/folder"})
    instance = toy_jit.Instance(toy_jit.Module.from_file("prog.wasm"), wasi)
    code = wasi.start(instance)
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit.wasi.preview1 import Preview1
    from asm_libcalls.toy_jit.wasi.process_calls import Exit

__all__ = ["Exit", "Preview1"]

_LAZY = {"Exit": "process_calls", "Preview1": "preview1"}


def __getattr__(name: str) -> object:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
