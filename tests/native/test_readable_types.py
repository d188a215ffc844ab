"""Arguments that machine code reads by the types it has learned, compared with Python's reading."""

import contextlib
import ctypes
import enum
import gc
import math
import sys
import weakref
from functools import partial

import numpy
import pytest
from free_threading import frees_modules_and_classes
from interruptions import at_point
from jit_modules import Function, build

import asm_libcalls
from asm_libcalls import FuncRef, Instance, VMExternRef, native_function
from asm_libcalls.emitter import libc
from asm_libcalls.native import process
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.signatures import Callee, Signature, held_buffers, value_types
from asm_libcalls.signatures.pointers import release
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.python_functions import READABLE_TYPES_SIZE
from asm_libcalls.x86_64.python_functions.readable_types import ReadableTypes

LIBC = ctypes.CDLL(None)


class Color(enum.IntEnum):
    RED = 1
    BLUE = 200


class Int(int):
    def __index__(self):
        raise AssertionError("Python does not call it for a subclass of int")


class Float(float):
    def __float__(self):
        return 7.5


NUMPY_INTEGERS = [numpy.dtype(code).type for code in "bBhHiIlLqQ"]

NUMBERS = [
    True,
    False,
    *Color,
    *map(Int, (0, -5, 2**40, -(2**63), 2**64 - 1, 2**64)),
    *(
        kind(value)
        for kind in NUMPY_INTEGERS
        for value in sorted({numpy.iinfo(kind).min, 0, 1, 100, numpy.iinfo(kind).max})
    ),
    numpy.True_,
    numpy.False_,
    *map(numpy.float64, (0.5, -0.0, math.inf, math.nan, 1e300)),
    *map(numpy.float32, (0.5, -0.0, -math.inf, math.nan, 3e38)),
    numpy.float16(1.5),
    numpy.longdouble(1.5),
    numpy.complex128(1),
    numpy.datetime64(5, "s"),
    numpy.timedelta64(5, "s"),
    numpy.str_("5"),
    numpy.bytes_(b"5"),
    numpy.array(7),
    numpy.array([7]),
    Float(0.25),
    2**60,
    -(2**60),
    2**1024,
    1.5,
    None,
    "5",
]

KINDS = (
    *("i8", "u8", "i16", "u16", "bool", "i32", "u32", "i64", "u64", "usize", "f32", "f64"),
    *("pointer", "vmctx", "anyfunc", "externref"),
)


@pytest.fixture
def same(machine_code):
    return machine_code.loaded.routine("return_first_argument")


def outcome(function, *arguments):
    try:
        result = function(*arguments)
    except (TypeError, ValueError, OverflowError, Warning) as error:
        return type(error), str(error)
    return repr(result)


def by_python(address, signature, callee):
    """Return the function that converts in Python and enters by the entry from Python."""
    entry = process.interface.entry_holding_gil()

    def call(*arguments):
        held = []
        try:
            patterns = signature.to_patterns(arguments, callee, held)
            return signature.from_pattern(entry.call(address, signature, patterns))
        finally:
            release(held)

    return call


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("enters", [True, False])
def test_machine_code_reads_numbers_as_python_does(same, kind, enters):
    result = {"vmctx": "u64", "anyfunc": "u64", "externref": "u64", "pointer": "u64"}.get(
        kind, kind
    )
    for parameters, at in ((f"({kind})", 0), (f"({kind}, i32)", 0), (f"({'f64, ' * 3}{kind})", 3)):
        signature = Signature(f"{parameters} -> {result}")
        if kind[0] == "f" and at:
            continue  # the result would be another argument's
        function = native_function(same, signature, name="f", catch=enters)
        names = tuple("abcd"[: len(signature.parameters)])
        reference = by_python(same, signature, Callee.named("f", names))
        for value in NUMBERS:
            if isinstance(value, numpy.ndarray) and kind == "pointer":
                continue  # the address of its memory
            given = [1] * len(names)
            given[at] = value
            for _ in range(2):  # the first call may learn the type
                assert outcome(function, *given) == outcome(reference, *given), value


def test_other_arguments_keep_their_registers(same):
    """Reading a scalar clobbers nothing that holds another argument."""
    add = native_function(
        asm_libcalls.load_code(
            # lea rax, [rdi + 8*rsi]; add rax, rdx; lea rax, [rax + 8*rcx]; add rax, r8; add rax, r9
            bytes.fromhex("488d04f7 4801d0 488d04c8 4c01c0 4c01c8 c3")
        ),
        "(i64, i64, i64, i64, i64, i64) -> i64",
        catch=False,
    )
    kinds = [int, numpy.int64, numpy.uint8, numpy.bool_, bool, numpy.uint64]
    for first in kinds:
        native_function(same, "(i64)")(first(1))  # learned
    for turn in range(6):
        given = [kinds[(i + turn) % 6](1) for i in range(6)]
        assert add(*given) == 1 + 8 + 1 + 8 + 1 + 1
    sum_of_floats = native_function(
        asm_libcalls.load_code(
            # addsd xmm0, xmm1; ... xmm7
            b"".join(bytes([0xF2, 0x0F, 0x58, 0xC0 + i]) for i in range(1, 8)) + b"\xc3"
        ),
        f"({', '.join(['f64'] * 8)}) -> f64",
        catch=False,
    )
    kinds = [float, numpy.float64, numpy.float32, numpy.int16, int, bool, numpy.bool_, numpy.int64]
    for first in kinds:
        native_function(same, "(f64)")(first(1))
    for turn in range(8):
        assert sum_of_floats(*(kinds[(i + turn) % 8](1) for i in range(8))) == 8.0


def slow(*arguments):
    return "slow"


@pytest.mark.parametrize("value", [True, Color.RED, Int(1), *[kind(1) for kind in NUMPY_INTEGERS]])
def test_integers_are_read_by_machine_code(same, value):
    for kind in ("i8", "u16", "bool", "i32", "i64"):
        native_function(same, f"({kind})")(value)
        assert native_function(same, f"({kind}) -> i32", slow=slow)(value) == 1
    for kind in ("f32", "f64"):
        assert native_function(same, f"({kind}) -> {kind}", slow=slow)(value) == 1.0


def test_floats_are_read_by_machine_code(same):
    for value in (numpy.float64(0.5), numpy.float32(0.5), numpy.True_):
        for kind in ("f32", "f64"):
            native_function(same, f"({kind})")(value)
            assert native_function(same, f"({kind}) -> {kind}", slow=slow)(value) == value
    assert native_function(same, "(f64) -> f64")(Float(0.25)) == 7.5


def test_pointers_of_ctypes_are_read_by_machine_code(same):
    read = native_function(same, "(pointer) -> u64")
    fast = native_function(same, "(pointer) -> u64", slow=slow)
    number = (ctypes.c_int * 4)(1, 2, 3, 4)
    compare = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 5)
    for pointer, address in (
        (ctypes.byref(number), ctypes.addressof(number)),
        (ctypes.byref(number, 8), ctypes.addressof(number) + 8),
        (ctypes.pointer(number), ctypes.addressof(number)),
        (ctypes.POINTER(ctypes.c_double)(), 0),
        (ctypes.c_void_p(77), 77),
        (ctypes.c_void_p(), 0),
        (ctypes.c_char_p(), 0),
        (compare, ctypes.cast(compare, ctypes.c_void_p).value),
        (LIBC.labs, ctypes.cast(LIBC.labs, ctypes.c_void_p).value),
    ):
        assert read(pointer) == fast(pointer) == address
        changed = ctypes.c_void_p(1)
    assert fast(changed) == 1
    changed.value = 2
    assert fast(changed) == 2
    text = ctypes.c_char_p(b"text")
    assert read(text) == fast(text) == ctypes.cast(text, ctypes.c_void_p).value


def test_arguments_of_ctypes_that_are_no_pointers_are_refused(same):
    read = native_function(same, "(pointer) -> u64")
    number = ctypes.c_int(5)
    assert read(ctypes.byref(number)) == ctypes.addressof(number)
    text = ctypes.c_char_p.from_param(b"text")
    for argument in (ctypes.c_int.from_param(5), ctypes.c_double.from_param(5.5), text):
        with pytest.raises(TypeError, match="must be an address"):
            read(argument)


def test_a_class_of_pointers_with_an_address_of_its_own_is_asked(same):
    class Own(ctypes.c_void_p):
        def __native_address__(self, kind):
            return 99

    read = native_function(same, "(pointer) -> u64")
    assert [read(Own(5)) for _ in range(3)] == [99] * 3


def test_an_instance_is_read_by_machine_code(same):
    vmctx = native_function(same, "(vmctx) -> u64")
    fast = native_function(same, "(vmctx, i64) -> u64", slow=slow)
    anyfunc = native_function(same, "(anyfunc) -> u64", slow=slow)
    with Instance(functions=[(same, 0)]) as instance:
        assert vmctx(instance) == fast(instance, 1) == instance.vmctx
        function = instance.functions[0]
        assert type(function) is FuncRef
        assert native_function(same, "(anyfunc) -> u64")(function) == anyfunc(function)
        assert anyfunc(function) == function.as_raw()
        assert anyfunc(instance) == fast(function, 1) == fast(VMExternRef(1), 1) == "slow"
        pointer = native_function(same, "(pointer) -> u64", slow=slow)
        assert pointer(instance) == pointer(function) == "slow"
    assert fast(instance, 1) == "slow"
    with pytest.raises(ValueError, match="closed"):
        vmctx(instance)


@pytest.fixture
def identity():
    return asm_libcalls.load_code(bytes.fromhex("4889f8 c3"))  # it returns its argument


def test_owners_that_calls_keep_are_read_by_machine_code(same, identity):
    """One parameter and several; with the GIL kept and released; an entry and a bare call."""
    memory, host = asm_libcalls.Memory(1), asm_libcalls.HostFunction(abs, "(i64) -> i64")
    reference = VMExternRef("x")
    values = {
        "pointer": [(memory, memory.base), (host, host.address)],
        "const pointer": [(memory, memory.base), (host, host.address)],
        "externref": [(reference, reference.as_raw()), (None, 0)],
        "reference": [(reference, reference.as_raw())],
    }
    counted = (memory, host, reference)
    for kind, rows in values.items():
        for options in ({}, {"release_gil": True}, {"catch": False}):
            for rest in ((), ("f64", kind)):
                signature = f"({', '.join((kind, *rest))}) -> u64"
                learns = native_function(identity, signature, **options)
                call = native_function(identity, signature, slow=slow, **options)
                for value, address in rows:
                    arguments = (value, 0.5, value) if rest else (value,)
                    assert learns(*arguments) == address
                    before = [sys.getrefcount(each) for each in counted]
                    if HAS_GIL or value is host:
                        assert call(*arguments) == address
                    assert [sys.getrefcount(each) for each in counted] == before
    assert reference.strong_count() == 1


def test_callables_are_read_by_machine_code(same, identity):
    caught = asm_libcalls.catch_traps(identity, "(i64) -> i64")
    wasm = build({"f": Function("-> i32", "i32.const 07")})
    export = asm_libcalls.toy_jit.Instance(asm_libcalls.toy_jit.Module(wasm)).exports["f"]
    for kind, value, address in (
        ("pointer", caught, identity),
        ("anyfunc", export, export.as_raw()),
        ("reference", VMExternRef(5), None),
    ):
        for learned in (False, True):
            function = native_function(identity, f"({kind}) -> u64", slow=slow if learned else None)
            result = function(value)
            assert result == address or (address is None and (result != "slow" or not HAS_GIL))
    pointer = native_function(identity, "(pointer) -> u64")
    assert pointer(export) == pointer(export) != export.as_raw()


def test_closed_owners_are_refused(same, identity):
    memory, host = asm_libcalls.Memory(1), asm_libcalls.HostFunction(abs, "(i64) -> i64")
    reference = VMExternRef("x")
    for kind, owner, message in (
        ("pointer", memory, "the Memory is closed"),
        ("pointer", host, "the HostFunction is closed"),
        ("externref", reference, "the VMExternRef was dropped"),
    ):
        call = native_function(identity, f"({kind}, i64) -> u64")
        assert call(owner, 1)
        owner.close()
        for _ in range(2):
            with pytest.raises(ValueError, match=message):
                call(owner, 1)


@pytest.mark.parametrize("ending", ["returns", "traps", "raises", "is refused"])
def test_what_a_call_keeps_is_released_however_it_ends(same, ending):
    memory, reference = asm_libcalls.Memory(1), VMExternRef(value := object())
    address = memory.base
    counts = []

    def during(pointer, raw):
        counts.append(VMExternRef.strong_count(reference))
        reference.drop()
        memory.close()
        ctypes.memset(pointer, 7, 100)  # the pages are there as long as the call
        assert VMExternRef.clone_from_raw(raw).value is value
        if ending == "traps":
            raise asm_libcalls.IntegerOverflow
        if ending == "raises":
            raise LookupError("of the host function")

    with asm_libcalls.HostFunction(during, "(pointer, externref)") as host:
        call = native_function(host.address, "(pointer, externref, i64)")
        labs = ctypes.cast(LIBC.labs, ctypes.c_void_p).value
        for kind, owner in (("pointer", memory), ("externref", reference)):  # makes its type known
            native_function(labs, f"({kind}) -> u64")(owner)
        count, boxes = sys.getrefcount(value), externref_boxes.live_count()
        if ending == "is refused":
            with pytest.raises(TypeError):
                call(memory, reference, "7")
            assert memory.base == address
            assert reference.strong_count() == 1
            assert externref_boxes.live_count() == boxes
            return
        expected = {"traps": OverflowError, "raises": LookupError}.get(ending)
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            call(memory, reference, 7)
    assert counts == [2]
    gc.collect()
    assert externref_boxes.live_count() == boxes - 1
    assert sys.getrefcount(value) == count - 1


def test_a_full_table_leaves_types_to_the_slow_path(child):
    child("""
        import ctypes
        import asm_libcalls
        same = asm_libcalls.load_code(bytes.fromhex("4889f8c3"))
        read = asm_libcalls.native_function(same, "(pointer) -> u64")
        fast = asm_libcalls.native_function(same, "(pointer) -> u64", slow=lambda *a: "slow")
        types = [type(f"P{i}", (ctypes.c_void_p,), {}) for i in range(1000)]
        for number, cls in enumerate(types):
            assert read(cls(number + 1)) == number + 1
        answers = [fast(cls(number + 1)) for number, cls in enumerate(types)]
        found = [answer for answer in answers if answer != "slow"]
        assert answers == [a if a == "slow" else i + 1 for i, a in enumerate(answers)]
        assert 20 < len(found) <= 272, len(found)
        assert read(types[-1](5)) == 5
        """)


@frees_modules_and_classes
def test_a_type_is_learned_at_the_address_of_one_that_was_freed(same):
    readable = value_types.learners[0].__self__.readable_types
    cls = type("P", (ctypes.c_void_p,), {})
    gone = weakref.ref(type("Gone", (), {}))
    gc.collect()
    assert gone() is None
    readable._seen[id(cls)] = gone
    assert native_function(same, "(pointer) -> u64")(cls(77)) == 77
    assert native_function(same, "(pointer) -> u64", slow=slow)(cls(78)) == 78


def test_types_are_not_freed_once_learned(same, child):
    child("""
        import ctypes, gc, weakref
        import asm_libcalls
        same = asm_libcalls.load_code(bytes.fromhex("4889f8c3"))
        read = asm_libcalls.native_function(same, "(pointer) -> u64")
        cls = type("P", (ctypes.c_void_p,), {})
        read(cls(1))
        known = weakref.ref(cls)
        del cls
        gc.collect()
        assert known() is not None
        """)


def test_libcalls_and_exports_read_scalars(same):
    assert asm_libcalls.i64_sdiv(numpy.int64(-7), True) == -7
    assert asm_libcalls.f64_nearest(numpy.float64(2.5)) == 2.0
    assert asm_libcalls.f32_ceil(numpy.float32(0.5)) == 1.0
    with Instance(memories=[asm_libcalls.Memory(1)]) as instance:
        asm_libcalls.memory_fill(instance, numpy.int32(0), numpy.uint8(3), True, numpy.int64(2))
        assert instance.memories[0].read(2, 4) == b"\0\1\1\0"


@pytest.mark.skipif(sys.flags.optimize > 1, reason="docstrings are gone")
def test_the_slow_path_names_the_argument(same):
    function = native_function(same, "(i32, f64) -> i32", name="f", parameters=("x", "y"))
    with pytest.raises(OverflowError, match=r"f\(\): argument 'x' must be in .* got 4294967296"):
        function(numpy.int64(2**32), 1)
    with pytest.raises(TypeError, match=r"f\(\): argument 'y' must be a real number"):
        function(1, "y")
    with pytest.raises(TypeError, match=r"f\(\) takes 2 arguments \(x, y\), got 1"):
        function(1)


class Struck(BaseException):
    """A signal handler raises this."""


def strike():
    raise Struck


TABLES = {
    "readable types": lambda: (
        ReadableTypes(
            libc.malloc(bytes(READABLE_TYPES_SIZE)), process.interface.function_objects()._describe
        ).learn
    ),
    "held buffers": lambda: held_buffers._learn,
}


def learned(learn):
    owner = getattr(learn, "__self__", None)
    return set(owner._table if owner else held_buffers.known_types)


# A handler's exception in a generator that is being dropped cannot be raised.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", TABLES)
def test_types_are_learned_after_a_signal_handler_has_raised(name):
    """A lock that stayed taken would leave all later types to the slow path."""
    base = ctypes.POINTER(ctypes.c_int) if name == "readable types" else bytearray
    packages = "asm_libcalls.x86_64", "asm_libcalls.signatures", "asm_libcalls.steps"
    for number in range(500):
        learn = TABLES[name]()  # an empty table, where types may share few places
        cls, other = (type("Kind", (base,), {}) for _ in range(2))
        try:
            reached, _ = at_point(number, partial(learn, cls), strike, packages)
        except Struck:
            reached = True
        if not reached:
            break
        for each in (other, cls):
            learn(each)
            assert id(each) in learned(learn), number
    assert number > 1
