"""The libcalls in llvmlite, numba, cffi, SciPy and Cython; what is not installed is skipped."""

from __future__ import annotations

import enum
import importlib
import math
import os
import re
import shutil
import struct
import sys
import sysconfig
from pathlib import Path

import pytest
from child_process import PACKAGE_HOME, TESTS, environment, run_program, run_python

import asm_libcalls
from asm_libcalls import LIBCALLS, IntegerDivisionByZero, IntegerOverflow, catch_traps
from asm_libcalls.integrations.numeric import NUMERIC

MINIMUM = -(2**63)
REASON = "not installed (the extra `integrations`)"
INTEGRATIONS = PACKAGE_HOME / "asm_libcalls" / "integrations"


def needed(name: str):
    return pytest.importorskip(name, reason=f"{name} is {REASON}")


def test_the_numeric_libcalls_are_two_families():
    families = {LIBCALLS[name].declaration.family for name in NUMERIC}
    assert families == {"rounding", "integers"}
    assert len(NUMERIC) == 15


def test_the_package_imports_none_of_it(child):
    names = ("llvmlite", "numba", "cffi", "scipy", "asm_libcalls.integrations")
    done = child(f"import asm_libcalls, sys; print([n for n in {names} if n in sys.modules])")
    assert done.stdout == "[]\n"


# llvmlite


@pytest.fixture
def llvm():
    binding = needed("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding


@pytest.fixture
def llvmlite(llvm):
    return importlib.import_module("asm_libcalls.integrations.llvmlite")


def ir_types():
    ir = importlib.import_module("llvmlite.ir")
    return {
        "i32": ir.IntType(32),
        "u32": ir.IntType(32),
        "i64": ir.IntType(64),
        "u64": ir.IntType(64),
        "f32": ir.FloatType(),
        "f64": ir.DoubleType(),
    }


def calling_module(llvmlite, names):
    """A module with, for each libcall, a function ``call_NAME`` that passes its arguments on."""
    ir = importlib.import_module("llvmlite.ir")
    module = ir.Module()
    for name in names:
        libcall = llvmlite.declare(module, name)
        function = ir.Function(module, libcall.function_type, f"call_{name}")
        builder = ir.IRBuilder(function.append_basic_block())
        result = builder.call(libcall, function.args)
        if LIBCALLS[name].signature.result is None:
            builder.ret_void()
        else:
            builder.ret(result)
    return str(module)


def machine(llvm):
    return llvm.Target.from_default_triple().create_target_machine()


def in_mcjit(llvm, llvmlite, names):
    llvmlite.add_symbols()
    module = llvm.parse_assembly(calling_module(llvmlite, names))
    module.verify()
    engine = llvm.create_mcjit_compiler(module, machine(llvm))
    engine.finalize_object()
    return engine, {name: engine.get_function_address(f"call_{name}") for name in names}


def in_orc(llvm, llvmlite, names):
    jit = llvm.create_lljit_compiler(machine(llvm))
    builder = llvm.JITLibraryBuilder().add_ir(calling_module(llvmlite, names))
    llvmlite.import_symbols(builder, *names)
    for name in names:
        builder.export_symbol(f"call_{name}")
    library = builder.link(jit, "library")
    return (jit, library), {name: library[f"call_{name}"] for name in names}


ENGINES = {"mcjit": in_mcjit, "orc": in_orc}
SAMPLES = {"f": (-2.5, 0.5, -0.0, 1e300, math.inf), "i": (7, -7, 2**62 + 1, MINIMUM, -3)}


@pytest.mark.parametrize("engine", ENGINES)
def test_llvm_code_calls_every_numeric_libcall(engine, llvm, llvmlite):
    keep, addresses = ENGINES[engine](llvm, llvmlite, NUMERIC)
    for name, address in addresses.items():
        signature = LIBCALLS[name].signature
        compiled = catch_traps(address, signature)
        samples = SAMPLES[name[0]]
        for x in samples:
            for y in samples:
                arguments = (x, y)[: len(signature.parameters)]
                patterns = [
                    t.to_bits(a, "x") for t, a in zip(signature.parameters, arguments, strict=True)
                ]
                expected = LIBCALLS[name].fallback.call_bits(*patterns)
                assert compiled.call_bits(*patterns) == expected, (name, arguments)
    del keep


@pytest.mark.parametrize("engine", ENGINES)
def test_a_trap_leaves_llvm_code(engine, llvm, llvmlite, machine_code):
    keep, addresses = ENGINES[engine](llvm, llvmlite, ["i64_sdiv", "memory_fill"])
    divide = catch_traps(addresses["i64_sdiv"], "(i64, i64) -> i64")
    for _ in range(100):
        with pytest.raises(IntegerDivisionByZero):
            divide(1, 0)
        with pytest.raises(IntegerOverflow):
            divide(MINIMUM, -1)
    assert divide(-7, 2) == -3
    with asm_libcalls.Instance(memories=[asm_libcalls.Memory(1)]) as instance:
        fill = catch_traps(addresses["memory_fill"], LIBCALLS["memory_fill"].signature)
        fill(instance.vmctx, 0, 10, ord("x"), 3)
        assert bytes(memoryview(instance.memories[0])[9:14]) == b"\0xxx\0"
        with pytest.raises(asm_libcalls.HeapOutOfBounds):
            fill(instance.vmctx, 0, 65536, 0, 1)
    del keep


def test_add_symbols_names_all_of_them(llvm, llvmlite):
    everything = {**asm_libcalls.symbols(), **asm_libcalls.runtime_symbols()}
    added = llvmlite.add_symbols()
    both = {**everything, **asm_libcalls.llvm.symbols()}
    assert everything.items() <= added.items() <= both.items()  # some may be in the process
    assert llvmlite.add_symbols() == added  # again
    assert {symbol: llvm.address_of_symbol(symbol) for symbol in added} == added
    assert llvmlite.add_symbols(replace=True) == both
    chosen = llvmlite.add_symbols("i64_sdiv", "wasmtime_f64_ceil")
    assert chosen == {s: everything[s] for s in ("wasmtime_i64_sdiv", "wasmtime_f64_ceil")}


def test_a_symbol_of_somebody_else_is_left_alone(child):
    needed("llvmlite")
    done = child(
        """
        import llvmlite.binding as llvm
        from asm_libcalls.integrations import llvmlite
        llvm.add_symbol("wasmtime_table_grow", 0x1234)
        try:
            llvmlite.add_symbols()
        except ValueError as error:
            print(str(error).split(";")[0])
        print(llvm.address_of_symbol("wasmtime_f32_ceil"))
        """
    )
    assert done.stdout == (
        "add_symbols(): wasmtime_table_grow is known to LLVM already, as 0x1234\nNone\n"
    )


def test_unknown_names_are_errors(llvm, llvmlite):
    ir = importlib.import_module("llvmlite.ir")
    builder = llvm.JITLibraryBuilder()
    with pytest.raises(ValueError, match=r"add_symbols\(\): there is no symbol 'i64_mul'"):
        llvmlite.add_symbols("i64_mul")
    with pytest.raises(ValueError, match=r"import_symbols\(\): there is no symbol 'x'"):
        llvmlite.import_symbols(builder, "x")
    module = ir.Module()
    with pytest.raises(ValueError, match=r"declare\(\): there is no libcall .* 'i64_mul'"):
        llvmlite.declare(module, "i64_mul")
    ir.GlobalVariable(module, ir.IntType(8), "wasmtime_f64_ceil")
    with pytest.raises(ValueError, match=r"the module has another wasmtime_f64_ceil"):
        llvmlite.declare(module, "f64_ceil")


def test_declarations_have_the_table_s_types(llvm, llvmlite):
    ir = importlib.import_module("llvmlite.ir")
    module = ir.Module()
    types = ir_types()
    pointer = ir.IntType(8).as_pointer()
    for name, libcall in LIBCALLS.items():
        declared = llvmlite.declare(module, name)
        assert llvmlite.declare(module, libcall.symbol) is declared
        signature = libcall.signature
        parameters = tuple(types.get(t.name, pointer) for t in signature.parameters)
        assert declared.function_type.args == parameters
        result = signature.result
        expected = ir.VoidType() if result is None else types.get(result.name, pointer)
        assert declared.function_type.return_type == expected
        pure = name in NUMERIC and not libcall.declaration.traps
        for attribute in ("readnone", "speculatable", "willreturn"):
            assert (attribute in declared.attributes) == pure
    llvm.parse_assembly(str(module)).verify()


# numba


@pytest.fixture
def numba():
    numba = needed("numba")
    importlib.import_module("asm_libcalls.integrations.numba").init()
    return numba


def compiled(numba, name, **options):
    function = getattr(asm_libcalls, name)
    if len(LIBCALLS[name].signature.parameters) == 1:
        return numba.njit(**options)(lambda x: function(x))  # noqa: PLW0108  (it is compiled)
    return numba.njit(**options)(lambda x, y: function(x, y))  # noqa: PLW0108


def bits(value):
    return struct.pack("<d", value) if isinstance(value, float) else int(value)


@pytest.mark.parametrize("name", NUMERIC)
def test_numba_code_and_python_agree(name, numba):
    call, function = compiled(numba, name), getattr(asm_libcalls, name)
    samples = SAMPLES[name[0]]
    for x in samples:
        for y in samples:
            arguments = (x, y)[: len(LIBCALLS[name].signature.parameters)]
            assert bits(call(*arguments)) == bits(function(*arguments)), arguments


def test_numba_code_raises_what_python_raises(numba):
    unsigned = importlib.import_module("numpy").uint64
    for name in ("i64_sdiv", "i64_srem", "i64_udiv", "i64_urem"):
        call = compiled(numba, name)
        for _ in range(3):
            with pytest.raises(IntegerDivisionByZero, match=r"^integer divide by zero$"):
                call(1, 0)
    sdiv = compiled(numba, "i64_sdiv")
    for minus_one in (-1, unsigned(2**64 - 1)):  # either reading
        with pytest.raises(IntegerOverflow, match=r"^integer overflow$"):
            sdiv(MINIMUM, minus_one)
    assert sdiv(MINIMUM, 1) == MINIMUM
    assert compiled(numba, "i64_srem")(MINIMUM, -1) == 0


@pytest.mark.filterwarnings("ignore:(?s).*parallel")
@pytest.mark.parametrize("name", ["i64_sdiv", "i64_udiv", "i64_srem", "i64_urem"])
@pytest.mark.parametrize("size", [10, 1000])
def test_numba_raises_in_a_loop_that_was_to_run_in_parallel(numba, name, size):
    """numba's wrapper of a parallel loop loses exceptions of calls; so the loop runs in order.

    numba says so in a warning.
    """
    import numpy

    function = getattr(asm_libcalls, name)

    @numba.njit(parallel=True)
    def each(dividends, divisor):
        result = numpy.empty(dividends.shape, numpy.int64)
        for i in numba.prange(dividends.size):
            result[i] = function(dividends[i], divisor)
        return result

    dividends = numpy.arange(size)
    for _ in range(2):
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            each(dividends, 0)
        assert each(dividends, 2).tolist() == [function(int(n), 2) for n in dividends]


class Number(enum.IntEnum):
    SEVEN, TWO, ZERO, MINUS_ONE = 7, 2, 0, -1


class Flags(enum.IntFlag):
    ONE, FOUR = 1, 4


class NoNumber(enum.Enum):
    SEVEN = 7


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("i64_sdiv", (Number.SEVEN, Number.TWO)),
        ("i64_sdiv", (Number.SEVEN, Number.ZERO)),
        ("i64_sdiv", (MINIMUM, Number.MINUS_ONE)),
        ("i64_udiv", (Number.MINUS_ONE, Flags.FOUR)),
        ("i64_urem", (Flags.FOUR, 3)),
        ("i64_ishl", (Number.SEVEN, True)),
        ("f64_ceil", (Number.SEVEN,)),
        ("f32_floor", (Flags.FOUR,)),
        ("f64_ceil", (NoNumber.SEVEN,)),
        ("i64_sdiv", (NoNumber.SEVEN, 1)),
    ],
)
def test_numba_code_treats_enumerations_as_python_does(numba, name, arguments):
    function, call = getattr(asm_libcalls, name), compiled(numba, name)
    try:
        expected = function(*arguments)
    except ArithmeticError as error:
        with pytest.raises(type(error)):
            call(*arguments)
    except TypeError:
        with pytest.raises(numba.TypingError, match=name):
            call(*arguments)
    else:
        assert call(*arguments) == expected


@pytest.mark.parametrize("name", NUMERIC)
def test_numba_code_treats_numpy_s_bool_as_python_does(numba, name):
    """To numba it is the type of True; to Python it is no int."""
    numpy = importlib.import_module("numpy")
    function, call = getattr(asm_libcalls, name), compiled(numba, name)
    count = len(LIBCALLS[name].signature.parameters)
    for value in (True, False):
        arguments = (numpy.bool_(value), numpy.bool_(True))[:count]
        assert function(*arguments) == call(*arguments) == function(*map(int, arguments))


def test_numba_code_takes_integers_of_every_type(numba):
    numpy = importlib.import_module("numpy")
    udiv, ceil = compiled(numba, "i64_udiv"), compiled(numba, "f32_ceil")
    assert udiv(-1, 10) == udiv(numpy.uint64(2**64 - 1), numpy.int8(10)) == (2**64 - 1) // 10
    assert udiv(numpy.int32(-1), True) == 2**64 - 1
    # Through f64, as float() does: rounded at once it would be 2.0**60 + 2.0**37.
    halfway = 2**60 + 2**36 + 1
    assert ceil(halfway) == asm_libcalls.f32_ceil(halfway) == 2.0**60
    assert ceil(1e300) == math.inf
    assert ceil(True) == 1.0


@pytest.mark.parametrize(("name", "arguments"), [("i64_sdiv", (1.5, 2)), ("f64_ceil", ("1",))])
def test_numba_refuses_what_python_refuses(name, arguments, numba):
    with pytest.raises(TypeError):
        getattr(asm_libcalls, name)(*arguments)
    with pytest.raises(numba.TypingError, match=name):
        compiled(numba, name)(*arguments)


def test_numba_vectorizes_and_parallelizes(numba):
    numpy = importlib.import_module("numpy")
    nearest, sshr = asm_libcalls.f64_nearest, asm_libcalls.i64_sshr
    ufunc = numba.vectorize(["float64(float64)"])(lambda x: nearest(x))  # noqa: PLW0108
    assert ufunc(numpy.array([0.5, 1.5, -2.5])).tolist() == [0.0, 2.0, -2.0]

    @numba.njit(parallel=True)
    def halves(x):
        result = numpy.empty_like(x)
        for i in numba.prange(len(x)):
            result[i] = sshr(x[i], 1)
        return result

    assert halves(numpy.arange(-3, 4)).tolist() == [-2, -1, -1, 0, 0, 1, 1]


PROGRAM = """
import sys
from numba import njit
import asm_libcalls

@njit(cache=True)
def divide(x, y):
    return asm_libcalls.i64_sdiv(x, y)

assert "asm_libcalls.integrations.numba" not in sys.modules
print(divide(-7, 2), sum(divide.stats.cache_hits.values()))
try:
    divide(1, 0)
except ZeroDivisionError as error:
    print(error)
"""


def entry_points(folder: Path) -> None:
    """What an installed package has: the entry points of pyproject.toml, as metadata."""
    text = (TESTS.parent / "pyproject.toml").read_text(encoding="utf-8")
    group = re.search(r"^\[project\.entry-points\.numba_extensions\]\ninit = \"(.*?)\"", text, re.M)
    assert group is not None
    metadata = folder / "asm_libcalls_under_test-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: asm_libcalls_under_test\nVersion: 0\n")
    (metadata / "entry_points.txt").write_text(f"[numba_extensions]\ninit = {group[1]}\n")


def test_the_entry_point_serves_numba_and_its_cache(tmp_path):
    needed("numba")
    entry_points(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    found = []
    for backend in ("auto", "auto", "fallback"):  # cached code is not one backend's
        variables = {
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "ASM_LIBCALLS_BACKEND": backend,
            "PYTHONPATH": environment()["PYTHONPATH"] + os.pathsep + str(tmp_path),
        }
        found.append(run_python(program, variables=variables).stdout)
    first, *later = found
    assert first == "-3 0\ninteger divide by zero\n"
    assert later == ["-3 1\ninteger divide by zero\n"] * 2


# cffi


def test_cffi_pointers_are_typed_and_call(machine_code):
    ffi = needed("cffi").FFI()
    cffi = importlib.import_module("asm_libcalls.integrations.cffi")
    pointers = cffi.pointers(ffi)
    assert {s: int(ffi.cast("intptr_t", p)) for s, p in pointers.items()} == asm_libcalls.symbols()
    assert pointers["wasmtime_f64_nearest"](2.5) == 2.0
    assert pointers["wasmtime_f32_ceil"](1.25) == 2.0
    assert pointers["wasmtime_i64_udiv"](2**64 - 1, 3) == (2**64 - 1) // 3
    assert ffi.typeof(cffi.pointer(ffi, "i64_sdiv")) is ffi.typeof("int64_t(*)(int64_t, int64_t)")
    assert cffi.pointer(ffi, "wasmtime_i64_sdiv") == cffi.pointer(ffi, "i64_sdiv")
    with pytest.raises(TypeError):
        pointers["wasmtime_f64_nearest"]("2.5")
    with pytest.raises(OverflowError):
        pointers["wasmtime_i64_sdiv"](2**63, 1)
    with pytest.raises(ValueError, match=r"there is no libcall 'i64_mul'"):
        cffi.pointer(ffi, "i64_mul")


def test_cffi_types_are_those_of_the_table():
    cffi = importlib.import_module("asm_libcalls.integrations.cffi")
    assert cffi.c_type(LIBCALLS["f32_ceil"].signature) == "float(*)(float)"
    fill = LIBCALLS["table_fill"].signature
    assert cffi.c_type(fill) == "void(*)(void *, uint32_t, uint32_t, void *, uint32_t)"
    assert cffi.c_type(asm_libcalls.Signature("() -> pointer")) == "void *(*)(void)"


# Capsules: SciPy, numba, Cython


def test_the_pxd_is_what_the_table_says():
    lines = []
    for name in NUMERIC:
        signature = LIBCALLS[name].signature
        parameters = ", ".join(
            f"{t.c_name} {parameter}"
            for t, parameter in zip(
                signature.parameters, LIBCALLS[name].declaration.parameters, strict=True
            )
        )
        assert signature.result is not None
        lines.append(f"cdef {signature.result.c_name} {name}({parameters}) noexcept nogil")
    text = (INTEGRATIONS / "capsules.pxd").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("cdef")] == lines


def test_capsules_have_signatures_and_unknown_names_are_errors():
    capsules = importlib.import_module("asm_libcalls.integrations.capsules")
    assert tuple(capsules.__pyx_capi__) == NUMERIC
    assert '"double (double)"' in repr(capsules.capsule("f64_ceil"))
    assert '"uint64_t (uint64_t, uint64_t)"' in repr(capsules.__pyx_capi__["i64_udiv"])
    with pytest.raises(ValueError, match=r"capsule\(\): name must be one of .*, got 'table_grow'"):
        capsules.capsule("table_grow")


def test_numba_finds_the_addresses():
    extending = needed("numba.extending")
    for name in NUMERIC:
        found = extending.get_cython_function_address("asm_libcalls.integrations.capsules", name)
        assert found == LIBCALLS[name].address


def test_scipy_calls_them():
    scipy = needed("scipy")
    integrate = needed("scipy.integrate")
    capsules = importlib.import_module("asm_libcalls.integrations.capsules")
    by_capsule = scipy.LowLevelCallable(capsules.capsule("f64_ceil"))
    by_name = scipy.LowLevelCallable.from_cython(capsules, "f64_floor")
    assert by_capsule.signature == "double (double)"
    assert integrate.quad(by_capsule, 0, 3, points=[1, 2])[0] == pytest.approx(6)
    assert integrate.quad(by_name, 0, 3, points=[1, 2])[0] == pytest.approx(3)


CYTHON = """
# cython: language_level=3
from asm_libcalls.integrations.capsules cimport f64_nearest, i64_sdiv

def nearest(double x):
    return f64_nearest(x)

def divide_all(numbers, divisor):
    cdef long long total = 0, number, by = divisor
    assert by != 0
    for number in numbers:
        with nogil:
            total += i64_sdiv(number, by)
    return total
"""


def test_cython_imports_them(tmp_path):
    needed("Cython")
    compiler = shutil.which("cc")
    include = sysconfig.get_path("include")
    if compiler is None or not (Path(include) / "Python.h").is_file():
        pytest.skip("no C compiler, or no headers of this Python")
    (tmp_path / "user.pyx").write_text(CYTHON)
    commands = [
        [sys.executable, "-m", "cython", "-3", "-I", str(PACKAGE_HOME), "user.pyx"],
        [compiler, "-shared", "-fPIC", "-w", f"-I{include}", "user.c", "-o", "user.so"],
        [
            sys.executable,
            "-c",
            "import user; print(user.nearest(2.5), user.divide_all([7, -7, 9], 2))",
        ],
    ]
    for command in commands:
        done = run_program(*command, folder=tmp_path)
    assert done.stdout == "2.0 4\n"
