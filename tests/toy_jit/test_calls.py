"""Exports of an instance called from Python: as builtins, with bit patterns, closed, misused."""

import builtins
import gc
import math
import weakref

import pytest
import wasm_builder as wasm
from jit_modules import MEMORY, Function, build, instantiate

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.native.call_slot import FUNCTION
from asm_libcalls.native.native_function import why_not_builtin
from asm_libcalls.steps import HAS_GIL

pytestmark = pytest.mark.usefixtures("machine_code")

ADD = Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.add")


def is_builtin(func):
    return isinstance(getattr(func, FUNCTION, None), type(builtins.len))


def test_a_function_of_numbers_is_a_builtin():
    if why_not_builtin():
        pytest.skip(why_not_builtin())
    exports = instantiate({"add": ADD, "other": ADD}).exports
    add = exports["add"]
    assert isinstance(add, toy_jit.Func)
    assert add(40, 2) == 42
    assert is_builtin(add)
    assert isinstance(add, toy_jit.Func)
    assert getattr(add, FUNCTION).__name__ == "add"
    assert add(1, 2) == add(True, 2) == 3
    assert not is_builtin(exports["other"])  # which was not called


@pytest.mark.parametrize(
    ("signature", "body"),
    [
        ("-> i32 i32", "i32.const 01 i32.const 02"),
        ("-> externref", "ref.null 6f"),
        ("i32 i32 i32 i32 i32 i32 i32 -> i32", "local.get 06"),
        ("f64 f64 f64 f64 f64 f64 f64 f64 f64 -> f64", "local.get 08"),
    ],
)
def test_a_function_of_other_types_is_a_builtin_too(signature, body):
    f = instantiate({"f": Function(signature, body)}).exports["f"]
    arguments = range(len(signature.split("->")[0].split()))
    expected = {"-> i32 i32": (1, 2), "-> externref": None}.get(signature, len(arguments) - 1)
    for _ in range(3):
        assert f(*arguments) == expected
    assert is_builtin(f) or why_not_builtin() or not HAS_GIL


def test_every_register_takes_its_parameter():
    names = ("i32", "f32", "i64", "f64") * 3 + ("f32", "f64")
    values = (
        *(-1, 0.5, -(2**63), -0.0),
        *(2**31 - 1, 1.5, 2**63 - 1, math.inf),
        *(7, 2.5, 8, 3.5),
        *(4.5, 5.5),
    )
    for i, name in enumerate(names):
        body = f"local.get {i:02x}"
        f = instantiate({"f": Function(f"{' '.join(names)} -> {name}", body)}).exports["f"]
        assert repr(f(*values)) == repr(values[i])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((1,), TypeError, r"add\(\) takes 2 arguments \[i32 i32\], got 1"),
        ((1, 2, 3), TypeError, r"add\(\) takes 2 arguments \[i32 i32\], got 3"),
        ((1, "2"), TypeError, r"add\(\): argument 2 must be an integer \(i32\), got str '2'"),
        ((1.0, 2), TypeError, r"add\(\): argument 1 must be an integer"),
        ((2**32, 2), OverflowError, r"add\(\): argument 1 must be in -2\*\*31 .. 2\*\*32-1"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(arguments, error, message):
    add = instantiate({"add": ADD}).exports["add"]
    for _ in range(2):  # before and after it is a builtin
        with pytest.raises(error, match=message):
            add(*arguments)
        assert add(1, 2) == 3
    with pytest.raises(TypeError, match="keyword"):
        add(a=1, b=2)


PATTERNS = {
    "i32": (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF),
    "i64": (0, 2**63 - 1, 2**63, 2**64 - 1),
    # zeros, infinities, NaNs: canonical, signalling, with payload
    "f32": (0, 0x80000000, 0x7F800000, 0x7FC00000, 0x7F800001, 0xFFA55555),
    "f64": (0, 1 << 63, 0x7FF << 52, 0x7FF8 << 48, (0x7FF << 52) | 1, 0xFFF4000000000001),
}


@pytest.mark.parametrize("value_type", PATTERNS)
def test_call_bits_keeps_every_bit(value_type):
    functions = {
        "f": Function(f"{value_type} -> {value_type}", "local.get 00"),
        "twice": Function(
            f"{value_type} -> {value_type} {value_type}", "local.get 00 local.get 00"
        ),
    }
    exports = instantiate(functions).exports
    for pattern in PATTERNS[value_type]:
        assert exports["f"].call_bits(pattern) == (pattern,)
        assert exports["twice"].call_bits(pattern) == (pattern, pattern)
    for wrong, error in ((-1, OverflowError), (2**64, OverflowError), (1.0, TypeError)):
        with pytest.raises(error, match=r"f\(\): argument 1 must be a bit pattern"):
            exports["f"].call_bits(wrong)


def test_call_bits_of_nothing():
    nothing = instantiate({"f": Function("->", "")}).exports["f"]
    assert nothing.call_bits() == ()
    assert nothing() is None


def test_a_func_says_what_it_is():
    binary = build({"add": ADD, "_hidden": ADD}, exports=[wasm.exported("again", 0, 0)])
    instance = toy_jit.Instance(toy_jit.Module(binary))
    add = instance.exports["add"]
    assert repr(add) == "<Func add [i32 i32] -> [i32]>"
    assert add.type.params == add.type.results * 2 == bytes([0x7F, 0x7F])
    assert instance.exports["again"] is add
    assert list(instance.exports) == ["add", "again"]
    assert repr(instance) == "<Instance of <Module: 2 functions>>"
    add(1, 2)
    assert repr(add) == "<Func add [i32 i32] -> [i32]>"
    assert add == instance.exports["again"]
    assert len({add, instance.exports["again"]}) == 1


def test_exports_can_not_be_changed():
    exports = instantiate({"add": ADD}).exports
    with pytest.raises(TypeError):
        exports["add"] = len


def test_the_start_function_runs_once():
    calls = []
    functions = {"f": Function("->", "call 00")}
    instantiate(functions, {"h": "->"}, {"h": lambda: calls.append(1)}, start=1)
    assert calls == [1]


def test_a_module_is_instantiated_many_times():
    functions = {
        "count": Function(
            "-> i32", "global.get 00 i32.const 01 i32.add global.set 00 global.get 00"
        )
    }
    module = toy_jit.Module(build(functions, globals_=[b"\x7f\x01\x41\x00\x0b"]))
    counts = [toy_jit.Instance(module).exports["count"] for _ in range(5)]
    assert [count() for count in counts for _ in range(3)] == [1, 2, 3] * 5


@pytest.mark.parametrize("wrong", [5, None, "text", object()])
def test_a_module_is_made_of_bytes(wrong):
    with pytest.raises(TypeError, match=r"Module\(\): wasm must be bytes-like"):
        toy_jit.Module(wrong)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_module_is_made_of_any_bytes(kind):
    assert toy_jit.Instance(toy_jit.Module(kind(build({"add": ADD})))).exports["add"](1, 1) == 2


def test_an_instance_is_made_of_a_module():
    with pytest.raises(TypeError, match=r"Instance\(\): module must be a Module, got bytes"):
        toy_jit.Instance(build({}))


LOAD = Function("i32 -> i32", "local.get 00 i32.load8_u 00 00")


@pytest.mark.parametrize("called", [False, True])
def test_a_closed_instance_says_so(called):
    instance = instantiate({"load": LOAD, "refs": Function("externref ->", "")}, **MEMORY)
    load = instance.exports["load"]
    if called:
        load(0)
    instance.close()
    instance.close()
    for call in (load, load.call_bits):
        for _ in range(2):
            with pytest.raises(ValueError, match="the Instance is closed"):
                call(0)
    with pytest.raises(ValueError, match="the Instance is closed"):
        instance.exports["refs"](object())
    instance.interrupt()
    with pytest.raises(ValueError, match="the Instance is closed"):
        load(0)


def test_leaving_a_with_closes():
    with instantiate({"load": LOAD}, **MEMORY) as instance:
        load = instance.exports["load"]
        assert load(0) == 0
    with pytest.raises(ValueError, match="the Instance is closed"):
        load(0)


def test_an_importer_outlives_the_closed():
    library = instantiate({"load": LOAD}, **MEMORY)
    caller = instantiate(
        {"f": Function("i32 -> i32", "local.get 00 call 00")},
        {"load": "i32 -> i32"},
        library.exports,
    )
    assert caller.exports["f"](0) == 0
    library.close()
    with pytest.raises(ValueError, match="the Instance is closed"):
        caller.exports["f"](0)


@pytest.mark.parametrize("checks", [False, True])
def test_an_instance_that_is_closed_while_it_runs(checks):
    """It refuses calls at once; its code goes on with its memory, until its next check."""
    code = "call 00 i32.const 00 i32.load 02 00"
    if checks:
        code = f"call 00 loop 40 end {code[8:]}"
    closing = []

    def host():
        memoryview(instance.memory)[0] = 42
        if not closing:
            return
        instance.close()
        assert instance.closed
        with pytest.raises(ValueError, match="the Instance is closed"):
            instance.exports["f"]()
        gc.collect()

    instance = instantiate({"f": Function("-> i32", code)}, {"h": "->"}, {"h": host}, **MEMORY)
    f = instance.exports["f"]
    for called in (False, True):
        assert f() == 42, called
    closing.append(True)
    if checks:
        with pytest.raises(ValueError, match="the Instance is closed"):
            f()
    else:
        assert f() == 42
    with pytest.raises(ValueError, match="the Instance is closed"):
        f()


def test_references_in_frames_outlive_the_close_of_their_instance():
    """Code that runs has borrowed them; they are dropped with the instance."""
    functions = {"f": Function("externref -> externref", "call 00 local.get 00")}

    def host():
        holder.pop().close()
        gc.collect()
        made.extend(asm_libcalls.VMExternRef(i) for i in range(1000))

    class Thing:
        pass

    made = []
    instance = instantiate(functions, {"h": "->"}, {"h": host})
    holder = [instance]
    f = instance.exports["f"]
    thing = Thing()
    alive = weakref.ref(thing)
    assert f(thing) is thing
    del thing, instance, f
    gc.collect()
    assert alive() is None


def test_a_module_that_is_closed_makes_no_more_instances():
    with toy_jit.Module(build({"seven": Function("-> i32", "i32.const 07")})) as module:
        instance = toy_jit.Instance(module)
    assert module.closed
    assert instance.exports["seven"]() == 7
    for use in (lambda: toy_jit.Instance(module), lambda: module.code, module.interrupt):
        with pytest.raises(ValueError, match="the Module is closed"):
            use()


def test_a_memory_that_is_closed_has_no_bytes():
    instance = instantiate({"load": LOAD}, **MEMORY, exports=[wasm.exported("memory", 2, 0)])
    instance.exports["memory"].close()
    with pytest.raises(asm_libcalls.HeapOutOfBounds):
        instance.exports["load"](0)


def test_the_builtin_alone_keeps_the_instance():
    f = instantiate({"load": LOAD}, **MEMORY).exports["load"]
    f(0)
    builtin = getattr(f, FUNCTION)
    del f
    gc.collect()
    assert builtin(65535) == 0
    with pytest.raises(asm_libcalls.HeapOutOfBounds):
        builtin(65536)


@pytest.mark.parametrize("inline", [False, True])
def test_options(inline):
    functions = {"shift": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.shl")}
    options = toy_jit.compile_options(inline=inline)
    shift = toy_jit.Instance(toy_jit.Module(build(functions), options)).exports["shift"]
    assert [shift(1, n) for n in (0, 1, 63, 64, 65, -1)] == [1, 2, -(2**63), 1, 2, -(2**63)]


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "a\nb", " ", "é", "😀", "a.b", "a--b", "call_"])
def test_an_export_of_any_name_is_called(name):
    add = instantiate({name: ADD}).exports[name]
    assert [add(i, 2) for i in range(3)] == [2, 3, 4]
    assert add.name == name
    with pytest.raises(TypeError, match="takes 2 arguments"):
        add(1)


def test_names_of_code_end_no_string(child):
    """A profiler's map has a line for each, and the symbols that gdb reads end at a NUL."""
    child(
        """
        from jit_modules import Function, instantiate
        from asm_libcalls.emitter import code_names
        from asm_libcalls.integrations import gdb
        f = instantiate({"a\\0b\\n": Function("->", "")})
        names = [row[2] for source in code_names.sources.values() for row in source()]
        assert "wasm::a\\\\x00b\\\\n" in names, names
        try:
            gdb.enable()
        except OSError:
            pass
        instantiate({"c\\0d": Function("->", "")})
        """
    )


# --- exports as C functions ----------------------------------------------------------------------

JUMP = bytes.fromhex("4889f8 4889f7 4889d6 ffe0")  # (f, a, b): mov rax, rdi; f(a, b)


@pytest.mark.parametrize("kind", ["pointer", "const pointer"])
@pytest.mark.parametrize("make", [asm_libcalls.catch_traps, asm_libcalls.native_function])
def test_c_calls_an_export(make, kind):
    exports = instantiate({
        "div": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s"),
        "second": Function("f64 i32 -> i32", "local.get 01"),
        "pair": Function("-> i32 i32", "i32.const 01 i32.const 02"),
    }).exports  # fmt: skip
    call = make(asm_libcalls.load_code(JUMP), f"({kind}, i64, i64) -> i64")
    div = exports["div"]
    for _ in range(3):
        assert call(div, -7, 2) == -3
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            call(div, 1, 0)
        assert div(-7, 2) == -3  # its class is another one after its first call
    with pytest.raises(TypeError, match=r"argument .*<Func pair .* has no C address"):
        call(exports["pair"], 1, 2)
    assert (
        make(asm_libcalls.load_code(b"\x48\x89\xf8\xc3"), "(anyfunc) -> u64")(div) == div.as_raw()
    )


def test_a_host_function_returns_an_export():
    div = instantiate({
        "div": Function("i64 i64 -> i64", "local.get 00 local.get 01 i64.div_s")
    }).exports["div"]  # fmt: skip
    # (give, a, b): push rsi; push rdx; push rdx; call rdi; pop rsi; pop rsi; pop rdi; jmp rax
    code = asm_libcalls.load_code(bytes.fromhex("56 52 52 ffd7 5e 5e 5f ffe0"))
    with asm_libcalls.HostFunction(lambda: div, "() -> pointer") as give:
        call = asm_libcalls.catch_traps(code, "(pointer, i64, i64) -> i64")
        assert call(give, -7, 2) == -3
