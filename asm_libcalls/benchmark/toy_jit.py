"""Suite: WebAssembly programs, run by toy_jit, Wasmtime's optimising compiler and wasm3.

The programs are in tests/programs, so this suite needs a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import asm_libcalls
from asm_libcalls.benchmark.large_modules import repeated
from asm_libcalls.benchmark.timing import OURS, Candidate, Case, repeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from asm_libcalls.benchmark.peers import Peers

SUITE = "toy_jit"
_PROGRAMS = Path(asm_libcalls.__file__).resolve().parent.parent / "tests" / "programs"

# Description, file, function, arguments.
_RUNS: tuple[tuple[str, str, str, tuple[int, ...]], ...] = (
    ("fib(32): calls", "fib", "fib", (32,)),
    ("sieve up to 1,000,000: bytes", "sieve", "sieve", (1000000,)),
    ("3,000 blocks filled and copied: bulk memory", "bulk", "bulk", (3000, 20000)),
    ("matrix product, 200 x 200: doubles", "matrix", "matrix", (200,)),
    ("n-body, 50,000 steps: doubles", "nbody", "nbody", (50000,)),
    ("SHA-256, 1 MiB: 32-bit integers", "sha256", "sha256", (1 << 20,)),
    ("matrix product, 200 x 200: vectors of floats", "vector_matrix", "vector_matrix", (200,)),
    ("SHA-256, 4 times 1 MiB: vectors", "vector_sha256", "vector_sha256", (1 << 14,)),
    ("BLAKE3, 4 times 1 MiB: vectors", "vector_blake3", "vector_blake3", (1 << 10,)),
)

# Sizes in bytes.
_COMPILED = (100_000, 1_000_000)
_LOADED = (100_000, 10_000_000)
_MOST_COMPILED = 1_500_000  # compiling more takes too long to be repeated


# (import "m" "h" (func (param i32) (result i32))), and "f", which calls it as often as it is told
_CALLS_PYTHON = bytes.fromhex(
    "0061736d0100000001060160017f017f020701016d0168000003020100070501016600010a170115"
    "000340200010001a200041016b22000d000b20000b"
)
_CALLS = 1000


def cases(peers: Peers, quick: bool) -> Iterator[Case]:
    """Make the cases: running, calling and compiling modules, the same binary for all peers."""
    reason = asm_libcalls.backend_report()["x86_64"]
    if reason != "loaded":
        peers.note(f"suite {SUITE} is left out: {reason}")
        return
    if not _PROGRAMS.is_dir():
        peers.note(f"suite {SUITE} is left out: its programs are in the source tree only")
        return
    engines: dict[str, Callable[[bytes, str], Callable[..., Any]]] = {OURS: _ours}
    wasmtime = peers.optional("wasmtime")
    if wasmtime is not None:
        engines["wasmtime"] = _wasmtime(wasmtime)
    wasm3 = peers.optional("wasm3")
    if wasm3 is not None:
        engines["wasm3"] = _wasm3(wasm3)
    for name, file, function, arguments in _RUNS:
        binary = (_PROGRAMS / f"{file}.wasm").read_bytes()
        functions = {
            label: engine(binary, function)
            for label, engine in engines.items()
            if not (label == "wasm3" and file.startswith("vector_"))  # it has no vectors
        }
        results = {label: each(*arguments) for label, each in functions.items()}
        for label, result in results.items():
            if result != results[OURS]:
                raise AssertionError(f"{label} gets another result for {name}")
        runners = (Candidate(label, repeat(f, arguments)) for label, f in functions.items())
        yield Case(SUITE, name, 0, 1, tuple(runners))
    binary = (_PROGRAMS / "fib.wasm").read_bytes()
    functions = {label: engine(binary, "fib") for label, engine in engines.items()}
    functions["a Python function"] = lambda n: n
    runners = (Candidate(label, repeat(f, (1,))) for label, f in functions.items())
    yield Case(SUITE, "one call of an export, from Python", 0, 1, tuple(runners))
    yield _calls_of_python(wasmtime, wasm3)
    binaries = [path.read_bytes() for path in sorted(_PROGRAMS.glob("*.wasm"))]
    yield _compilation(wasmtime, f"compiling {len(binaries)} modules", binaries)
    program = (_PROGRAMS / "json.wasm").read_bytes()
    for size in _COMPILED if not quick else _COMPILED[:1]:
        yield _compilation(wasmtime, "compiling a module", [repeated(program, size)])
    for size in _LOADED if not quick else _LOADED[:1]:
        yield _loading(wasmtime, repeated(program, size))


def _calls_of_python(wasmtime: Any, wasm3: Any) -> Case:
    from asm_libcalls.toy_jit.instance import Instance
    from asm_libcalls.toy_jit.module import Module

    def host(number: int) -> int:
        return number

    instance = Instance(Module(_CALLS_PYTHON), {"m": {"h": host}})
    functions: dict[str, Callable[..., Any]] = {OURS: instance.exports["f"]}
    if wasmtime is not None:
        store = wasmtime.Store(_engine(wasmtime))
        number = wasmtime.ValType.i32()
        imported = wasmtime.Func(store, wasmtime.FuncType([number], [number]), host)
        module = wasmtime.Module(store.engine, _CALLS_PYTHON)
        exported = wasmtime.Instance(store, module, [imported]).exports(store)["f"]
        functions["wasmtime"] = lambda count: exported(store, count)
    if wasm3 is not None:
        runtime = wasm3.Environment().new_runtime(1 << 20)
        program = wasm3.Environment().parse_module(_CALLS_PYTHON)
        runtime.load(program)
        program.link_function("m", "h", "i(i)", host)
        functions["wasm3"] = runtime.find_function("f")
    runners = (Candidate(label, repeat(f, (_CALLS,))) for label, f in functions.items())
    return Case(SUITE, "one call of a Python function", 0, _CALLS, tuple(runners))


def _compilation(wasmtime: Any, name: str, binaries: list[bytes]) -> Case:
    from asm_libcalls.toy_jit.module import Module

    def compile_all(compiler: Callable[..., Any], *before: Any) -> None:
        for binary in binaries:
            compiler(*before, binary)

    candidates = [Candidate(OURS, repeat(compile_all, (Module,)))]
    if wasmtime is not None:
        theirs = repeat(compile_all, (wasmtime.Module, _engine(wasmtime)))
        candidates.append(Candidate("wasmtime", theirs))
    return Case(SUITE, name, sum(map(len, binaries)), 1, tuple(candidates))


def _loading(wasmtime: Any, binary: bytes) -> Case:
    from asm_libcalls.toy_jit.module import Module

    data = Module(binary).serialize()
    candidates = [Candidate(OURS, repeat(Module.deserialize, (data,)))]
    if len(binary) <= _MOST_COMPILED:
        candidates.append(Candidate("compiling", repeat(Module, (binary,))))
    if wasmtime is not None:
        engine = _engine(wasmtime)
        theirs = wasmtime.Module(engine, binary).serialize()
        load = repeat(wasmtime.Module.deserialize, (engine, theirs))
        candidates.append(Candidate("wasmtime", load))
    return Case(SUITE, "deserializing a module", len(binary), 1, tuple(candidates))


def _ours(binary: bytes, function: str) -> Callable[..., Any]:
    from asm_libcalls.toy_jit.instance import Instance
    from asm_libcalls.toy_jit.module import Module

    export: Callable[..., Any] = Instance(Module(binary)).exports[function]
    return export


def _engine(wasmtime: Any) -> Any:
    config = wasmtime.Config()
    config.cranelift_opt_level = "speed"
    config.parallel_compilation = False  # one thread, as toy_jit
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
    runtimes = []  # a function does not keep its runtime alive

    def export(binary: bytes, function: str) -> Callable[..., Any]:
        runtime = environment.new_runtime(1 << 20)
        runtime.load(environment.parse_module(binary))
        runtimes.append(runtime)
        found: Callable[..., Any] = runtime.find_function(function)
        return found

    return export
