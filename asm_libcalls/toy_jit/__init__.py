"""A small WebAssembly JIT whose instructions call the libcalls of this package.

WebAssembly 2.0. ``Module(wasm)`` decodes, validates and compiles in one pass, by copy and patch;
``Instance(module, imports)`` links and runs::

    instance = toy_jit.Instance(toy_jit.Module(wasm), {"env": {"log": print}})
    instance.exports["add"](1, 2)

An import is a Python callable, a Memory, Table or Global, or what another instance exports. An
i32 or i64 is an int, a v128 an unsigned int of 128 bits, an f32 or f64 a float, an externref
any object, a funcref a Func, a null None. Several results are a tuple. Exceptions of a callable
cross WebAssembly unchanged. A Trap lists in its ``wasm_backtrace`` the functions it passed through.
Signal handlers run during WebAssembly code, so Ctrl-C ends a loop. ``instance.interrupt()`` and
``instance.time_limit(seconds)`` make it trap.
"""

from __future__ import annotations

from asm_libcalls.toy_jit.errors import (
    DeserializeError,
    InvalidModule,
    LimitExceeded,
    LinkError,
    UnsupportedFeature,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asm_libcalls.toy_jit import wasi
    from asm_libcalls.toy_jit.instance import Instance
    from asm_libcalls.toy_jit.module import Module
    from asm_libcalls.toy_jit.options import compile_options
    from asm_libcalls.toy_jit.runtime.callers import access_caller
    from asm_libcalls.toy_jit.runtime.functions import Func
    from asm_libcalls.toy_jit.store_limits import StoreLimits

__all__ = [
    "DeserializeError", "Func", "Instance", "InvalidModule", "LimitExceeded", "LinkError", "Module",
    "StoreLimits", "UnsupportedFeature", "access_caller", "compile_options", "wasi",
]  # fmt: skip

_LAZY = {
    "Func": "runtime.functions",
    "Instance": "instance",
    "Module": "module",
    "StoreLimits": "store_limits",
    "access_caller": "runtime.callers",
    "compile_options": "options",
}
# Late: the decoder and validator need no machine code, and these modules assemble the stencils.


def __getattr__(name: str) -> object:
    module = "wasi" if name == "wasi" else _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    imported = importlib.import_module(f"{__name__}.{module}")
    value = imported if name == "wasi" else getattr(imported, name)
    globals()[name] = value
    return value
