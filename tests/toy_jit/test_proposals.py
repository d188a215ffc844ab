"""Modules that use a proposal: each is refused with its name; extended constants are supported."""

import pickle

import pytest
import wasm_builder as wasm
from wasm_builder import END, I32, function, i32, module
from wasm_functions import validate_module

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.errors import InvalidModule, UnsupportedFeature
from asm_libcalls.toy_jit.frontend import proposals

# -- refused

EMPTY = wasm.functype([])


def in_code(opcode):
    """Give a module whose function begins with an instruction."""
    code = bytes([opcode]) if opcode < 0x100 else b"\xfc" + wasm.u(opcode - 0x100)
    return module(types=[EMPTY], functions=[0], code=[wasm.body(code + b"\0\0")])


def rows():
    """List (what it is, module, feature) for everything that the tables of proposals name."""
    yield "component", b"\0asm\x0d\0\1\0", proposals.COMPONENT
    for number, feature in proposals.SECTIONS.items():
        yield f"section {number}", wasm.HEADER + wasm.section(number, b"\0"), feature
    for kind, feature in proposals.EXTERNAL_KINDS.items():
        yield f"import {kind}", module(imports=[wasm.imported(kind, b"\0\0")]), feature
        yield f"export {kind}", module(exports=[wasm.exported("x", kind, 0)]), feature
    for form, feature in proposals.TYPE_FORMS.items():
        yield f"type {form:#x}", module(types=[bytes([form]) + b"\1\0"]), feature
    for byte, feature in proposals.VALUE_TYPES.items():
        types = bytes([byte, 0x70])
        in_type = module(types=[b"\x60\1" + types + b"\0"])
        yield f"parameter {byte:#x}", in_type, feature
        yield f"table {byte:#x}", module(tables=[types + b"\0\0"]), feature
        block = wasm.body(b"\x02" + types + END)
        yield f"block {byte:#x}", module(types=[EMPTY], functions=[0], code=[block]), feature
        local = wasm.sized(b"\1\1" + types + END)
        yield f"local {byte:#x}", module(types=[EMPTY], functions=[0], code=[local]), feature
        yield f"global {byte:#x}", module(globals_=[types + b"\0" + END]), feature
    for flag, feature in proposals.MEMORY_FLAGS:
        for flags in (flag, flag | 1):
            yield f"memory {flags}", module(memories=[bytes([flags, 1, 1])]), feature
            imported = wasm.imported(2, bytes([flags, 1, 1]))
            yield f"imported memory {flags}", module(imports=[imported]), feature
    for flag, feature in proposals.TABLE_FLAGS:
        yield f"table {flag}", module(tables=[bytes([0x70, flag | 1, 1, 1])]), feature
    yield (
        "table 0x40",
        module(tables=[b"\x40\0\x70\0\0\xd0\x70" + END]),
        proposals.TABLE_INITIALIZER,
    )
    yield "2 memories", module(memories=[b"\0\0", b"\0\0"]), proposals.SECOND_MEMORY
    imported = [wasm.imported(2, b"\0\0")]
    yield "2nd memory", module(imports=imported, memories=[b"\0\0"]), proposals.SECOND_MEMORY
    load = wasm.body(i32(0) + b"\x28\x42\0\0\x1a")
    yield (
        "load from memory",
        module(types=[EMPTY], functions=[0], memories=[b"\0\1"], code=[load]),
        proposals.MEMORY_OF_ACCESS,
    )
    for opcode, feature in proposals.OPCODES.items():
        yield f"opcode {opcode:#x}", in_code(opcode), feature
        constant = module(globals_=[b"\x7f\0" + bytes([opcode]) + END]) if opcode < 0x100 else None
        if constant:
            yield f"constant {opcode:#x}", constant, feature


ROWS = list(rows())


@pytest.mark.parametrize(("binary", "feature"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS])
def test_refused_by_name(binary, feature):
    with pytest.raises(UnsupportedFeature) as caught:
        validate_module(binary)
    error = caught.value
    what, proposal = feature
    assert error.proposal == proposal
    assert error.what.startswith(what)
    assert f"{proposal}, which is not supported" in str(error)
    assert 0 <= error.offset < len(binary)


def test_the_error_is_public_and_pickles():
    assert issubclass(toy_jit.UnsupportedFeature, InvalidModule)
    error = pickle.loads(pickle.dumps(UnsupportedFeature("what", 3, "threads")))
    assert (error.what, error.offset, error.proposal) == ("what", 3, "threads")
    assert str(error) == "what: at byte 0x3"


# -- extended constant expressions

ADD, SUB, MUL = b"\x6a", b"\x6b", b"\x6c"
ADD64, SUB64, MUL64 = b"\x7c", b"\x7d", b"\x7e"

EXTENDED = [
    ("i32", i32(40) + i32(2) + ADD, 42),
    ("i32", i32(40) + i32(42) + SUB, -2),
    ("i32", i32(-6) + i32(7) + MUL, -42),
    ("i32", i32(0x7FFFFFFF) + i32(1) + ADD, -0x80000000),
    ("i32", i32(-0x80000000) + i32(1) + SUB, 0x7FFFFFFF),
    ("i32", i32(0x10000) + i32(0x10001) + MUL, 0x10000),
    ("i32", i32(1) + i32(2) + i32(3) + MUL + SUB, -5),  # 1 - 2 * 3
    ("i32", b"\x23\0" + i32(5) + ADD, 105),
    ("i32", b"\x23\0" + b"\x23\0" + MUL, 10_000),
    ("i64", wasm.i64(1 << 62) + wasm.i64(2) + MUL64, -(1 << 63)),
    ("i64", wasm.i64(-(1 << 63)) + wasm.i64(1) + SUB64, (1 << 63) - 1),
    ("i64", wasm.i64(1) + wasm.i64(-2) + ADD64, -1),
    ("i32", i32(1) * 30_000 + ADD * 29_999, 30_000),  # as deep as it is long
]
IDS = [f"{i}" for i in range(len(EXTENDED))]
imported_global = [wasm.imported(3, b"\x7f\0")]
GIVEN = {"m": {"i": asm_libcalls.Global("i32", 100)}}


@pytest.mark.parametrize(("value_type", "expression", "value"), EXTENDED, ids=IDS)
@pytest.mark.usefixtures("machine_code")
def test_global(value_type, expression, value):
    byte = b"\x7f" if value_type == "i32" else b"\x7e"
    wasm_bytes = module(
        imports=imported_global,
        globals_=[byte + b"\0" + expression + END],
        exports=[wasm.exported("g", 3, 1)],
    )
    exports = toy_jit.Instance(toy_jit.Module(wasm_bytes), GIVEN).exports
    assert exports["g"].value == value


@pytest.mark.usefixtures("machine_code")
def test_offsets_of_segments():
    offset = b"\x23\0" + i32(95) + SUB + END  # 100 - 95
    wasm_bytes = module(
        types=[wasm.functype([], [I32])],
        imports=imported_global,
        functions=[0],
        tables=[b"\x70\0\x0a"],
        memories=[b"\0\1"],
        exports=[wasm.exported("m", 2, 0), wasm.exported("t", 1, 0)],
        elements=[b"\0" + offset + b"\1\0"],
        code=[wasm.body(i32(7))],
        data=[b"\0" + offset + b"\3abc"],
    )
    exports = toy_jit.Instance(toy_jit.Module(wasm_bytes), GIVEN).exports
    assert bytes(exports["m"])[:10] == b"\0\0\0\0\0abc\0\0"
    assert exports["t"][5]() == 7


def test_function_of_the_test_helper():
    """What wraps the code of the rows above is valid, so that they fail for one reason."""
    validate_module(function(b""))
    validate_module(module(types=[EMPTY], functions=[0], code=[wasm.body(b"")]))
