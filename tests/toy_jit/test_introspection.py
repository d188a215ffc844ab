"""Modules from files, their imports and exports, and complete errors of linking."""

import inspect
import pickle
import shutil
import traceback
from pathlib import Path

import pytest
import wasm_builder as wasm
from jit_modules import Function, build, instantiate
from wasm_builder import END, i32, module

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.frontend.external_types import (
    FuncType,
    GlobalType,
    Limits,
    MemoryType,
    TableType,
)
from asm_libcalls.toy_jit.link.listing import listing

pytestmark = pytest.mark.usefixtures("machine_code")

WASM = module(
    types=[wasm.functype([0x7F, 0x7E], [0x7D, 0x7C]), wasm.functype()],
    imports=[
        wasm.imported(0, b"\0", "f"),
        wasm.imported(1, b"\x6f\1\2\5", "t"),
        wasm.imported(2, b"\0\1", "m"),
        wasm.imported(3, b"\x7f\1", "g"),
    ],
    functions=[1],
    globals_=[b"\x70\0\xd0\x70" + END],
    exports=[
        wasm.exported("own", 0, 1),
        wasm.exported("f", 0, 0),
        wasm.exported("t", 1, 0),
        wasm.exported("m", 2, 0),
        wasm.exported("g", 3, 0),
        wasm.exported("own global", 3, 1),
    ],
    code=[wasm.body(b"")],
)
FUNCTION = FuncType(("i32", "i64"), ("f32", "f64"))
TABLE = TableType("externref", Limits(2, 5))
MEMORY = MemoryType(Limits(1, None))
GLOBAL = GlobalType("i32", True)


def test_imports():
    found = toy_jit.Module(WASM).imports
    assert [(i.module, i.name, i.kind, i.type) for i in found] == [
        ("m", "f", "function", FUNCTION),
        ("m", "t", "table", TABLE),
        ("m", "m", "memory", MEMORY),
        ("m", "g", "global", GLOBAL),
    ]
    assert (found[1].type.limits.min, found[1].type.limits.max) == (2, 5)


def test_exports():
    assert [(e.name, e.kind, e.type) for e in toy_jit.Module(WASM).exports] == [
        ("own", "function", FuncType((), ())),
        ("f", "function", FUNCTION),
        ("t", "table", TABLE),
        ("m", "memory", MEMORY),
        ("g", "global", GLOBAL),
        ("own global", "global", GlobalType("funcref", False)),
    ]


def test_types_are_values():
    for found in (*toy_jit.Module(WASM).imports, *toy_jit.Module(WASM).exports):
        again = pickle.loads(pickle.dumps(found))
        assert again == found
        assert hash(again) == hash(found)
        with pytest.raises(AttributeError, match="do not change"):
            found.name = "x"
    assert Limits(1, 2) != MemoryType(Limits(1, 2))
    assert repr(GLOBAL) == "GlobalType(content='i32', mutable=True)"
    assert repr(Limits(1, None)) == "Limits(max=None, min=1)"


# -- all that is missing


def test_all_missing_imports_are_listed():
    with pytest.raises(toy_jit.LinkError) as caught:
        toy_jit.Instance(toy_jit.Module(WASM), {"m": {"m": asm_libcalls.Memory(1)}})
    assert str(caught.value).splitlines() == [
        "3 unknown imports:",
        "  m.f: function (i32, i64) -> (f32, f64)",
        "  m.t: table of 2 to 5 externrefs",
        "  m.g: mutable global i32",
    ]
    assert [each.name for each in caught.value.missing] == ["f", "t", "g"]


def test_a_message_lists_so_many_missing_imports_and_no_more():
    many = [0x7F] * 1000
    imports = [wasm.imported(0, b"\0", f"f{i}") for i in range(2000)]
    compiled = toy_jit.Module(module(types=[wasm.functype(many, many)], imports=imports))
    with pytest.raises(toy_jit.LinkError) as caught:
        toy_jit.Instance(compiled)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2000 unknown imports:"
    assert lines[1].startswith("  m.f0: function (i32, i32")
    assert lines[-1] == "  and 1950 more"
    assert len(lines) == 52
    assert all(len(line) < 600 for line in lines)
    assert len(caught.value.missing) == 2000
    assert len({id(each.type.params) for each in caught.value.missing}) == 1


def test_one_missing_import():
    binary = build({"f": Function("->", "")}, {"g": "i32 ->"})
    with pytest.raises(toy_jit.LinkError) as caught:
        toy_jit.Instance(toy_jit.Module(binary))
    assert str(caught.value) == "unknown import m.g: function (i32) -> ()"
    assert len(caught.value.missing) == 1


def test_a_missing_wasi_has_a_hint():
    imported = wasm.name("wasi_snapshot_preview1") + wasm.name("sched_yield") + b"\0\0"
    binary = module(types=[wasm.functype([], [0x7F])], imports=[imported])
    with pytest.raises(toy_jit.LinkError, match=r"toy_jit\.wasi\.Preview1\(\) gives wasi_snap"):
        toy_jit.Instance(toy_jit.Module(binary))


# -- files


def test_from_file(tmp_path):
    path = tmp_path / "x.wasm"
    path.write_bytes(WASM)
    for given in (path, str(path)):
        assert len(toy_jit.Module.from_file(given).exports) == 6
    options = toy_jit.compile_options(count_libcalls=True)
    assert toy_jit.Module.from_file(path, options).libcall_counts()
    with pytest.raises(FileNotFoundError):
        toy_jit.Module.from_file(tmp_path / "none.wasm")
    path.write_bytes(WASM[:-1])
    with pytest.raises(toy_jit.InvalidModule):
        toy_jit.Module.from_file(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device without an end")
def test_a_file_that_is_no_module_is_not_read_to_its_end():
    with pytest.raises(toy_jit.InvalidModule, match="magic header not detected"):
        toy_jit.Module.from_file("/dev/zero")


@pytest.mark.parametrize("kind", ["wabt", "wasmtime"])
def test_from_text(tmp_path, kind, monkeypatch):
    if kind == "wasmtime":
        pytest.importorskip("wasmtime")
        monkeypatch.setattr(shutil, "which", lambda name: None)
    elif not shutil.which("wat2wasm"):
        pytest.skip("wat2wasm is not installed: it is in wabt")
    path = tmp_path / "x.wat"
    path.write_text('(module (func (export "f") (result i32) i32.const 7))')
    assert toy_jit.Instance(toy_jit.Module.from_file(path)).exports["f"]() == 7
    path.write_text("(module (func")
    with pytest.raises(ValueError, match=f"wat2wasm refuses .*{path.name}|wasmtime refuses"):
        toy_jit.Module.from_file(path)


def test_from_text_without_a_converter(tmp_path, monkeypatch):
    import sys

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "wasmtime", None)
    path = tmp_path / "x.wat"
    path.write_text("(module)")
    with pytest.raises(RuntimeError, match=r"x\.wat needs a converter .* wabt"):
        toy_jit.Module.from_file(path)


def test_a_file_name_has_a_hint(tmp_path):
    with pytest.raises(TypeError, match=r"got str 'x\.wasm'; Module\.from_file\(\) reads a file"):
        toy_jit.Module("x.wasm")
    with pytest.raises(TypeError, match=r"got PosixPath\('.*; Module\.from_file\("):
        toy_jit.Module(tmp_path)
    with pytest.raises(TypeError, match=r"got int 3$"):
        toy_jit.Module(3)


# -- segments that do not fit


def test_a_data_segment_that_does_not_fit_is_named():
    segments = [b"\0" + i32(0) + END + b"\1a", b"\0" + i32(0xFFFE) + END + b"\3abc"]
    binary = module(memories=[b"\0\1"], data=segments)
    with pytest.raises(asm_libcalls.Trap) as caught:
        toy_jit.Instance(toy_jit.Module(binary))
    expected = "data segment 1 has 3 bytes for 0xfffe, and the memory 65536 bytes"
    assert str(caught.value) == f"out of bounds memory access: {expected}"
    assert caught.value.code == asm_libcalls.TrapCode.HEAP_OUT_OF_BOUNDS
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_an_element_segment_that_does_not_fit_is_named():
    segments = [b"\0" + i32(0) + END + b"\0", b"\0" + i32(-1) + END + b"\1\0"]
    binary = module(
        types=[wasm.functype()],
        functions=[0],
        tables=[b"\x70\0\2"],
        elements=segments,
        code=[wasm.body(b"")],
    )
    with pytest.raises(asm_libcalls.Trap) as caught:
        toy_jit.Instance(toy_jit.Module(binary))
    expected = "element segment 1 has 1 elements for 0xffffffff, and the table 2 elements"
    assert str(caught.value) == f"out of bounds table access: {expected}"


def test_memory_that_is_not_exported():
    with_memory = instantiate({"f": Function("->", "")}, memories=[b"\0\2"])
    assert with_memory.memory.size == 2
    with pytest.raises(AttributeError, match="has no memory"):
        _ = instantiate({"f": Function("->", "")}).memory


def test_a_function_says_what_it_is():
    """Python's own names, also after the first call, which makes a builtin."""
    code = wasm.body(i32(1))
    exports = toy_jit.Instance(
        toy_jit.Module(
            module(
                types=[
                    wasm.functype([0x7F, 0x7D, 0x6F], [0x7C]),
                    wasm.functype([0x7E], [0x7F]),
                    wasm.functype([], [0x7F, 0x7F]),
                    wasm.functype(),
                ],
                functions=[0, 1, 2, 3],
                exports=[wasm.exported(name, 0, i) for i, name in enumerate("wxyz")],
                code=[
                    wasm.body(b"\0"),
                    code,
                    wasm.body(i32(1) + i32(2)),
                    wasm.body(b""),
                ],
            )
        )
    ).exports
    expected = {
        "w": "(a: int, b: float, c: object, /) -> float",
        "x": "(a: int, /) -> int",
        "y": "() -> tuple",
        "z": "() -> None",
    }
    for _ in range(2):
        assert {name: str(inspect.signature(f)) for name, f in exports.items()} == expected
        assert [f.__name__ for f in exports.values()] == list("wxyz")
        assert exports["x"].__doc__ == "Call the WebAssembly function x: [i64] -> [i32]."
        assert exports["x"](7) == exports["x"].__call__(7) == 1
        assert exports["y"]() == (1, 2)
    function_class = type(exports["x"])
    assert "Attributes" in (inspect.getdoc(function_class) or "")
    assert inspect.isclass(function_class)
    assert not hasattr(function_class, "__signature__")


UNPRINTABLE = "f\x1b[31m\n\u202e\0\u2028"
"""A terminal's colour, ends of lines, and a change of direction."""


def complaint(action):
    """Return all that Python prints about the exception that an action raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        action()
    return "".join(traceback.format_exception_only(caught.value))


def test_names_of_a_module_are_escaped_wherever_they_are_shown():
    name = wasm.name(UNPRINTABLE)
    functions = b"\x02\0" + name + b"\1" + name
    names = wasm.custom("name", b"\0" + wasm.sized(name) + b"\1" + wasm.sized(functions))
    binary = wasm.module(
        types=[wasm.functype([0x7F], [0x7F])],
        imports=[name + name + b"\0\0"],
        functions=[0],
        exports=[wasm.exported(UNPRINTABLE, 0, 1)],
        code=[wasm.body(bytes.fromhex("20 00 10 00"))],
    )
    compiled = toy_jit.Module(binary + names, toy_jit.compile_options(listing=True))

    def instance(host):
        return toy_jit.Instance(compiled, {UNPRINTABLE: {UNPRINTABLE: host}})

    closed = instance(abs).exports[UNPRINTABLE]
    closed.instance.close()
    function = instance(abs).exports[UNPRINTABLE]
    texts = {
        "module": repr(compiled),
        "imports": f"{compiled.imports[0]} {compiled.imports!r}",
        "exports": f"{compiled.exports[0]} {compiled.exports!r}",
        "function": f"{function!r} {function.__doc__}",
        "listing": "\n".join(line.text for line in listing(compiled, 1)),
        "missing": complaint(lambda: toy_jit.Instance(compiled)),
        "of another type": complaint(lambda: instance(5)),
        "closed": complaint(lambda: instance(closed)),
        "an argument": complaint(lambda: function("a")),
        "another argument": complaint(lambda: function.call_bits(1 << 70)),
        "a result": complaint(lambda: instance(str).exports[UNPRINTABLE](1)),
        "a backtrace": complaint(
            lambda: instance(lambda _: asm_libcalls.i64_sdiv(1, 0)).exports[UNPRINTABLE](1)
        ),
    }
    for what, text in texts.items():
        assert all(line.isprintable() for line in text.split("\n")), (what, text)
        assert "\\x1b" in text, (what, text)
    assert function.__name__ == UNPRINTABLE
