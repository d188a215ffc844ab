"""A module to serialize, with something of each kind that differs between processes."""

from __future__ import annotations

from typing import Any

import pytest
import wasm_builder as wasm
from jit_modules import EXTERNREFS, FUNCREFS, MEMORY, Function, build

import asm_libcalls
from asm_libcalls import toy_jit

# Something of each kind that differs between processes: addresses of libcalls and of functions of
# the runtime, numbers of types, traps, interrupts, host functions; and constants beside the code.
_FUNCTIONS = {
    "divide": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
    "floor": Function("f64 -> f64", "local.get 00 f64.floor"),
    "indirect": Function("i32 -> i64", "i64.const 07 i64.const 02 local.get 00 "
                         "call_indirect 01 00"),
    "object": Function("i32 -> externref", "local.get 00 table.get 01"),
    "keep": Function("i32 externref ->", "local.get 00 local.get 01 table.set 01"),
    "load": Function("i32 -> i32", "local.get 00 i32.load 02 00"),
    "far": Function("i32 -> i32", "local.get 00 i32.load 02 fcffffff0f"),
    "unreachable": Function("->", "unreachable"),
    "deep": Function("->", "call 09"),
    "endless": Function("->", "loop 40 br 00 end"),
    "host": Function("i32 -> i32", "local.get 00 call 00"),
    "grow": Function("i32 -> i32", "local.get 00 memory.grow 00"),
    "lane": Function("i32 -> i32", f"v128.const {'0102030405060708' * 2} local.get 00 i8x16.splat "
                     "i8x16.add i8x16.extract_lane_u 0f"),
    "caller": Function("i32 -> i32", "local.get 00 call 06"),
}  # fmt: skip
_PARTS = {
    **MEMORY,
    "tables": [*FUNCREFS["tables"], *EXTERNREFS["tables"]],
    "elements": [b"\x00\x41\x00\x0b\x02\x01\x02"],
    "data_count": 2,
    "data": [b"\x00\x41\x04\x0b\x04abcd", b"\x01\x02xy"],
    "globals_": [b"\x7e\x01\x42\x05\x0b"],
    "exports": [wasm.exported("memory", 2, 0), wasm.exported("global", 3, 0)],
}
_NAMES = wasm.section(0, b"\x04name" + b"\x00\x05\x04main" + b"\x01\x08\x01\x01\x05first")
_CUSTOM = wasm.section(0, b"\x05other" + b"anything")


def compiled(**options: Any) -> toy_jit.Module:
    """Compile a module with something of everything."""
    binary = build(_FUNCTIONS, {"double": "i32 -> i32"}, **_PARTS) + _NAMES + _CUSTOM
    return toy_jit.Module(binary, toy_jit.compile_options(**options))


def use(module: toy_jit.Module) -> dict[str, Any]:
    """Use all functions of such a module; return what is observed, as JSON knows it."""
    instance = toy_jit.Instance(module, {"m": {"double": lambda n: 2 * n}})
    exports = instance.exports
    thing = object()
    exports["keep"](3, thing)
    seen = {
        "divide": exports["divide"](-7, 2),
        "floor": exports["floor"](-2.5),
        "object": exports["object"](3) is thing,
        "load": exports["load"](4),
        "host": exports["host"](21),
        "grow": [exports["grow"](1), len(exports["memory"])],
        "lane": exports["lane"](100),
        "indirect": exports["indirect"](0),
        "global": exports["global"].value,
    }
    for name, arguments in {
        "divide": (1, 0), "indirect": (1,), "far": (0,), "unreachable": (), "deep": (),
        "caller": (0x7FFFFFFF,),
    }.items():  # fmt: skip
        with pytest.raises(asm_libcalls.Trap) as caught:
            exports[name](*arguments)
        trap = caught.value
        frames = [str(frame) for frame in trap.wasm_backtrace[:3]]
        seen[f"trap of {name}"] = [trap.code.name, frames]
    with pytest.raises(asm_libcalls.Interrupt), instance.time_limit(0.02):
        exports["endless"]()
    return seen
