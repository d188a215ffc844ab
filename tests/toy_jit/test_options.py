"""Options of compiling: counted libcalls, and notes for a listing."""

import gc

import pytest
from jit_modules import MEMORY, Function, build, instantiate

from asm_libcalls import toy_jit
from asm_libcalls.libcalls import DECLARATIONS
from asm_libcalls.toy_jit.link.listing import listing

pytestmark = pytest.mark.usefixtures("machine_code")

# One call of each of these libcalls, and what the instructions need.
CALLS = {
    "f32_ceil": "f32.const 00000000 f32.ceil drop",
    "f64_nearest": "f64.const 0000000000000000 f64.nearest drop",
    "i64_ishl": "i64.const 01 i64.const 01 i64.shl drop",
    "i64_udiv": "i64.const 01 i64.const 01 i64.div_u drop",
    "memory32_size": "memory.size 00 drop",
    "memory32_grow": "i32.const 00 memory.grow 00 drop",
    "memory_copy": "i32.const 00 i32.const 00 i32.const 00 memory.copy 00 00",
    "memory_fill": "i32.const 00 i32.const 00 i32.const 00 memory.fill 00",
    "memory_init": "i32.const 00 i32.const 00 i32.const 00 memory.init 00 00",
    "data_drop": "data.drop 00",
    "table_grow": "ref.null 70 i32.const 00 table.grow 00 drop "
                  "ref.null 6f i32.const 00 table.grow 01 drop",
    "table_fill": "i32.const 00 ref.null 6f i32.const 00 table.fill 01",
    "table_copy": "i32.const 00 i32.const 00 i32.const 00 table.copy 00 00",
    "elem_drop": "elem.drop 00",
    "table_init": "i32.const 00 i32.const 00 i32.const 00 table.init 00 00",
    "externref_global_get": "global.get 00 drop",
    "externref_global_set": "ref.null 6f global.set 00",
}  # fmt: skip
PARTS = {
    **MEMORY,
    "tables": [b"\x70\x00\x01", b"\x6f\x00\x01"],
    "globals_": [b"\x6f\x01\xd0\x6f\x0b"],
    "elements": [b"\x01\x00\x01\x00"],
    "data_count": 1,
    "data": [b"\x01\x01a"],
}


@pytest.mark.parametrize("inline", [False, True])
def test_every_libcall_is_counted(inline):
    functions = {name: Function("->", body) for name, body in CALLS.items()}
    options = toy_jit.compile_options(inline=inline, count_libcalls=True)
    module = toy_jit.Module(build(functions, **PARTS), options)
    instance = toy_jit.Instance(module)
    expected = dict.fromkeys(DECLARATIONS, 0)
    assert module.libcall_counts() == expected
    for name in CALLS:
        before = dict(module.libcall_counts())
        for _ in range(3):
            instance.exports[name]()
        after = module.libcall_counts()
        called = {n: after[n] - before[n] for n in after if after[n] != before[n]}
        calls = 6 if name == "table_grow" else 3
        assert called == {name: calls} or (inline and called == {})
    assert sum(module.libcall_counts().values()) >= 3 * (len(CALLS) - 6)


def test_instances_share_the_counters():
    options = toy_jit.compile_options(count_libcalls=True)
    functions = {"f": Function("->", CALLS["memory_fill"])}
    module = toy_jit.Module(build(functions, **MEMORY), options)
    for _ in range(4):
        toy_jit.Instance(module).exports["f"]()
    assert module.libcall_counts()["memory_fill"] == 4


def test_counting_code_outlives_its_module():
    options = toy_jit.compile_options(count_libcalls=True)
    functions = {"f": Function("-> i32", "i32.const 01 memory.grow 00")}
    f = toy_jit.Instance(toy_jit.Module(build(functions, **MEMORY), options)).exports["f"]
    gc.collect()
    assert [f(), f()] == [1, 2]


def test_nothing_is_counted_unasked():
    module = instantiate({"f": Function("->", "")}).module
    with pytest.raises(ValueError, match=r"compile_options\(count_libcalls=True\)"):
        module.libcall_counts()


@pytest.mark.parametrize("wrong", [5, {"inline": True}, True])
def test_options_are_made_by_compile_options(wrong):
    with pytest.raises(TypeError, match=r"Module\(\): options must be what compile_options"):
        toy_jit.Module(build({}), wrong)


def test_a_listing_is_of_a_defined_function():
    functions = {"f": Function("->", "call 00")}
    module = toy_jit.Module(build(functions, {"h": "->"}))
    with pytest.raises(ValueError, match=r"compile_options\(listing=True\)"):
        list(listing(module, 1))
    module = toy_jit.Module(build(functions, {"h": "->"}), toy_jit.compile_options(listing=True))
    for index in (0, 2, -1):
        with pytest.raises(ValueError, match=f"function {index} is not defined"):
            list(listing(module, index))


def test_a_listing_has_every_byte_and_instruction():
    pytest.importorskip("capstone", reason="pip install capstone")
    functions = {name: Function("->", body) for name, body in CALLS.items()}
    module = toy_jit.Module(build(functions, **PARTS), toy_jit.compile_options(listing=True))
    for index, name in enumerate(CALLS):
        lines = list(listing(module, index))
        assert b"".join(line.code for line in lines) == module.code.code_of(index)
        instructions = [line.text.split()[0] for line in lines if not line.code]
        words = [w for w in functions[name].body.split() if "." in w or w == "drop"]
        assert instructions[: len(words)] == words
        offsets = [line.offset for line in lines if not line.code and line.offset >= 0]
        assert offsets == sorted(offsets)
