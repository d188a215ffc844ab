"""Suites: one call from Python, and one call at the C address from native code."""

from __future__ import annotations

import ctypes
import math
import operator
import struct
from typing import TYPE_CHECKING

import asm_libcalls
from asm_libcalls.benchmark.peers import Notes, c_library, optional, unchecked
from asm_libcalls.benchmark.timing import Comparison, compare, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["native", "python"]


def python(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """One call from Python: the public name against what else does the same."""
    rounds = 9 if quick else 61
    for name, arguments, peers in (
        ("f64_ceil", (2.5,), {"math.fabs": math.fabs, "math.ceil": math.ceil}),
        ("f64_nearest", (2.5,), {"round": round}),
        ("i64_sdiv", (10**15, 7), {"operator.floordiv": operator.floordiv}),
        ("i64_sdiv", (-(2**62), 12345678901), {"operator.floordiv": operator.floordiv}),
        ("i64_ushr", (10**15, 7), {"operator.rshift": operator.rshift}),
    ):
        libcall = asm_libcalls.LIBCALLS[name]
        functions: dict[str, Callable[..., Any]] = {
            **peers,
            "ctypes": unchecked(libcall),
            "the fallback": libcall.fallback,
        }
        functions |= _numpy(name, notes) | _cffi(libcall, notes) | _numba(libcall, notes)
        text = f"f({', '.join(map(repr, arguments))})"
        cases = {peer: statement(text, {"f": f}) for peer, f in functions.items()}
        ours = statement(text, {"f": getattr(asm_libcalls, name)})
        yield compare("python", f"{name}{arguments}", ours, cases, rounds=rounds)


def _numpy(name: str, notes: Notes) -> dict[str, Callable[..., Any]]:
    numpy = optional("numpy", notes)
    peer = {"f64_ceil": "ceil", "f64_nearest": "rint", "i64_sdiv": "floor_divide"}.get(name)
    return {} if numpy is None or peer is None else {f"numpy.{peer}": getattr(numpy, peer)}


def _cffi(libcall: Any, notes: Notes) -> dict[str, Callable[..., Any]]:
    cffi = optional("cffi", notes)
    if cffi is None:
        return {}
    kinds = {"f64": "double", "i64": "int64_t", "u64": "uint64_t"}
    parameters = ", ".join(kinds[t.name] for t in libcall.signature.parameters)
    ffi = cffi.FFI()
    prototype = f"{kinds[libcall.signature.result.name]}(*)({parameters})"
    return {"cffi": ffi.cast(prototype, libcall.address)}


def _numba(libcall: Any, notes: Notes) -> dict[str, Callable[..., Any]]:
    numba = optional("numba", notes)
    if numba is None:
        return {}
    function = unchecked(libcall)
    if len(libcall.signature.parameters) == 1:
        compiled = numba.njit(lambda a: function(a))  # noqa: PLW0108 (numba compiles it)
        compiled(2.5)
    else:
        compiled = numba.njit(lambda a, b: function(a, b))  # noqa: PLW0108
        compiled(10**15, 7)
    return {"numba": compiled}


def native(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """One call at the C address, from a loop of machine code, in ticks of the TSC."""
    repeat = native_repeater(notes)
    if repeat is None:
        return
    from asm_libcalls.benchmark.native_loop import call_of

    rounds = 15 if quick else 101
    library = c_library(notes)
    libm = ctypes.CDLL("libm.so.6")
    pattern = struct.unpack("<Q", struct.pack("<d", 2.5))[0]

    def case(address: int, integers: tuple[int, ...], floats: tuple[int, ...]) -> Any:
        call = call_of(address, integers, floats)
        return lambda count: repeat(call, count)

    def address_of(function: Any) -> int:
        return ctypes.cast(function, ctypes.c_void_p).value or 0

    for name, peer in (
        ("f64_ceil", "ceil"), ("f64_floor", "floor"), ("f64_trunc", "trunc"),
        ("f64_nearest", "rint"),
    ):  # fmt: skip
        peers = {f"glibc {peer}": case(address_of(libm[peer]), (), (pattern,))}
        if library is not None and name == "f64_ceil":
            peers["compiled C"] = case(address_of(library.c_ceil), (), (pattern,))
        ours = case(asm_libcalls.LIBCALLS[name].address, (), (pattern,))
        yield compare("native", name, ours, peers, rounds=rounds, unit="ticks", round_time=2e5)
    if library is not None:
        for operands in ((10**15, 7), (7, 2)):
            ours = case(asm_libcalls.LIBCALLS["i64_sdiv"].address, operands, ())
            peers = {"compiled C": case(address_of(library.c_sdiv), operands, ())}
            name = f"i64_sdiv{operands}"
            yield compare("native", name, ours, peers, rounds=rounds, unit="ticks", round_time=2e5)


def native_repeater(notes: Notes) -> Callable[[Any, int], float] | None:
    """Load the loop of machine code, or note why not."""
    try:
        from asm_libcalls.benchmark import native_loop
        from asm_libcalls.x86_64 import pages
        from asm_libcalls.x86_64.image import link

        if asm_libcalls.backend_report()["x86_64"] != "loaded":
            raise OSError("no machine code here")
        loaded = pages.load(link([native_loop.routine(integers=6, floats=1)]))
    except (ImportError, OSError) as error:
        notes.add(f"calls from native code are left out: {error}")
        return None
    return native_loop.repeater(loaded)
