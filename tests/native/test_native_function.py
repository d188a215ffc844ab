"""C functions as Python functions: results, arguments, errors, traps, introspection.

Tests that need no machine code run over both: builtins, and the Python functions in their place.
"""

from __future__ import annotations

import copy
import ctypes
import inspect
import itertools
import math
import os
import pickle
import pydoc
import select
import struct
import sys
import threading
import time
from fractions import Fraction

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asm_libcalls
from asm_libcalls.native.native_function import native_function, native_functions, why_not_builtin
from asm_libcalls.native.specification import Specification
from asm_libcalls.signatures import VALUE_TYPES, Signature

LIBM, LIBC = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None)
BUILTIN = type(len)
MODES = [
    pytest.param({"catch": False}, id="bare"),
    pytest.param({}, id="catching"),
    pytest.param({"release_gil": True}, id="without the GIL"),
    pytest.param({"catch": False, "release_gil": True}, id="bare without the GIL"),
]


def address_of(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.fixture
def make(binding):
    """native_function, once as builtins and once as Python functions."""

    def make(address, signature, **options):
        [function] = native_functions(
            [Specification(address, signature, **options)], binding.interface
        )
        assert isinstance(function, BUILTIN) == (binding.x86_64 is not None)
        return function

    return make


@pytest.fixture
def builtin(machine_code):
    """native_function, where it makes builtins."""
    assert why_not_builtin() == ""

    def make(address, signature, **options):
        function = native_function(address, signature, **options)
        assert isinstance(function, BUILTIN)
        return function

    return make


# --- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_functions_of_the_c_library(make, mode):
    ceil = make(address_of(LIBM.ceil), "(f64) -> f64", **mode)
    power = make(address_of(LIBM.pow), "(f64, f64) -> f64", **mode)
    ldexp = make(address_of(LIBM.ldexp), "(f64, i32) -> f64", **mode)
    fused = make(address_of(LIBM.fmaf), "(f32, f32, f32) -> f32", **mode)
    absolute = make(address_of(LIBC.labs), "(i64) -> i64", **mode)
    length = make(address_of(LIBC.strlen), "(pointer) -> u64", **mode)
    process = make(address_of(LIBC.getpid), "() -> i32", **mode)
    seed = make(address_of(LIBC.srand), "(u32)", **mode)
    text = ctypes.create_string_buffer(b"seven c")
    assert ceil(1.25) == 2.0
    assert str(ceil(-0.25)) == "-0.0"
    assert power(2.0, 0.5) == math.sqrt(2)
    assert ldexp(0.75, -3) == 0.09375
    assert fused(2.0, 3.0, 0.5) == 6.5
    assert absolute(-(2**62)) == 2**62
    assert length(ctypes.addressof(text)) == 7
    assert process() == os.getpid()
    assert seed(1) is None


RESULTS = {
    "i8": (-1, -(2**7), 2**7 - 1),
    "u8": (2**8 - 1, 2**7),
    "i16": (-1, -(2**15), 2**15 - 1),
    "u16": (2**16 - 1, 2**15),
    "bool": (True, False),
    "usize": (2**64 - 1, 2**63),
    "i32": (-1, -(2**31), 2**31 - 1),
    "u32": (2**32 - 1, 2**31),
    "i64": (-1, -(2**63), 2**63 - 1),
    "u64": (2**64 - 1, 2**63),
    "pointer": (2**64 - 1, 0),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("result", RESULTS)
def test_results_are_read_as_the_signature_says(make, machine_code, result, mode):
    same = machine_code.loaded.routine("return_first_argument")
    function = make(same, f"(u64) -> {result}", **mode)
    bits = VALUE_TYPES[result].bits
    for value in RESULTS[result]:
        # What is above a narrow result in its register is anything.
        junk = 0xABCDEF987654321A << bits & (1 << 64) - 1
        got = function(value & (1 << bits) - 1 | junk)
        assert got == value
        assert type(got) is type(value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value_type", ["f32", "f64"])
def test_float_bits_go_through(make, machine_code, value_type, mode):
    same = machine_code.loaded.routine("return_first_argument")
    function = make(same, f"({value_type}) -> {value_type}", **mode)
    smallest = 2.0**-149 if value_type == "f32" else 5e-324
    for value in (0.0, -0.0, 1.5, -math.inf, smallest):
        assert struct.pack("<d", function(value)) == struct.pack("<d", value)
    assert math.copysign(1, function(-math.nan)) == -1
    assert math.isnan(function(math.nan))
    if value_type == "f32":
        assert function(0.1) == ctypes.c_float(0.1).value
        assert function(1e300) == math.inf
        assert function(3.4028235677973366e38) == math.inf  # rounds to 2**128
        assert function(-3.4028235677973362e38) == -3.4028234663852886e38
    else:
        payload = struct.unpack("<d", struct.pack("<Q", 0x7FF0_0000_0000_0ABC))[0]
        assert struct.pack("<d", function(payload)) == struct.pack("<d", payload)


# --- arguments -----------------------------------------------------------------------------------

NARROW_ARGUMENTS = [
    ("i8", -128, 0xFFFFFF80), ("i8", 200, 0xFFFFFFC8), ("i8", 127, 127),
    ("u8", 255, 255), ("u8", -1, 255),
    ("i16", -2, 0xFFFFFFFE), ("i16", 2**15, 0xFFFF8000), ("i16", 2**15 - 1, 2**15 - 1),
    ("u16", 2**16 - 1, 2**16 - 1), ("u16", -(2**15), 2**15),
    ("bool", True, 1), ("bool", False, 0), ("bool", 1, 1), ("bool", 0, 0),
    ("bool", numpy.True_, 1), ("bool", numpy.int8(0), 0),
]  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "value", "word"), NARROW_ARGUMENTS)
def test_narrow_arguments_are_extended_to_32_bits(make, machine_code, kind, value, word, mode):
    same = machine_code.loaded.routine("return_first_argument")
    assert make(same, f"({kind}) -> u32", **mode)(value) == word
    # On the stack as well.
    spilled = make(address_of(LIBC.snprintf), f"({', '.join(['pointer', 'u64'] * 2)}, i32, i32,"
                   f" {kind}) -> i32", **mode)  # fmt: skip
    text, form = ctypes.create_string_buffer(99), ctypes.create_string_buffer(b"%ld %d %d %u")
    spilled(ctypes.addressof(text), 99, ctypes.addressof(form), 1, 2, 3, value)
    assert text.value.decode() == f"1 2 3 {word}"


INTS_FOR_FLOATS = [
    sign * (2**power + step)
    for power in (0, 1, 29, 30, 31, 52, 53, 59, 60, 63, 64, 100)
    for step in (-1, 0, 1)
    for sign in (1, -1)
]


@pytest.mark.parametrize("mode", MODES)
def test_ints_for_floats(make, machine_code, mode):
    same = machine_code.loaded.routine("return_first_argument")
    doubles, singles = (make(same, f"({kind}) -> {kind}", **mode) for kind in ("f64", "f32"))
    # In all registers, and on the stack.
    signature = f"(pointer, u64, const pointer{', f64' * 10}) -> i32"
    many = make(address_of(LIBC.snprintf), signature, **mode)
    text = ctypes.create_string_buffer(999)
    for value in INTS_FOR_FLOATS:
        assert doubles(value) == float(value)
        assert singles(value) == ctypes.c_float(value).value
        given = [value + i for i in range(10)]
        many(text, 999, b" ".join([b"%.17g"] * 10) + b"\0", *given)
        assert [*map(float, text.value.split())] == [*map(float, given)]


def test_ints_for_floats_are_converted_by_machine_code(machine_code):
    def slow(*arguments):
        return arguments

    same = machine_code.loaded.routine("return_first_argument")
    for kind in ("f64", "f32"):
        function = native_function(same, f"({kind}) -> {kind}", slow=slow)
        for value in INTS_FOR_FLOATS:
            assert isinstance(function(value), float) == (abs(value) < 2**60)
        assert function(True) == function(Int(1)) == 1.0


INTEGER_BOUNDS = {
    "i8": (-(2**7), 2**8 - 1),
    "i16": (-(2**15), 2**16 - 1),
    "bool": (0, 1),
    "i32": (-(2**31), 2**32 - 1),
    "i64": (-(2**63), 2**64 - 1),
    "pointer": (0, 2**64 - 1),
}


def values(kind: str) -> st.SearchStrategy:
    if kind.startswith("f"):
        return st.floats(width=32 if kind == "f32" else 64, allow_nan=False)
    low, high = INTEGER_BOUNDS[{"usize": "i64"}.get(kind, kind.replace("u", "i"))]
    bits = VALUE_TYPES[kind].bits
    near = st.builds(
        lambda power, step, sign: sign * 2**power + step,
        st.integers(0, bits),
        st.integers(-2, 2),
        st.sampled_from([1, -1]),
    ).filter(lambda value: low <= value <= high)
    return st.integers(low, high) | near


NUMBERS = ("i8", "u8", "i16", "u16", "bool", "i32", "u32", "i64", "u64", "usize", "f32", "f64")


@st.composite
def calls(draw) -> tuple[Signature, list]:
    kinds = draw(st.lists(st.sampled_from([*NUMBERS, "pointer"]), max_size=18))
    result = draw(st.sampled_from(["", *(f" -> {kind}" for kind in NUMBERS)]))
    return Signature(f"({', '.join(kinds)}){result}"), [draw(values(kind)) for kind in kinds]


@settings(max_examples=150)
@given(call=calls(), data=st.data(), mode=st.sampled_from([p.values[0] for p in MODES]))
def test_every_mix_of_arguments_arrives_as_ctypes_passes_it(machine_code, call, data, mode):
    signature, arguments = call
    result = signature.result
    answer = None if result is None else data.draw(values(result.name))
    if result is not None and result.kind != "float":
        answer = result.from_bits(answer & result.mask)
    arrived = []

    def callback(*received):
        arrived.append(received)
        return answer

    prototype = signature.ctypes_prototype()
    native = prototype(callback)
    wanted = None if answer is None else prototype(address_of(native))(*arguments)
    if answer is None:
        prototype(address_of(native))(*arguments)
    function = native_function(address_of(native), signature, **mode)
    assert isinstance(function, BUILTIN)
    assert function(*arguments) == wanted == answer
    assert arrived[0] == arrived[1]
    # The same through the slow path: a bool or a Fraction is nothing that the fast one takes.
    for i, value_type in enumerate(signature.parameters):
        is_float = value_type.kind == "float"
        uncommon = Fraction(3, 4) if is_float else True
        changed = [*arguments[:i], uncommon, *arguments[i + 1 :]]
        assert function(*changed) == answer
        expected = list(arrived[0])
        expected[i] = 0.75 if is_float else 1
        assert list(arrived[-1]) == expected


@pytest.fixture(scope="module")
def register_dump(load_routines):
    """A C function that writes its argument registers: where, and its address."""
    from peachpy.x86_64 import (
        MOV, MOVSD, RET, r8, r9, rax, rcx, rdi, rdx, rsi, xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6,
        xmm7,
    )  # fmt: skip

    from asm_libcalls.x86_64.assembler import sequence
    from asm_libcalls.x86_64.assembler.instructions import LOAD_SLOT

    buffer = (ctypes.c_uint64 * 14)()

    def body() -> None:
        LOAD_SLOT(rax, "environ")  # any symbol: the slot is filled below
        for i, register in enumerate((rdi, rsi, rdx, rcx, r8, r9)):
            MOV([rax + 8 * i], register)
        for i, register in enumerate((xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7)):
            MOVSD([rax + 48 + 8 * i], register)
        RET()

    loaded = load_routines(sequence("register_dump", body))
    loaded.set_slot("environ", ctypes.addressof(buffer))
    return buffer, loaded.routine("register_dump")


@pytest.mark.parametrize("count", range(1, 7))
def test_every_order_of_integers_and_floats(builtin, register_dump, count):
    buffer, address = register_dump
    for kinds in itertools.product(("i64", "f64"), repeat=count):
        for mode in ({"catch": False}, {}):
            function = builtin(address, f"({', '.join(kinds)})", **mode)
            arguments = [-(2**40) - i if kind == "i64" else 0.5 + i for i, kind in enumerate(kinds)]
            ctypes.memset(buffer, 0x77, ctypes.sizeof(buffer))
            assert function(*arguments) is None
            integers = [a & 2**64 - 1 for a in arguments if isinstance(a, int)]
            floats = [
                struct.unpack("<Q", struct.pack("<d", a))[0]
                for a in arguments
                if isinstance(a, float)
            ]
            assert list(buffer)[: len(integers)] == integers
            assert list(buffer)[6 : 6 + len(floats)] == floats


class Index:
    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


class Int(int):
    pass


class Float(float):
    pass


@pytest.mark.parametrize("mode", MODES)
def test_uncommon_arguments_are_converted(make, mode):
    absolute = make(address_of(LIBC.labs), "(i64) -> i64", **mode)
    ldexp = make(address_of(LIBM.ldexp), "(f64, i32) -> f64", **mode)
    for seven in (Index(-7), Int(-7), numpy.int8(-7), numpy.int64(-7), 2**64 - 7):
        assert absolute(seven) == 7
    assert absolute(True) == 1
    for half in (Float(0.5), numpy.float32(0.5), numpy.float64(0.5), Fraction(1, 2)):
        for two in (2, Index(2), Int(2), numpy.uint8(2)):
            assert ldexp(half, two) == 2.0
    assert ldexp(True, False) == 1.0
    assert ldexp(3, 1) == 6.0


I64 = "must be in -2**63 .. 2**64-1 (i64), got "
I32 = "must be in -2**31 .. 2**32-1 (i32), got "
BAD_ARGUMENTS = [
    ("(i8)", (256,), OverflowError, "'a' must be in -2**7 .. 2**8-1 (i8), got 256"),
    ("(u8)", (-129,), OverflowError, "'a' must be in -2**7 .. 2**8-1 (u8), got -129"),
    ("(i16)", (2**16,), OverflowError, "'a' must be in -2**15 .. 2**16-1 (i16), got 65536"),
    ("(u16)", (1.0,), TypeError, "'a' must be an integer (u16), got float 1.0"),
    ("(usize)", (2**64,), OverflowError, f"'a' {I64.replace('i64', 'usize')}{2**64}"),
    ("(bool)", (2,), OverflowError, "'a' must be True, False, 1 or 0 (bool), got 2"),
    ("(bool)", (-1,), OverflowError, "'a' must be True, False, 1 or 0 (bool), got -1"),
    ("(bool)", (1.0,), TypeError, "'a' must be True or False (bool), got float 1.0"),
    ("(bool)", ("",), TypeError, "'a' must be True or False (bool), got str ''"),
    ("(i64)", ("7",), TypeError, "'a' must be an integer (i64), got str '7'"),
    ("(i64)", (7.0,), TypeError, "'a' must be an integer (i64), got float 7.0"),
    ("(i64)", (None,), TypeError, "'a' must be an integer (i64), got NoneType None"),
    ("(i64)", (2**64,), OverflowError, f"'a' {I64}18446744073709551616"),
    ("(i64)", (-(2**63) - 1,), OverflowError, f"'a' {I64}-9223372036854775809"),
    ("(i64)", (10**5000,), OverflowError, f"'a' {I64}an integer of 16610 bits"),
    ("(f64, i32)", (1.0, 2**32), OverflowError, f"'b' {I32}4294967296"),
    ("(f64, i32)", (1.0, -(2**31) - 1), OverflowError, f"'b' {I32}-2147483649"),
    ("(f64, i32)", (1.0, 2**64 - 1), OverflowError, f"'b' {I32}18446744073709551615"),
    ("(f64, i32)", ("1", 1), TypeError, "'a' must be a real number (f64), got str '1'"),
    ("(f32, f32)", (1.0, 1j), TypeError, "'b' must be a real number (f32), got complex 1j"),
    ("(pointer)", (-1,), OverflowError, "'a' must be in 0 .. 2**64-1 (pointer), got -1"),
    (
        "(i64, pointer)",
        (0, 1.0),
        TypeError,
        "'b' must be an address (int), None, a writable buffer or an owner of an address "
        "(pointer), got float 1.0",
    ),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("signature", "arguments", "error", "message"), BAD_ARGUMENTS)
def test_errors_name_function_and_argument(make, signature, arguments, error, message, mode):
    # Never called, so any function does.
    function = make(address_of(LIBC.abort), signature, name="f", **mode)
    with pytest.raises(error) as raised:
        function(*arguments)
    assert str(raised.value) == f"f(): argument {message}"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("count", range(4))
def test_count_and_keywords(make, count, mode):
    function = make(address_of(LIBC.abort), f"({', '.join(['i64'] * count)})", name="f", **mode)
    for given_count in set(range(6)) - {count}:
        with pytest.raises(TypeError, match=r"\bf\(\)"):
            function(*range(given_count))
    with pytest.raises(TypeError, match="keyword"):
        function(*range(count), c=1)


def test_the_count_of_several_is_an_error_with_their_names(builtin):
    function = builtin(address_of(LIBC.abort), "(i64, f64)", name="f", parameters=["x", "scale"])
    with pytest.raises(TypeError, match=r"^f\(\) takes 2 arguments \(x, scale\), got 3$"):
        function(1, 2.0, 3)


@pytest.mark.parametrize("mode", MODES)
def test_an_own_slow_path_gets_the_arguments_as_they_came(make, mode, binding):
    got = []

    def slow(*arguments):
        got.append(arguments)
        return "slow"

    function = make(address_of(LIBM.ldexp), "(f64, i32) -> f64", slow=slow, **mode)
    uncommon = Float(1.5)
    assert function(uncommon, 3) == "slow"
    assert got[-1][0] is uncommon
    assert got[-1][1] == 3
    if binding.x86_64 is not None:
        assert function(1.5, 3) == 12.0
        assert function() == "slow"
        assert got[-1] == ()
        one = make(address_of(LIBC.labs), "(i64) -> i64", slow=slow, **mode)
        assert one(uncommon) == "slow"
        assert got[-1] == (uncommon,)
        assert got[-1][0] is uncommon

    def refuse(*arguments):
        raise LookupError("no")

    function = make(address_of(LIBM.ldexp), "(f64, i32) -> f64", slow=refuse, **mode)
    with pytest.raises(LookupError, match=r"^no$"):
        function("a", "b")


# --- traps, exceptions, the GIL ------------------------------------------------------------------


@pytest.mark.parametrize("mode", [{}, {"release_gil": True}], ids=["holding", "releasing"])
def test_a_trap_arrives_as_its_exception(builtin, mode):
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    function = builtin(sdiv.address, sdiv.signature, **mode)
    for _ in range(3):
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            function(1, 0)
        with pytest.raises(asm_libcalls.IntegerOverflow):
            function(-(2**63), -1)
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            function(Index(1), False)
        assert function(-7, 2) == -3


class Unusual(BaseException):
    pass


@pytest.mark.parametrize("mode", [{}, {"release_gil": True}], ids=["holding", "releasing"])
@pytest.mark.parametrize(
    "exception", [Unusual("u"), KeyboardInterrupt(), ZeroDivisionError("z")], ids=repr
)
def test_an_exception_of_a_callback_arrives_unchanged(builtin, mode, exception):
    def callback(n):
        if n == 0:
            raise exception
        return function(n - 1) + 1 if n < 100 else n

    with asm_libcalls.HostFunction(callback, "(i64) -> i64") as host:
        function = builtin(host.address, "(i64) -> i64", **mode)
        for depth in (0, 1, 5):
            with pytest.raises(type(exception)) as raised:
                function(depth)
            assert raised.value is exception
        with pytest.raises(type(exception)):
            function(False)
        assert function(100) == 100
        exception.__traceback__ = None
        del raised


def test_a_trap_unwinds_the_innermost_call_only(builtin):
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    divide = builtin(sdiv.address, sdiv.signature)

    def callback(n):
        try:
            divide(n, 0)
        except ZeroDivisionError:
            return n + 1

    with asm_libcalls.HostFunction(callback, "(i64) -> i64") as host:
        assert builtin(host.address, "(i64) -> i64")(41) == 42


@pytest.mark.parametrize("uncommon", [False, True])
def test_the_error_that_a_function_of_cpython_sets_is_raised(builtin, uncommon):
    api = ctypes.pythonapi
    no_memory = builtin(address_of(api.PyErr_NoMemory), "() -> pointer")
    set_none = builtin(address_of(api.PyErr_SetNone), "(pointer)")
    with pytest.raises(MemoryError):
        no_memory()
    address = id(LookupError)
    with pytest.raises(LookupError):
        set_none(Index(address) if uncommon else address)


@pytest.mark.parametrize("uncommon", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_who_holds_the_gil(make, mode, uncommon):
    check = make(address_of(ctypes.pythonapi.PyGILState_Check), "(i64) -> i32", **mode)
    assert check(Index(5) if uncommon else 5) == (not mode.get("release_gil"))


def test_other_threads_run_while_the_gil_is_released(make):
    """The call returns when another thread has written; it waits for a minute at the most."""
    poll = make(address_of(LIBC.poll), "(pointer, u64, i32) -> i32", release_gil=True)
    reader, writer = os.pipe()
    awaited = ctypes.create_string_buffer(struct.pack("=ihh", reader, select.POLLIN, 0))
    about_to_wait = threading.Event()

    def write():
        about_to_wait.wait()
        time.sleep(0.05)  # by then the call is under way
        os.write(writer, b"x")

    thread = threading.Thread(target=write)
    thread.start()
    about_to_wait.set()
    ready = poll(ctypes.addressof(awaited), 1, 60_000)
    thread.join()
    os.close(reader)
    os.close(writer)
    assert ready == 1


def test_a_signal_is_handled_when_the_call_has_returned(builtin):
    function = builtin(address_of(LIBC["raise"]), "(i32) -> i32")

    def loop():
        for _ in range(1000):
            function(2)

    with pytest.raises(KeyboardInterrupt):
        loop()


# --- how they present themselves -----------------------------------------------------------------

NAMED = {"name": "scaled", "doc": "Scale x.\n\nBy a power of two.", "parameters": ["x", "power"]}


def test_introspection(make, binding):
    function = make(address_of(LIBM.ldexp), "(f64, i32) -> f64", module="there", **NAMED)
    assert function.__name__ == function.__qualname__ == "scaled"
    assert function.__module__ == "there"
    assert function.__doc__ == "Scale x.\n\nBy a power of two."
    assert str(inspect.signature(function)) == "(x, power, /)"
    assert inspect.isroutine(function)
    text = pydoc.plain(pydoc.render_doc(function))
    assert "scaled(x, power, /)\n    Scale x." in text
    assert inspect.isbuiltin(function) == (binding.x86_64 is not None)
    if inspect.isbuiltin(function):
        assert repr(function) == "<built-in function scaled>"
        assert function.__text_signature__ == "($module, x, power, /)"
        assert inspect.ismodule(function.__self__)
        assert function.__self__.__name__ == "there"


@pytest.mark.parametrize(
    ("signature", "expected"), [("()", "()"), ("(i32)", "(a, /)"), ("(i32, f64)", "(a, b, /)")]
)
def test_signature_by_default(make, signature, expected):
    function = make(address_of(LIBC.abort), signature)
    assert str(inspect.signature(function)) == expected
    assert f"{address_of(LIBC.abort):#x}" in function.__doc__


@pytest.mark.parametrize("name", ["ä", "with space", "a.b.c", "", "$x", "lambda"])
def test_names_are_free(make, name):
    function = make(address_of(LIBC.labs), "(i64) -> i64", name=name, doc="\N{SNOWMAN}")
    assert function.__name__ == name
    assert function.__doc__ == "\N{SNOWMAN}"
    assert str(inspect.signature(function)) == "(a, /)"
    assert function(-3) == 3


@pytest.mark.parametrize("name", ["not a name", "", "a.", ".a", "1st", "a-b", "a\nb"])
def test_a_name_is_an_identifier(name):
    with pytest.raises(
        ValueError, match=r"native_function\(\): name must be an identifier, or .*, got "
    ):
        native_function(1, "()", name=name)


picklable = None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_goes_by_name(protocol, monkeypatch):
    function = native_function(address_of(LIBC.labs), "(i64) -> i64", name="picklable")
    assert function.__module__ == __name__
    monkeypatch.setitem(globals(), "picklable", function)
    assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.copy(function) is copy.deepcopy(function) is function
    monkeypatch.setitem(globals(), "picklable", len)
    with pytest.raises(pickle.PicklingError):
        pickle.dumps(function, protocol)


# --- what native_function itself refuses ---------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((0, "()"), {}, ValueError, "address must not be null"),
        ((-1, "()"), {}, OverflowError, r"native_function\(\): address must be in 0"),
        (("x", "()"), {}, TypeError, r"native_function\(\): address must be an address"),
        ((1, "(i63)"), {}, ValueError, "unknown type 'i63'"),
        ((1, "()"), {"name": 1}, TypeError, "name must be a str, got int"),
        ((1, "()"), {"name": "a\0"}, ValueError, "name must not contain a null character"),
        ((1, "()"), {"doc": "\udcff"}, ValueError, "doc must be encodable"),
        ((1, "()"), {"module": 1}, TypeError, "module must be a str, got int"),
        ((1, "()"), {"slow": 1}, TypeError, "slow must be callable, got int"),
        ((1, "(i32)"), {"parameters": ()}, ValueError, "parameters must be 1 name for"),
        ((1, "(i32)"), {"parameters": (1,)}, TypeError, "parameters must be str, got int"),
        ((1, "(i32)"), {"parameters": ("a b",)}, ValueError, "different identifiers, got 'a b'"),
        ((1, "(i32)"), {"parameters": ("in",)}, ValueError, "different identifiers, got 'in'"),
        (
            (1, "(i32, i32)"),
            {"parameters": ("x", "x")},
            ValueError,
            "different identifiers, got 'x'",
        ),
        ((1, f"({', '.join(['i32'] * 256)})"), {}, ValueError, "at most 255"),
    ],
)
def test_bad_specifications(arguments, options, error, message):
    with pytest.raises(error, match=message):
        native_function(*arguments, **options)


def test_as_many_parameters_as_there_may_be(builtin):
    with asm_libcalls.HostFunction(
        lambda *a: sum(a), f"({', '.join(['i64'] * 255)}) -> i64"
    ) as host:
        function = builtin(host.address, host.signature)
        assert function(*range(255)) == sum(range(255))
        assert function(*range(254), True) == sum(range(254)) + 1


def test_this_python_has_builtins():
    """The tests above would pass without: here is what would not."""
    expected = asm_libcalls.backend_report()["x86_64"] == "loaded"
    assert (why_not_builtin() == "") == expected
    assert sys.implementation.name == "cpython" or not expected
