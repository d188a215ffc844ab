"""Suite: programs in WebAssembly, by our JIT, by Wasmtime's optimising compiler, by wasm3.

The programs are those of tests/programs, so this suite is for a checkout.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import asm_libcalls
from asm_libcalls.benchmark.peers import Notes, optional
from asm_libcalls.benchmark.timing import Comparison, compare, statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["toy_jit"]

_PROGRAMS = Path(asm_libcalls.__file__).resolve().parent.parent / "tests" / "programs"

# What is run, the file, the function and its arguments.
_RUNS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("fib(32): calls", "fib", "fib", (32,)),
    ("sieve up to 1,000,000: bytes", "sieve", "sieve", (1000000,)),
    ("3,000 blocks filled and copied: bulk memory", "bulk", "bulk", (3000, 20000)),
    ("matrix product, 200 x 200: doubles", "matrix", "matrix", (200,)),
    ("n-body, 50,000 steps: doubles", "nbody", "nbody", (50000,)),
    ("SHA-256, 1 MiB: 32-bit integers", "sha256", "sha256", (1 << 20,)),
)


def toy_jit(notes: Notes, quick: bool) -> Iterator[Comparison]:
    """Compare running, calling and compiling modules; all peers get the same binary."""
    if asm_libcalls.backend_report()["x86_64"] != "loaded":
        notes.add("toy_jit is left out: no machine code here")
        return
    if not _PROGRAMS.is_dir():
        notes.add("toy_jit is left out: its programs are in the source tree only")
        return
    engines: dict[str, Callable[[bytes, str], Callable[..., Any]]] = {}
    wasmtime = optional("wasmtime", notes)
    if wasmtime is not None:
        engines["wasmtime"] = _wasmtime(wasmtime)
    wasm3 = optional("wasm3", notes)
    if wasm3 is not None:
        engines["wasm3"] = _wasm3(wasm3)
    rounds = 3 if quick else 15
    for name, file, function, arguments in _RUNS:
        binary = (_PROGRAMS / f"{file}.wasm").read_bytes()
        ours = _ours(binary, function)
        peers = {peer: engine(binary, function) for peer, engine in engines.items()}
        for peer, same in peers.items():
            if same(*arguments) != ours(*arguments):
                raise AssertionError(f"{peer} gets another result for {name}")
        cases = {peer: _runner(same, arguments) for peer, same in peers.items()}
        yield compare("toy_jit", name, _runner(ours, arguments), cases, rounds=rounds)
    yield from _calls(engines, quick)
    yield from _compilations(wasmtime, notes, quick)


def _runner(function: Callable[..., Any], arguments: tuple[int, ...]) -> Callable[[int], float]:
    def case(count: int) -> float:
        begin = time.perf_counter_ns()
        for _ in range(count):
            function(*arguments)
        return (time.perf_counter_ns() - begin) / count

    return case


def _calls(
    engines: dict[str, Callable[[bytes, str], Callable[..., Any]]], quick: bool
) -> Iterator[Comparison]:
    binary = (_PROGRAMS / "fib.wasm").read_bytes()
    functions = {peer: engine(binary, "fib") for peer, engine in engines.items()}
    functions["a Python function"] = lambda n: n
    cases = {peer: statement("f(1)", {"f": f}) for peer, f in functions.items()}
    ours = statement("f(1)", {"f": _ours(binary, "fib")})
    name = "one call of an export, from Python"
    yield compare("toy_jit", name, ours, cases, rounds=9 if quick else 61)


def _compilations(wasmtime: Any, notes: Notes, quick: bool) -> Iterator[Comparison]:
    from asm_libcalls.toy_jit.instance import Module

    binaries = [path.read_bytes() for path in sorted(_PROGRAMS.glob("*.wasm"))]
    kilobytes = sum(map(len, binaries)) / 1000

    def compile_all(compiler: Callable[[bytes], Any]) -> Callable[[int], float]:
        def case(count: int) -> float:
            begin = time.perf_counter_ns()
            for _ in range(count):
                for binary in binaries:
                    compiler(binary)
            return (time.perf_counter_ns() - begin) / count

        return case

    peers = {}
    if wasmtime is not None:
        engine = _engine(wasmtime)
        peers["wasmtime"] = compile_all(lambda binary: wasmtime.Module(engine, binary))
    name = f"compiling {len(binaries)} modules, {kilobytes:.0f} KB"
    found = compare("toy_jit", name, compile_all(Module), peers, rounds=3 if quick else 15)
    notes.add(f"toy_jit compiles {kilobytes / found.time * 1e9:.0f} KB of WebAssembly a second")
    yield found


def _ours(binary: bytes, function: str) -> Callable[..., Any]:
    from asm_libcalls.toy_jit.instance import Instance, Module

    export: Callable[..., Any] = Instance(Module(binary)).exports[function]
    return export


def _engine(wasmtime: Any) -> Any:
    config = wasmtime.Config()
    config.cranelift_opt_level = "speed"
    config.parallel_compilation = False  # one thread, as we
    return wasmtime.Engine(config)


def _wasmtime(wasmtime: Any) -> Callable[[bytes, str], Callable[..., Any]]:
    engine = _engine(wasmtime)

    def export(binary: bytes, function: str) -> Callable[..., Any]:
        store = wasmtime.Store(engine)
        instance = wasmtime.Instance(store, wasmtime.Module(engine, binary), [])
        exported = instance.exports(store)[function]
        return lambda *arguments: exported(store, *arguments)

    return export


def _wasm3(wasm3: Any) -> Callable[[bytes, str], Callable[..., Any]]:
    environment = wasm3.Environment()
    runtimes = []  # a function does not keep its own

    def export(binary: bytes, function: str) -> Callable[..., Any]:
        runtime = environment.new_runtime(1 << 20)
        runtime.load(environment.parse_module(binary))
        runtimes.append(runtime)
        found: Callable[..., Any] = runtime.find_function(function)
        return found

    return export
