"""Programs built from C: they compute what a native build of the same source does, bit for bit."""

import hashlib
import struct

import program_calls
import pytest

from asm_libcalls import toy_jit

pytestmark = pytest.mark.usefixtures("machine_code")

NAMES = sorted(program_calls.CALLS)


class OnToyJit:
    """A program that our code runs."""

    def __init__(self, name, inline=False):
        options = toy_jit.compile_options(inline=inline)
        module = toy_jit.Module(program_calls.wasm(name), options)
        self.exports = toy_jit.Instance(module).exports

    def call(self, name, *patterns):
        return self.exports[name].call_bits(*patterns)[0]

    def memory(self):
        return memoryview(self.exports["memory"]).cast("B")

    def write(self, at, data):
        self.memory()[at : at + len(data)] = data

    def has(self, name):
        return name in self.exports


class OnWasmtime:
    """A program that Wasmtime runs."""

    def __init__(self, name):
        wasmtime = pytest.importorskip("wasmtime", reason="compares with Wasmtime's own results")
        self._store = wasmtime.Store()
        module = wasmtime.Module(self._store.engine, program_calls.wasm(name))
        self._exports = wasmtime.Instance(self._store, module, []).exports(self._store)

    def call(self, name, *patterns):
        function = self._exports[name]
        functype = function.type(self._store)
        arguments = [_unpack(str(t), p) for t, p in zip(functype.params, patterns, strict=True)]
        return _pack(str(functype.results[0]), function(self._store, *arguments))

    def memory(self):
        return self._exports["memory"].read(self._store)

    def write(self, at, data):
        self._exports["memory"].write(self._store, data, at)


_FORMATS = {"i32": ("<i", "<I"), "i64": ("<q", "<Q"), "f32": ("<f", "<I"), "f64": ("<d", "<Q")}


def _unpack(value_type, pattern):
    value, bits = _FORMATS[value_type]
    return struct.unpack(value, struct.pack(bits, pattern))[0]


def _pack(value_type, number):
    value, bits = _FORMATS[value_type]
    return struct.unpack(bits, struct.pack(value, number))[0]


def _make(program, call):
    """Make a call, with its input; return the bits of its result."""
    data = program_calls.input_of(call)
    if data:
        program.write(program.call("input"), data)
    return program.call(call["function"], *program_calls.patterns(call))


@pytest.mark.parametrize("inline", [False, True], ids=["libcalls", "inline"])
@pytest.mark.parametrize("name", NAMES)
def test_computes_what_the_native_build_does(name, inline):
    program = OnToyJit(name, inline)
    for call in program_calls.CALLS[name]:
        assert _make(program, call) == int(call["result"][1]), call
        assert program.has("output") == ("output_sha256" in call)
        if program.has("output"):
            start = program.call("output")
            output = program.memory()[start : start + program.call("output_size")]
            assert hashlib.sha256(output).hexdigest() == call["output_sha256"], call


@pytest.mark.parametrize("name", NAMES)
def test_leaves_the_memory_that_wasmtime_leaves(name):
    theirs, ours = OnWasmtime(name), OnToyJit(name)
    for call in program_calls.CALLS[name]:
        assert _make(ours, call) == _make(theirs, call), call
        if program_calls.CALLS[name][0] is call or "input" in call:
            assert ours.memory() == theirs.memory(), call
    assert ours.memory() == theirs.memory()


def test_calls_make_use_of_every_program():
    built = {path.stem for path in program_calls.PROGRAMS.glob("*.wasm")}
    sources = {path.stem for path in program_calls.PROGRAMS.glob("*.c")}
    assert set(program_calls.CALLS) == built == sources


def test_hashes_what_python_hashes():
    """The native build is not the only witness."""
    program = OnToyJit("sha256")
    for length in (0, 1, 55, 56, 63, 64, 65, 1000):
        message = bytes(i * 7 & 255 for i in range(length))
        program.write(program.call("input"), message)
        program.call("sha256", length)
        start = program.call("output")
        digest = bytes(program.memory()[start : start + 32])
        assert digest == hashlib.sha256(message).digest()
