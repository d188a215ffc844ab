"""Vectors beyond the specification's tests: Python's side, frames, registers, CPUs."""

import json
import shutil
import struct
import sys

import program_calls
import pytest
from child_process import run_program
from jit_modules import MEMORY, Function, build, instantiate
from spec_runner import SpecFile
from wasm_builder import I32, exported, functype, imported
from wasm_builder import body as function_body
from wasm_builder import module as wasm_module
from wasm_functions import NO_SPEC_TESTS, SPEC_TESTS, code, spec_files

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.errors import UnsupportedFeature
from asm_libcalls.toy_jit.frontend import opcodes as op
from asm_libcalls.toy_jit.frontend.module import V128
from asm_libcalls.toy_jit.link.listing import listing
from wasm_encoding import s, u

pytestmark = pytest.mark.usefixtures("machine_code")

ONE, TWO = 0x0123456789ABCDEF_0F1E2D3C4B5A6978, (1 << 128) - 7
SSE4_1 = frozenset({"sse3", "ssse3", "sse4_1"})
CPUS = {"SSE4.1": SSE4_1, "SSE4.2": SSE4_1 | {"sse4_2"}, "AVX": SSE4_1 | {"sse4_2", "avx"}}


def lanes(text, *values):
    return int.from_bytes(struct.pack("<" + text, *values), "little")


@pytest.fixture
def on_cpu(monkeypatch):
    """Compile for a CPU with these features, and for this one again afterwards."""
    from asm_libcalls.toy_jit.codegen import templates, vector_handlers
    from asm_libcalls.toy_jit.codegen.stencils.direct_vectors import direct
    from asm_libcalls.toy_jit.codegen.stencils.vectors import vectors

    def change(features):
        if not features <= templates.CPU_FEATURES:
            pytest.skip("this CPU has less")
        monkeypatch.setattr(templates, "CPU_FEATURES", features)
        forget()

    def forget():
        templates._load_vectors.cache_clear()
        vector_handlers.make_vector_handlers.cache_clear()
        templates.FORMS.clear()
        for name in vectors(frozenset()):
            templates.TEMPLATES.pop(name, None)
        for name in direct(False) | direct(True):
            templates.INSTRUCTIONS.pop(name, None)

    forget()
    yield change
    monkeypatch.undo()
    forget()


# -- in Python


def test_arguments_and_results():
    both = Function("v128 i32 v128 f64 -> v128", "local.get 00 local.get 02 i8x16.add")
    f = instantiate({"f": both}).exports["f"]
    assert f(1, 0, 2, 0.0) == 3
    assert f(TWO, 0, 0, 0.0) == TWO
    assert f(-1, 0, 0, 0.0) == (1 << 128) - 1
    assert f.call_bits(ONE, 0, 0, 0) == (ONE,)


def test_results_beside_others():
    results = "local.get 01 local.get 00 local.get 03 local.get 02"
    f = instantiate({"f": Function("v128 i32 v128 f32 -> i32 v128 f32 v128", results)})
    assert f.exports["f"](ONE, -5, TWO, 1.5) == (-5, ONE, 1.5, TWO)


@pytest.mark.parametrize("text", ["unreachable", "loop 40 br 00 end unreachable"])
def test_results_of_a_function_that_never_returns(text):
    toy_jit.Module(build({"f": Function(" -> v128 v128 v128", text)}))


@pytest.mark.parametrize("value", [1 << 128, -(1 << 127) - 1])
def test_too_large(value):
    f = instantiate({"f": Function("i32 v128 -> v128", "local.get 01")}).exports["f"]
    with pytest.raises(OverflowError, match=r"argument 2 must be in -2\*\*127 .. 2\*\*128-1"):
        f(1, value)


@pytest.mark.parametrize("value", [1.5, "1", None, b"0" * 16])
def test_no_integer(value):
    f = instantiate({"f": Function("v128 -> v128", "local.get 00")}).exports["f"]
    with pytest.raises(TypeError, match=r"argument 1 must be an integer \(v128\)"):
        f(value)
    with pytest.raises(TypeError, match=r"argument 1 must be a bit pattern \(int of 128 bits\)"):
        f.call_bits(value)


def test_call_bits_takes_no_sign():
    f = instantiate({"f": Function("v128 -> v128", "local.get 00")}).exports["f"]
    with pytest.raises(OverflowError, match=r"must be a bit pattern in 0 .. 2\*\*128-1"):
        f.call_bits(-1)


def test_host_functions():
    seen = []

    def host(*arguments):
        seen.append(arguments)
        return 7, arguments[1] ^ 1, 2.5

    calls = {
        "f": Function("-> i32 v128 f64", f"i32.const 03 v128.const {'01' * 16} call 00"),
        "g": Function("v128 -> v128", "local.get 00 call 01 local.get 00 v128.xor"),
    }
    imports = {"three": "i32 v128 -> i32 v128 f64", "one": "v128 -> v128"}
    exports = instantiate(calls, imports, {"three": host, "one": lambda v: v + 1}).exports
    ones = int("01" * 16, 16)
    assert exports["f"]() == (7, ones ^ 1, 2.5)
    assert seen == [(3, ones)]
    assert exports["g"](ONE) == ONE ^ (ONE + 1)


@pytest.mark.parametrize("returned", [None, "1", 1 << 128])
def test_host_functions_that_return_no_vector(returned):
    imports = {"one": "-> v128"}
    f = instantiate({"f": Function("-> v128", "call 00")}, imports, {"one": lambda: returned})
    with pytest.raises((TypeError, OverflowError), match=r"the result of the host function m\.one"):
        f.exports["f"]()


def test_globals():
    init = b"\xfd\x0c" + ONE.to_bytes(16, "little") + b"\x0b"
    instance = instantiate(
        {
            "get": Function("-> v128", "global.get 00"),
            "set": Function("v128 ->", "local.get 00 global.set 00"),
        },
        globals_=[b"\x7b\x01" + init, b"\x7b\x00" + init],
        exports=[exported("g", 3, 0), exported("h", 3, 1)],
    )
    g, h = instance.exports["g"], instance.exports["h"]
    assert instance.exports["get"]() == g.value == g.bits == h.value == ONE
    instance.exports["set"](TWO)
    assert g.value == TWO
    g.value = -1
    assert instance.exports["get"]() == g.bits == (1 << 128) - 1
    assert h.value == ONE
    assert "v128" in repr(g)


def test_a_global_of_python():
    g = asm_libcalls.Global("v128", TWO, mutable=True)
    assert g.value == g.bits == TWO
    g.bits = 1 << 127
    assert g.value == 1 << 127
    with pytest.raises(OverflowError, match=r"2\*\*128-1 \(v128\)"):
        g.value = 1 << 128


# -- frames

CONTROL = {
    "block": "block 7b local.get 00 local.get 02 br_if 00 drop local.get 01 end",
    "if": "local.get 02 if 7b local.get 00 else local.get 01 end",
    "select": "local.get 00 local.get 01 local.get 02 select",
    "select_t": "local.get 00 local.get 01 local.get 02 select_t 01 7b",
    "br_table": "block 7b block 7b local.get 00 local.get 02 br_table 01 00 01 end "
    "drop local.get 01 end",
    "return": "local.get 01 local.get 00 local.get 02 br_if 00 drop",
    "loop": "local.get 01 loop 7b local.get 02 if 40 local.get 00 local.set 01 i32.const 00 "
    "local.set 02 br 01 end local.get 01 end local.set 00 drop local.get 00",
}


@pytest.mark.parametrize("name", CONTROL)
def test_control(name):
    f = instantiate({"f": Function("v128 v128 i32 -> v128", CONTROL[name])}).exports["f"]
    assert f(ONE, TWO, 1) == ONE
    assert f(ONE, TWO, 0) == TWO


@pytest.mark.parametrize("cpu", CPUS)
def test_more_operands_and_locals_than_registers(cpu, on_cpu):
    """With values of other types between them, over a call, and in the other order."""
    on_cpu(CPUS[cpu])
    count = 30
    sets = "".join(
        f"local.get 00 i32.const {i:02x} i8x16.splat i32x4.add local.tee {i + 1:02x} "
        f"drop f32.const 0000803f i32.const 05 " for i in range(count)
    )  # fmt: skip
    operands = "".join(f"local.get {i + 1:02x} " for i in range(count))
    adds = "i64x2.sub " * (count - 1)
    body = (
        f"{sets} {operands} call 00 {adds} call 00 local.set 00 {'drop ' * 2 * count} local.get 00"
    )
    functions = {"f": Function("v128 -> v128", body, "v128 " * count)}
    seen = []
    same = {"same": lambda v: seen.append(v) or v}
    f = instantiate(functions, {"same": "v128 -> v128"}, same).exports["f"]

    def low(value, i):
        step = int(f"{i:02x}" * 4, 16)
        return [(value >> 32 * k) + step & 0xFFFFFFFF for k in range(4)]

    values = [lanes("4I", *low(ONE, i)) for i in range(count)]
    expected = values[-1]
    for value in reversed(values[:-1]):
        expected = lanes("2Q", *((value >> s) - (expected >> s) & (1 << 64) - 1 for s in (0, 64)))
    assert f(ONE) == expected
    assert seen == [values[-1], expected]


def test_memory_that_a_call_closes():
    """An address that was checked before a call is checked again after it."""
    memory = asm_libcalls.Memory(1, 1)
    body = "local.get 00 v128.load 00 00 call 00 local.get 00 v128.load 00 00 v128.xor"
    imports = [imported(0, u(0), "h"), imported(2, b"\x01\x01\x01", "m")]
    binary = wasm_module(
        types=[functype(), functype([I32], [V128])],
        imports=imports,
        functions=[1],
        exports=[exported("f", 0, 1)],
        code=[function_body(code(body))],
    )
    given = {"m": {"h": memory.close, "m": memory}}
    f = toy_jit.Instance(toy_jit.Module(binary), given).exports["f"]
    with pytest.raises(asm_libcalls.Trap, match="out of bounds memory access"):
        f(0)


SIZES = {"8": 1, "16": 2, "32": 4, "64": 8, "8x8": 8, "16x4": 8, "32x2": 8}


@pytest.mark.parametrize(
    "name", [name for name in op.OPCODES if op.OPCODES[name] in op.ALIGNMENTS and name[0] == "v"]
)
@pytest.mark.parametrize("offset", [0, 5, 65000, 0x7FFFFFF8, 0xFFFFFFFF])
@pytest.mark.parametrize("known", [False, True])
def test_the_end_of_memory(name, offset, known):
    digits = name.partition("load" if "load" in name else "store")[2].partition("_")[0]
    size = SIZES.get(digits, 16)
    vector = "local.get 01 " if "lane" in name or "store" in name else ""
    immediates = f"{name} 00 {u(offset).hex()}{' 00' if 'lane' in name else ''}"
    result = "" if "store" in name else "v128"

    def access(address):
        what = f"i32.const {wasm_i32(address)}" if known else "local.get 00"
        body = f"{what} {vector} {immediates}"
        f = instantiate({"f": Function(f"i32 v128 -> {result}", body)}, **MEMORY).exports["f"]
        return f(address, 1)

    last = 65536 - size - offset
    if last >= 0:
        assert access(last) == (0 if result and not vector else access(last))
    for address in (max(last + 1, 0), 65536, 0xFFFFFFFF):
        with pytest.raises(asm_libcalls.Trap, match="out of bounds memory access"):
            access(address)


def wasm_i32(value):
    return s(value - (value >> 31 << 32)).hex()


# -- registers


@pytest.mark.parametrize("cpu", CPUS)
def test_registers_of_instructions(cpu, on_cpu):
    """Every instruction whose registers the compiler chooses, with every register."""
    pytest.importorskip("capstone", reason="pip install capstone, to disassemble")
    from instruction_forms import check_registers

    from asm_libcalls.toy_jit.codegen import templates

    on_cpu(CPUS[cpu])
    others = {*templates.INSTRUCTIONS}
    templates.load_vectors(0)
    vectors = templates.INSTRUCTIONS.keys() - others
    assert len(vectors) > 90
    for name in vectors:
        check_registers(name)


# -- CPUs and options


@pytest.mark.skipif(not SPEC_TESTS, reason=NO_SPEC_TESTS)
@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("inline", [False, True])
def test_specification_on_other_cpus(cpu, inline, on_cpu, monkeypatch):
    on_cpu(CPUS[cpu])
    module = toy_jit.Module
    options = toy_jit.compile_options(inline=inline)
    monkeypatch.setattr(toy_jit, "Module", lambda binary: module(binary, options))
    files = [path for path in spec_files() if path.stem.startswith("simd_")]
    if not files:
        pytest.skip("WASM_SPEC_TESTS has no SIMD tests")
    assert [failure for path in files for failure in SpecFile(path).run()] == []


def test_a_cpu_without_sse4_1(monkeypatch):
    from asm_libcalls.toy_jit.codegen import templates

    toy_jit.Module(build({}))
    monkeypatch.setattr(templates, "CPU_FEATURES", frozenset({"sse3", "ssse3"}))
    with pytest.raises(UnsupportedFeature, match=r"need a CPU with SSE4\.1") as caught:
        toy_jit.Module(build({"f": Function("-> v128", f"v128.const {'00' * 16}")}))
    assert caught.value.proposal == "simd"
    instantiate({"f": Function("-> i32", "i32.const 05")}).exports["f"]()


EMULATED = """
import json, program_calls
from asm_libcalls import toy_jit
outcome = {}
for name in ("vector_matrix", "vector_sha256", "vector_blake3"):
    try:
        exports = toy_jit.Instance(toy_jit.Module(program_calls.wasm(name))).exports
    except toy_jit.InvalidModule as error:
        outcome[name] = str(error)
        continue
    calls = program_calls.CALLS[name][:2]
    outcome[name] = [
        exports[call["function"]].call_bits(*program_calls.patterns(call))[0] for call in calls
    ]
print(json.dumps(outcome))
"""


@pytest.mark.parametrize("cpu", ["Conroe", "Penryn"])
def test_emulated_cpus(cpu):
    """One without SSE4.1, and one that has no more than it."""
    qemu = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if qemu is None:
        pytest.skip("no qemu-x86_64-static: install Debian's package qemu-user-static")
    done = run_program(
        *(qemu, "-cpu", cpu, sys.executable, "-c", EMULATED),
        variables={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    for name, outcome in json.loads(done.stdout).items():
        if cpu == "Conroe":
            assert "need a CPU with SSE4.1, which this one has not" in outcome
        else:
            assert outcome == [int(call["result"][1]) for call in program_calls.CALLS[name][:2]]


@pytest.mark.parametrize("name", ["f32x4", "f64x2"])
@pytest.mark.parametrize("verb", ["ceil", "floor", "trunc", "nearest"])
def test_rounding_calls_the_libcall_for_each_lane(name, verb):
    functions = {"f": Function("v128 -> v128", f"local.get 00 {name}.{verb}")}
    counted = toy_jit.Module(build(functions), toy_jit.compile_options(count_libcalls=True))
    inlined = toy_jit.Module(
        build(functions), toy_jit.compile_options(inline=True, count_libcalls=True)
    )
    text, values = ("4f", (-1.5, 2.5, 0.3, -0.0)) if name == "f32x4" else ("2d", (-1.5, 2.5))
    value = lanes(text, *values)
    results = [toy_jit.Instance(m).exports["f"](value) for m in (counted, inlined)]
    assert results[0] == results[1]
    count = len(values)
    assert {n: c for n, c in counted.libcall_counts().items() if c} == {f"{name[:3]}_{verb}": count}
    assert not any(inlined.libcall_counts().values())


def test_listing():
    pytest.importorskip("capstone", reason="pip install capstone, to disassemble")
    body = (
        f"v128.const {'0f' * 16} local.get 00 i8x16.shuffle 000102030405060708090a0b0c0d0e1f "
        "i32x4.extract_lane 02"
    )
    options = toy_jit.compile_options(listing=True)
    module = toy_jit.Module(build({"f": Function("v128 -> i32", body)}), options)
    lines = [line.text for line in listing(module, 0)]
    assert f"v128.const 0x{'0f' * 16}" in lines
    assert "i8x16.shuffle 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31" in lines
    assert "i32x4.extract_lane 2" in lines


def test_functions_without_vectors_are_as_in_other_modules():
    plain = Function("i64 f64 -> f64", "local.get 01 local.get 00 f64.convert_i64_s f64.add")
    vector = Function("-> i32", f"v128.const {'01' * 16} i8x16.bitmask")
    codes = [
        toy_jit.Module(build(functions)).code
        for functions in ({"f": plain}, {"f": plain, "g": vector})
    ]
    alone, beside = (code.code_of(0)[: code.tables.ends[0]] for code in codes)
    assert alone == beside
