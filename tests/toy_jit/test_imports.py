"""What a module imports: Python callables, and memories, tables and globals, also of instances."""

import ctypes
import itertools
import math
import struct
import traceback

import numpy as np
import pytest
import wasm_builder as wasm
from jit_modules import EXTERNREFS, FUNCREFS, Function, build, instantiate

import asm_libcalls
from asm_libcalls import toy_jit

pytestmark = pytest.mark.usefixtures("machine_code")

NUMBERS = {
    "i32": (0, 1, -1, 2**31 - 1, -(2**31)),
    "i64": (0, 1, -1, 2**63 - 1, -(2**63), 2**40),
    "f32": (0.0, -0.0, 1.5, math.inf, -math.inf, 2.0**-149),
    "f64": (0.0, -0.0, 0.1, math.inf, -math.inf, 5e-324),
}


class Broken:
    """An iterable whose second item is an error."""

    def __iter__(self):
        yield 1
        raise TypeError("of the second")


def same(value, expected):
    return repr(value) == repr(expected)


@pytest.mark.parametrize("value_type", NUMBERS)
def test_a_number_comes_and_goes(value_type):
    seen = []

    def host(value):
        seen.append(value)
        return value

    signature = f"{value_type} -> {value_type}"
    functions = {"f": Function(signature, "local.get 00 call 00")}
    f = instantiate(functions, {"host": signature}, {"host": host}).exports["f"]
    for value in NUMBERS[value_type]:
        assert same(f(value), value)
        assert same(seen.pop(), value)


def test_many_parameters_and_results_keep_their_order():
    names = "i32 i64 f32 f64 externref funcref " * 4
    functions = {"f": Function(f"{names} -> {names}", all_locals(24) + "call 00")}
    seen = []

    def host(*arguments):
        seen.extend(arguments)
        return arguments

    instance = instantiate(functions, {"host": f"{names} -> {names}"}, {"host": host})
    f = instance.exports["f"]
    objects = [object() for _ in range(4)]
    values = []
    for i in range(4):
        values += [i, -i, i + 0.5, i + 0.25, objects[i], f if i % 2 else None]
    results = f(*values)
    assert isinstance(results, tuple)
    for got in (results, seen):
        assert len(got) == 24
        for value, expected in zip(got, values, strict=True):
            assert value is expected if expected in objects else value == expected


def all_locals(count):
    return "".join(f"local.get {i:02x} " for i in range(count))


@pytest.mark.parametrize(
    ("signature", "returned", "expected"),
    [
        ("-> i32 i32", (1, 2), (1, 2)),
        ("-> i32 i32", [1, 2], (1, 2)),
        ("-> i32 i32", iter((1, 2)), (1, 2)),
        ("-> i32", True, 1),
        ("-> i32", 0xFFFFFFFF, -1),
        ("-> i64", 2**64 - 1, -1),
        ("-> f64", 3, 3.0),
        ("-> ", "whatever", None),
        ("-> externref", None, None),
    ],
)
def test_what_a_host_function_may_return(signature, returned, expected):
    f = instantiate(
        {"f": Function(signature, "call 00")}, {"h": signature}, {"h": lambda: returned}
    ).exports["f"]
    assert same(f(), expected)


@pytest.mark.parametrize(
    ("signature", "returned", "error", "message"),
    [
        ("-> i32", None, TypeError, "result of the host function m.h must be an integer"),
        ("-> i32", 2**32, OverflowError, "result of the host function m.h must be in"),
        ("-> i32", 1.5, TypeError, "result of the host function m.h must be an integer"),
        ("-> f32", "1", TypeError, "result of the host function m.h must be a real number"),
        ("-> funcref", 5, TypeError, "result of the host function m.h must be a Func or None"),
        ("-> i32 i64", 5, TypeError, r"m.h must be 2 values \[i32 i64\], got 1"),
        ("-> i32 i64", ctypes.pointer(ctypes.c_int(5)), TypeError, r"i64\], got 1"),
        ("-> i32 i64", (1, 2, 3), TypeError, r"m.h must be 2 values \[i32 i64\], got more than 2"),
        ("-> i32 i64", itertools.count(), TypeError, r"i64\], got more than 2"),
        ("-> i32 i64", Broken(), TypeError, "^of the second"),
        ("-> i32 i64", (1, "x"), TypeError, "function m.h: value 2 must be an integer"),
    ],
)
def test_a_wrong_result_names_the_import(signature, returned, error, message):
    functions = {"f": Function(signature, "call 00")}
    f = instantiate(functions, {"h": signature}, {"h": lambda: returned}).exports["f"]
    with pytest.raises(error, match=message):
        f()
    with pytest.raises(error, match=message):
        f.call_bits()


@pytest.mark.parametrize("returned", [-1, -(2**31), 2**31 - 1, 2**32 - 1, 2**31, True])
def test_an_i32_result_is_extended_with_zeros(returned):
    functions = {"f": Function("-> i64", "call 00 i64.extend_i32_u")}
    f = instantiate(functions, {"h": "-> i32"}, {"h": lambda: returned}).exports["f"]
    assert f() == returned % 2**32


@pytest.mark.parametrize("number", [np.complex128(1 + 2j), np.complex64(1)])
@pytest.mark.parametrize("value_type", ["f32", "f64"])
def test_a_complex_result_does_not_lose_its_imaginary_part(value_type, number):
    functions = {"f": Function(f"-> {value_type}", "call 00")}
    f = instantiate(functions, {"h": f"-> {value_type}"}, {"h": lambda: number}).exports["f"]
    with pytest.raises(TypeError, match="must be a real number"):
        f()


@pytest.mark.parametrize("host", [lambda: None, lambda: 1 / 0, lambda: 2**32])
def test_an_error_of_a_host_function_or_its_result_has_the_frames_of_the_caller(host):
    functions = {"f": Function("-> i32", "call 00")}
    f = instantiate(functions, {"h": "-> i32"}, {"h": host}).exports["f"]
    with pytest.raises((TypeError, ZeroDivisionError, OverflowError)) as caught:
        f()
    assert [frame.function_name for frame in caught.value.wasm_backtrace] == ["f"]


def test_an_f32_result_is_rounded():
    f = instantiate({"f": Function("-> f32", "call 00")}, {"h": "-> f32"}, {"h": lambda: 0.1})
    assert f.exports["f"]() == struct.unpack("<f", struct.pack("<f", 0.1))[0]


def test_an_externref_is_the_object_itself():
    class Anything:
        pass

    functions = {
        "through_host": Function("externref -> externref", "local.get 00 call 00"),
        "through_table": Function(
            "externref -> externref",
            "i32.const 03 local.get 00 table.set 00 i32.const 03 table.get 00",
        ),
    }
    seen = []

    def host(value):
        seen.append(value)
        return value

    imports = {"h": "externref -> externref"}
    instance = instantiate(functions, imports, {"h": host}, **EXTERNREFS)
    for value in (Anything(), [], 0, "", float("nan"), instance, Ellipsis, Anything):
        assert instance.exports["through_host"](value) is value
        assert seen.pop() is value
        assert instance.exports["through_table"](value) is value
    assert instance.exports["through_host"](None) is None


def test_a_funcref_is_a_func():
    functions = {
        "give": Function("funcref -> funcref", "local.get 00 call 00"),
        "own": Function("-> funcref", "ref.func 01"),
    }
    given = []

    def host(function):
        given.append(function)
        return function

    instance = instantiate(
        functions,
        {"h": "funcref -> funcref"},
        {"h": host},
        elements=[b"\x03\x00\x01\x01"],  # declares function 1
    )
    give = instance.exports["give"]
    assert instance.exports["own"]() == give
    assert give(give) == give
    assert isinstance(given[0], toy_jit.Func)
    assert given[0] == give
    assert give(None) is None
    with pytest.raises(TypeError, match=r"give\(\): argument 1 must be a Func or None"):
        give(len)


def test_an_instance_lives_while_another_holds_its_function():
    other = instantiate({"seven": Function("-> i32", "i32.const 07")}).exports["seven"]
    functions = {
        "put": Function("funcref ->", "i32.const 00 local.get 00 table.set 00"),
        "hold": Function("funcref ->", "local.get 00 global.set 00"),
        "take": Function("-> funcref", "global.get 00"),
        "call": Function("-> i32", "i32.const 00 call_indirect 03 00"),
    }
    holder = instantiate(functions, **FUNCREFS, globals_=[b"\x70\x01\xd0\x70\x0b"])
    holder.exports["put"](other)
    holder.exports["hold"](other)
    del other
    import gc

    gc.collect()
    assert holder.exports["call"]() == 7
    assert holder.exports["take"]()() == 7


class Unchanged(Exception):
    pass


def test_an_exception_crosses_unchanged():
    raised = Unchanged("as it was", 5)

    def host():
        raise raised

    functions = {
        "f": Function("-> i32", "call 02 i32.const 01"),
        "_g": Function("->", "call 00"),
    }
    f = instantiate(functions, {"h": "->"}, {"h": host}).exports["f"]
    for call in (f, f.call_bits):
        with pytest.raises(Unchanged) as caught:
            call()
        assert caught.value is raised
        assert raised.args == ("as it was", 5)
        assert len(raised.__notes__) == 1  # the frames that it crossed; test_traps.py has more
        assert raised.__cause__ is raised.__context__ is None
        names = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
        assert names[-1] == "host"
        assert names[0] == "test_an_exception_crosses_unchanged"
        raised.__traceback__ = None


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_any_exception_crosses(exception):
    def host():
        raise exception

    f = instantiate({"f": Function("->", "call 00")}, {"h": "->"}, {"h": host}).exports["f"]
    with pytest.raises(exception):
        f()


def test_an_exception_crosses_several_entries():
    def host(depth):
        if depth == 0:
            raise Unchanged
        return f(depth - 1)

    functions = {"f": Function("i32 -> i32", "local.get 00 call 00")}
    f = instantiate(functions, {"h": "i32 -> i32"}, {"h": host}).exports["f"]
    with pytest.raises(Unchanged):
        f(20)


def test_a_function_of_another_instance_is_called():
    library = instantiate(
        {"add": Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.add")}
    ).exports
    functions = {"f": Function("i32 -> i32", "local.get 00 local.get 00 call 00")}
    f = instantiate(functions, {"add": "i32 i32 -> i32"}, library).exports["f"]
    assert f(21) == 42


def test_an_imported_function_is_exported_as_itself():
    library = instantiate({"one": Function("-> i32", "i32.const 01")}).exports
    binary = build({}, {"one": "-> i32"}, exports=[wasm.exported("again", 0, 0)])
    again = toy_jit.Instance(toy_jit.Module(binary), {"m": library}).exports["again"]
    assert again is library["one"]


LIMITS = b"\x01\x01\x02"  # 1 .. 2


def test_a_memory_of_the_host_is_shared():
    memory = asm_libcalls.Memory(1, 2)
    functions = {
        "peek": Function("i32 -> i32", "local.get 00 i32.load8_u 00 00"),
        "poke": Function("i32 i32 ->", "local.get 00 local.get 01 i32.store8 00 00"),
        "grow": Function("-> i32", "i32.const 01 memory.grow 00"),
    }
    binary = build(functions)
    binary = insert_import(binary, b"\x02" + LIMITS)
    one = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": memory}})
    two = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": memory}})
    memoryview(memory)[7] = 99
    assert one.exports["peek"](7) == 99
    one.exports["poke"](8, 77)
    assert two.exports["peek"](8) == memoryview(memory)[8] == 77
    with pytest.raises(asm_libcalls.Trap, match="out of bounds"):
        two.exports["peek"](65536)
    assert one.exports["grow"]() == 1
    assert two.exports["peek"](65536) == 0
    assert one.exports["grow"]() == -1


def insert_import(binary, description):
    """Give a module without imports one import, behind its types."""
    types_end = 8 + 2 + binary[9]
    section = wasm.section(2, wasm.vector([wasm.imported(description[0], description[1:])]))
    return binary[:types_end] + section + binary[types_end:]


def test_a_limiter_of_the_host_is_asked():
    asked = []

    def limiter(current, desired, maximum):
        asked.append((current, desired, maximum))
        return desired < 3

    memory = asm_libcalls.Memory(1, 8, limiter=limiter)
    functions = {"grow": Function("i32 -> i32", "local.get 00 memory.grow 00")}
    binary = insert_import(build(functions), b"\x02\x00\x01")
    grow = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": memory}}).exports["grow"]
    assert [grow(1), grow(1), grow(0)] == [1, -1, 2]
    assert asked == [(1, 2, 8), (2, 3, 8), (2, 2, 8)]


def test_a_table_of_the_host_is_shared():
    table = asm_libcalls.Table("externref", 3)
    functions = {"get": Function("i32 -> externref", "local.get 00 table.get 00")}
    binary = insert_import(build(functions), b"\x01\x6f\x00\x02")
    get = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": table}}).exports["get"]
    marker = object()
    table[2] = marker
    assert get(2) is marker
    with pytest.raises(asm_libcalls.Trap, match="out of bounds table access"):
        get(3)


@pytest.mark.parametrize("value_type", NUMBERS)
def test_a_global_of_the_host_is_shared(value_type):
    shared = asm_libcalls.Global(value_type, 0, mutable=True)
    functions = {
        "get": Function(f"-> {value_type}", "global.get 00"),
        "set": Function(f"{value_type} ->", "local.get 00 global.set 00"),
    }
    description = bytes([3, *wasm_type(value_type), 1])
    binary = insert_import(build(functions), description)
    exports = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": shared}}).exports
    for value in NUMBERS[value_type]:
        shared.value = value
        assert same(exports["get"](), value)
        shared.value = 0
        exports["set"](value)
        assert same(shared.value, value)


def wasm_type(name):
    from wasm_functions import TYPES

    return bytes([TYPES[name]])


def test_what_another_instance_exports_is_imported():
    first = instantiate(
        {"set": Function("i32 ->", "local.get 00 global.set 00")},
        globals_=[b"\x7f\x01\x41\x05\x0b"],
        exports=[wasm.exported("counter", 3, 0)],
    )
    binary = insert_import(build({"get": Function("-> i32", "global.get 00")}), b"\x03\x7f\x01")
    counter = first.exports["counter"]
    get = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": counter}}).exports["get"]
    assert get() == 5
    first.exports["set"](6)
    assert get() == counter.value == 6


@pytest.mark.parametrize("count", [31, 32, 33, 300])
def test_a_host_function_gets_any_number_of_parameters_in_order(count):
    """Many of them are read from the stack at once."""

    def host(*values):
        seen.append(values)
        return values[::-1]

    types = ["i32", "f64", "externref"] * (count // 3 + 1)
    signature = f"{' '.join(types[:count])} -> {' '.join(types[:count][::-1])}"
    body = " ".join(f"local.get {bytes(wasm.u(i)).hex(' ')}" for i in range(count)) + " call 00"
    seen = []
    f = instantiate({"f": Function(signature, body)}, {"host": signature}, {"host": host})
    given = tuple([i - 7, i / 8, f"object {i}"][i % 3] for i in range(count))
    assert f.exports["f"](*given) == given[::-1]
    assert seen == [given]


@pytest.mark.parametrize(
    ("description", "given", "message"),
    [
        (b"\x00\x00", 5, "expected a function, got int"),
        (b"\x02\x00\x01", asm_libcalls.Memory(0), "expected at least 1"),
        (b"\x02\x01\x00\x01", asm_libcalls.Memory(0), "expected a maximum of at most 1"),
        (b"\x01\x70\x00\x01", asm_libcalls.Table("externref", 1), "expected a table of funcref"),
        (b"\x03\x7f\x00", asm_libcalls.Global("i64", 1), "expected a constant global of i32"),
        (b"\x03\x7f\x01", asm_libcalls.Global("i32", 1), "expected a mutable global of i32"),
        (b"\x02\x00\x01", asm_libcalls.Table("funcref", 1), "expected a memory, got Table"),
    ],
    ids=lambda value: None,
)
def test_an_import_that_does_not_fit(description, given, message):
    binary = insert_import(build({"f": Function("->", "")}), description)
    with pytest.raises(toy_jit.LinkError, match=rf"^incompatible import type for m\.i: {message}"):
        toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": given}})


def test_a_function_of_another_type_does_not_fit():
    library = instantiate({"f": Function("-> i64", "i64.const 01")}).exports
    with pytest.raises(toy_jit.LinkError, match=r"m\.f: expected .*\[\] -> \[i32\].*got .*f"):
        instantiate({"g": Function("-> i32", "call 00")}, {"f": "-> i32"}, library)


@pytest.mark.parametrize("given", [None, {}, {"m": {}}, {"n": {"f": len}}])
def test_a_missing_import_is_named(given):
    module = toy_jit.Module(build({}, {"f": "->"}))
    with pytest.raises(toy_jit.LinkError, match=r"^unknown import m\.f: function \(\) -> \(\)$"):
        toy_jit.Instance(module, given)
