"""Python objects as pointers: what each stands for, and how long its memory is held.

Each test runs in every way to make the call (the modes of native_function, and catch_traps), over
machine code and over the fallback.
"""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import os
import sys
import threading
import time
import weakref

import numpy
import pytest
from free_threading import frees_modules_and_classes

import asm_libcalls
from asm_libcalls import HostFunction, VMExternRef, toy_jit
from asm_libcalls.native import process
from asm_libcalls.native.catch_traps import catch_traps
from asm_libcalls.native.native_function import native_functions
from asm_libcalls.native.specification import Specification

LIBC = ctypes.CDLL(None)
IDENTITY = bytes.fromhex("4889f8 c3")  # mov rax, rdi; ret
MODES = {
    "bare": {"catch": False},
    "holding the GIL": {},
    "releasing the GIL": {"release_gil": True},
}


def address_of(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value


@pytest.fixture(params=[*MODES, "catch_traps"])
def make(request, binding, monkeypatch, machine_code):
    """Makes a Python function of a C address."""
    return maker_of(request.param, binding, monkeypatch)


@pytest.fixture(params=[*list(MODES)[1:], "catch_traps"])
def make_calling(request, binding, monkeypatch, machine_code):
    """The same, of one that may call Python."""
    return maker_of(request.param, binding, monkeypatch)


def maker_of(mode, binding, monkeypatch):
    monkeypatch.setattr(process, "interface", binding.interface)

    def make(address, signature):
        if mode == "catch_traps":
            return catch_traps(address, signature)
        specification = Specification(address, signature, **MODES[mode])
        return native_functions([specification], binding.interface)[0]

    return make


@pytest.fixture(scope="module")
def identity():
    return asm_libcalls.load_code(IDENTITY)


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int32), ("y", ctypes.c_double)]


class Index:
    def __init__(self, value, during=lambda: None):
        self.value, self.during = value, during

    def __index__(self):
        self.during()
        return self.value


class Parameter:
    def __init__(self, value):
        self._as_parameter_ = value


def buffer_address(thing) -> int:
    return numpy.asarray(memoryview(thing)).ctypes.data


def writable_memory():
    """Name, object, address of what C may write to."""
    grid = numpy.zeros((3, 4))
    record = numpy.zeros(3, [("a", "i4"), ("b", "f8")])
    times = numpy.zeros(2, "datetime64[s]")
    text = bytearray(b"seven c\0")
    numbers = array.array("d", [1.5, 2.5])
    buffer = ctypes.create_string_buffer(b"text")
    matrix = ((ctypes.c_int * 3) * 2)()
    point, number = Point(), ctypes.c_int(5)
    pages = mmap.mmap(-1, 4096)
    memory = asm_libcalls.Memory(1)
    return {
        "bytearray": (text, buffer_address(text)),
        "memoryview": (memoryview(text), buffer_address(text)),
        "slice of a memoryview": (memoryview(text)[3:], buffer_address(text) + 3),
        "empty slice": (memoryview(text)[2:2], buffer_address(text) + 2),
        "array": (numbers, numbers.buffer_info()[0]),
        "NumPy array": (grid, grid.ctypes.data),
        "row": (grid[1], grid.ctypes.data + 32),
        "array in Fortran's order": (grid.T, grid.ctypes.data),
        "array without dimensions": (grid[1, 1, ...], grid.ctypes.data + 40),
        "array of records": (record, record.ctypes.data),
        "array of times": (times, times.ctypes.data),
        "subclass of a NumPy array": (grid.view(numpy.recarray), grid.ctypes.data),
        "memoryview of a NumPy array": (memoryview(grid), grid.ctypes.data),
        "ctypes array": (buffer, ctypes.addressof(buffer)),
        "ctypes array of arrays": (matrix, ctypes.addressof(matrix)),
        "structure": (point, ctypes.addressof(point)),
        "ctypes number": (number, ctypes.addressof(number)),
        "mmap": (pages, buffer_address(pages)),
        "Memory": (memory, memory.base),
    }


def readonly_memory():
    """Name, object, address of what C may only read."""
    text = b"seven c"
    at = ctypes.cast(ctypes.c_char_p(text), ctypes.c_void_p).value
    fixed = numpy.arange(5)
    fixed.flags.writeable = False
    return {
        "bytes": (text, at),
        "memoryview of bytes": (memoryview(text)[2:], at + 2),
        "read-only view": (memoryview(bytearray(b"ab")).toreadonly(), None),
        "read-only array": (fixed, fixed.ctypes.data),
        "broadcast array": (numpy.broadcast_to(numpy.zeros(()), ()), None),
    }


def pointers():
    """Name, object, address of what is an address or has one."""
    text = ctypes.create_string_buffer(b"text")
    at = ctypes.addressof(text)
    value = ["an object"]
    grid = numpy.zeros(3)
    callback = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 1)
    host = HostFunction(lambda: None, "()")
    function = catch_traps(address_of(LIBC.labs), "(i64) -> i64")
    return {
        "int": (at, at),
        "None": (None, 0),
        "zero": (0, 0),
        "the highest": (2**64 - 1, 2**64 - 1),
        "bool": (True, 1),
        "index": (Index(at), at),
        "NumPy integer": (numpy.uint64(at), at),
        "c_void_p": (ctypes.c_void_p(at), at),
        "null c_void_p": (ctypes.c_void_p(), 0),
        "c_char_p": (ctypes.c_char_p(at), at),
        "py_object": (ctypes.py_object(value), id(value)),
        "POINTER": (ctypes.pointer(text), at),
        "cast": (ctypes.cast(text, ctypes.POINTER(ctypes.c_int)), at),
        "null POINTER": (ctypes.POINTER(ctypes.c_int)(), 0),
        "byref": (ctypes.byref(text), at),
        "byref with an offset": (ctypes.byref(text, 3), at + 3),
        "_as_parameter_": (Parameter(ctypes.byref(text)), at),
        "_as_parameter_ of an int": (Parameter(at), at),
        "ctypes of an array": (grid.ctypes, grid.ctypes.data),
        "C function": (LIBC.strlen, address_of(LIBC.strlen)),
        "ctypes callback": (callback, address_of(callback)),
        "HostFunction": (host, host.address),
        "catch_traps": (function, function.address),
        "Libcall": (
            asm_libcalls.LIBCALLS["i64_sdiv"],
            asm_libcalls.LIBCALLS["i64_sdiv"].address,
        ),
    }


ALL = {**writable_memory(), **readonly_memory(), **pointers()}
PASSING = [("const pointer", name) for name in ALL] + [
    ("pointer", name) for name in {**writable_memory(), **pointers()}
]
SHAPES = {
    "alone": ("({kind}) -> u64", lambda thing: (thing,)),
    "in a register": ("({kind}, i64, f64) -> u64", lambda thing: (thing, 1, 2.0)),
    "in an uncommon call": ("({kind}, i64, bool) -> u64", lambda thing: (thing, Index(1), 0)),
    "beside bytes": ("({kind}, const pointer) -> u64", lambda thing: (thing, b"x")),
    "beside a struct": ("({kind}, pointer, i8) -> u64", lambda thing: (thing, Point(), 7)),
}


@pytest.mark.parametrize(("kind", "name"), PASSING)
def test_the_address_of_each(make, identity, kind, name):
    thing, address = ALL[name]
    if address is None:
        address = numpy.asarray(thing).ctypes.data
    for signature, arguments in SHAPES.values():
        function = make(identity, signature.format(kind=kind))
        before = sys.getrefcount(thing)
        for _ in range(3):
            assert function(*arguments(thing)) == address
        if name not in ("None", "bool"):
            assert sys.getrefcount(thing) == before


@pytest.mark.parametrize("name", readonly_memory())
def test_a_pointer_refuses_what_c_may_not_write(make, identity, name):
    thing, _ = ALL[name]
    got = type(thing).__name__
    words = rf"argument ('a'|1 of .*) must be writable memory, .* got read-only {got}"
    for signature, arguments in SHAPES.values():
        function = make(identity, signature.format(kind="pointer"))
        for _ in range(2):
            with pytest.raises(TypeError, match=words):
                function(*arguments(thing))


GAPS = {
    "every second": numpy.zeros(10)[::2],
    "backwards": numpy.zeros(10)[::-1],
    "a column": numpy.zeros((3, 4))[:, 1],
    "a part of a grid": numpy.zeros((3, 4))[:, 1:3],
    "one element for all": numpy.broadcast_to(numpy.zeros(1), (3,)),
    "a slice of a memoryview": memoryview(bytearray(9))[::3],
}


@pytest.mark.parametrize("kind", ["pointer", "const pointer"])
@pytest.mark.parametrize("name", GAPS)
def test_gaps_are_refused(make, identity, kind, name):
    got = type(GAPS[name]).__name__
    words = f"argument .* must be contiguous memory, got {got} with gaps"
    for signature, arguments in SHAPES.values():
        function = make(identity, signature.format(kind=kind))
        for _ in range(2):
            with pytest.raises(ValueError, match=words):
                function(*arguments(GAPS[name]))


@pytest.mark.parametrize("kind", ["pointer", "const pointer"])
@pytest.mark.parametrize(
    "thing", ["text", 1.5, [], object(), numpy.float64(1), numpy.str_("x"), ctypes.c_int, 1j]
)
def test_what_has_no_address(make, identity, kind, thing):
    expected = "a buffer" if kind == "const pointer" else "a writable buffer"
    for shape in ("alone", "in a register"):
        signature, arguments = SHAPES[shape]
        function = make(identity, signature.format(kind=kind))
        with pytest.raises(TypeError) as caught:
            function(*arguments(thing))
        assert f"must be an address (int), None, {expected} or an owner of an address" in str(
            caught.value
        )
        assert f"({kind}), got {type(thing).__name__}" in str(caught.value)


@pytest.mark.parametrize("value", [-1, 2**64, Index(-1), numpy.int64(-1)])
def test_numbers_that_are_no_address(make, identity, value):
    for kind in ("pointer", "const pointer"):
        with pytest.raises(OverflowError, match=r"must be in 0 .. 2\*\*64-1"):
            make(identity, f"({kind}) -> u64")(value)


def test_what_is_closed_or_released(make, identity):
    view = memoryview(bytearray(3))
    view.release()
    host = HostFunction(print, "()")
    host.close()
    pages = mmap.mmap(-1, 4096)
    pages.close()
    memory = asm_libcalls.Memory(1)
    memory.close()
    code = asm_libcalls.Code(IDENTITY)
    start = code.address
    assert make(identity, "(pointer) -> u64")(start) == int(start)
    code.close()
    for thing, message in (
        (start, "the Code is closed"),
        (view, "released memoryview"),
        (host, "the HostFunction is closed"),
        (pages, "closed"),
        (memory, "closed"),
    ):
        with pytest.raises(ValueError, match=f"argument .*{message}"):
            make(identity, "(pointer) -> u64")(thing)


def test_runtime_pointers_take_no_memory(make, identity):
    for kind, owner in (
        ("vmctx", r"an asm_libcalls\.Instance"),
        ("externref", "a VMExternRef"),
        ("anyfunc", "a FuncRef or an export"),
        ("reference", "an owner of an address"),
    ):
        for thing in (bytearray(8), ctypes.c_void_p(8), b""):
            expected = rf"must be an address \(int\), None(?: or|,) {owner} \({kind}\)"
            with pytest.raises(TypeError, match=expected):
                make(identity, f"({kind}) -> u64")(thing)


def test_an_instance_of_toy_jit_is_told_from_one_of_the_package(make, identity):
    instance = toy_jit.Instance(toy_jit.Module(b"\0asm\1\0\0\0"))
    expected = r"must be .* an asm_libcalls\.Instance \(vmctx\), got Instance <Instance of "
    with pytest.raises(TypeError, match=expected):
        make(identity, "(vmctx) -> u64")(instance)


# --- while native code runs ----------------------------------------------------------------------


class Special(Exception):
    pass


def end_normally():
    return 0


def end_by_an_exception():
    raise Special


def end_by_a_trap():
    raise asm_libcalls.IntegerOverflow


ENDS = [end_normally, end_by_an_exception, end_by_a_trap]
HOLDERS = {
    "bytearray": lambda: bytearray(16),
    "memoryview": lambda: memoryview(bytearray(16)),
    "NumPy array": lambda: numpy.frombuffer(bytearray(16), numpy.uint8),
    "ctypes array": lambda: (ctypes.c_char * 16).from_buffer(bytearray(16)),
    "array": lambda: array.array("b", bytes(16)),
}


def exporter(thing) -> object:
    """The object that refuses to be resized while its memory is held."""
    if isinstance(thing, memoryview):
        return thing.obj
    return exporter(thing.base) if isinstance(thing, numpy.ndarray) else thing


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", ["pointer", "const pointer"])
@pytest.mark.parametrize("name", ["bytearray", "array"])
@pytest.mark.parametrize("others", [0, 1, 8])
def test_memory_is_held_for_the_call_and_no_longer(make_calling, binding, end, kind, name, others):
    thing = HOLDERS[name]()
    seen = []

    def body(*pointers):
        seen.append(pointers)
        with pytest.raises(BufferError):
            thing.append(1)
        return end()

    signature = f"({', '.join([kind] * (others + 1))}) -> i64"
    host, give_back = binding.host_address(body, asm_libcalls.Signature(signature), False)
    function = make_calling(host, signature)
    for _ in range(3):
        rest = [bytearray(3) for _ in range(others)]
        if end is end_normally:
            assert function(*rest, thing) == 0
        else:
            expected = Special if end is end_by_an_exception else asm_libcalls.IntegerOverflow
            with pytest.raises(expected):
                function(*rest, thing)
        for free in (*rest, thing):
            free.append(1)
    assert len(seen) == 3
    give_back()


@pytest.mark.parametrize("first", HOLDERS)
@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ("text", TypeError),
        (b"fixed", TypeError),
        (numpy.zeros(4)[::2], ValueError),
        (-1, OverflowError),
    ],
)
def test_a_refused_argument_releases_those_before_it(make, identity, first, bad, error):
    function = make(identity, "(pointer, const pointer, pointer) -> u64")
    thing = HOLDERS[first]()
    other = bytearray(4)
    owner = exporter(thing)
    before = sys.getrefcount(thing), sys.getrefcount(owner)
    for _ in range(5):
        with pytest.raises(error, match=r"argument ('c'|3)"):
            function(thing, other, bad)
        other.append(1)
    assert (sys.getrefcount(thing), sys.getrefcount(owner)) == before
    if first in ("bytearray", "array"):
        thing.append(1)


def test_each_place_of_an_argument(make):
    """Six in registers, the others on the stack; arguments of other kinds between them."""
    form = " ".join(["%s %d"] * 6).encode() + b"\0"
    parameters = ", ".join(["pointer, usize, const pointer"] + ["const pointer, i32"] * 6)
    function = make(address_of(LIBC.snprintf), f"({parameters}) -> i32")
    words = [b"one\0", bytearray(b"two\0"), memoryview(b"three\0"),
             numpy.frombuffer(b"four\0", numpy.uint8), ctypes.create_string_buffer(b"five"),
             b"six\0"]  # fmt: skip
    for target in (bytearray(100), numpy.zeros(100, numpy.uint8), (ctypes.c_char * 100)()):
        arguments = [part for i, word in enumerate(words) for part in (word, i)]
        length = function(target, 100, form, *arguments)
        expected = b"one 0 two 1 three 2 four 3 five 4 six 5"
        assert bytes(target)[: length + 1] == expected + b"\0"


@pytest.mark.parametrize("count", [15, 16, 17, 40])
def test_many_buffers(make_calling, binding, count):
    signature = f"({', '.join(['pointer'] * count)}) -> u64"
    host, give_back = binding.host_address(
        lambda *pointers: sum(pointers) & 2**64 - 1, asm_libcalls.Signature(signature), False
    )
    buffers = [bytearray(i + 1) for i in range(count)]
    expected = sum(map(buffer_address, buffers)) & 2**64 - 1
    assert make_calling(host, signature)(*buffers) == expected
    for each in buffers:
        each.append(1)
    give_back()


def test_callbacks_in_a_call(make_calling, binding):
    """qsort with a host function, a ctypes callback and a NumPy array."""
    sort = make_calling(address_of(LIBC.qsort), "(pointer, usize, usize, pointer)")
    signature = "(pointer, pointer) -> i32"

    def compare(a, b):
        x, y = (ctypes.c_double.from_address(each).value for each in (a, b))
        return (x > y) - (x < y)

    numbers = numpy.random.default_rng(3).random(50)
    expected = sorted(numbers.tolist())
    callback = asm_libcalls.Signature(signature).ctypes_prototype()(compare)
    with HostFunction(compare, signature) as host:
        for function in (host, callback):
            given = numbers.copy()
            assert sort(given, len(given), 8, function) is None
            assert given.tolist() == expected


def test_machine_code_takes_memory_itself(machine_code):
    def slow(*arguments):
        return "slow"

    text = bytearray(b"text")
    grid = numpy.zeros((2, 3))
    identity = asm_libcalls.load_code(IDENTITY)
    asm_libcalls.native_function(identity, "(pointer)")(grid)  # makes numpy.ndarray known
    for mode in MODES.values():
        for kind, things in (
            ("pointer", (text, memoryview(text), grid, grid.T, grid[1])),
            ("const pointer", (b"text", text, memoryview(b"text"), grid)),
        ):
            one = asm_libcalls.native_function(identity, f"({kind}) -> u64", slow=slow, **mode)
            more = asm_libcalls.native_function(
                identity, f"({kind}, {kind}, i64) -> u64", slow=slow, **mode
            )
            for thing in things:
                assert one(thing) == more(thing, things[0], 1) == buffer_address(thing)
                assert more(4096, thing, 1) == 4096
                assert more(thing, "text", 1) == more(thing, thing, 1.5) == "slow"
        assert asm_libcalls.native_function(identity, "(pointer)", slow=slow)(b"x") == "slow"
    text.append(1)


@frees_modules_and_classes
def test_machine_code_learns_types(machine_code):
    identity = asm_libcalls.load_code(IDENTITY)
    known = asm_libcalls.native_function(identity, "(pointer) -> u64")
    function = asm_libcalls.native_function(identity, "(pointer) -> u64", slow=lambda x: "slow")
    types = []
    for i in range(20):
        cls = type("Own", (bytearray,), {})
        types.append(weakref.ref(cls))
        for thing in (cls(b"1"), (ctypes.c_char * (i + 1))(), array.array("b", b"1")):
            address = buffer_address(thing)
            assert known(thing) == address
            assert function(thing) == address
            if type(thing) is cls:
                thing.append(1)
    del cls, thing
    gc.collect()
    assert sum(each() is not None for each in types) < 8
    # What stands for its value and not for its memory is not taken for another type.
    text = ctypes.create_string_buffer(1)
    for pointer in (ctypes.c_void_p(4096), numpy.uint64(4096)):
        assert known(pointer) == function(pointer) == 4096
    assert known(ctypes.pointer(text)) == ctypes.addressof(text)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is called from 3.12 on")
def test_machine_code_leaves_python_code_to_python(machine_code):
    class Own(bytearray):
        def __buffer__(self, flags):
            return super().__buffer__(flags)

    identity = asm_libcalls.load_code(IDENTITY)
    thing = Own(b"1")
    assert asm_libcalls.native_function(identity, "(pointer) -> u64")(thing)
    function = asm_libcalls.native_function(identity, "(pointer) -> u64", slow=lambda x: "slow")
    assert function(thing) == "slow"


def test_memory_is_held_while_other_threads_run(binding, monkeypatch, machine_code):
    function = maker_of("releasing the GIL", binding, monkeypatch)(
        address_of(LIBC.read), "(i32, pointer, usize) -> i64"
    )
    end, other_end = os.pipe()
    target = bytearray(8)
    began = threading.Event()

    def write():
        began.wait()
        try:
            while True:  # until the other thread holds it
                target.append(1)
                target.pop()
                time.sleep(0.001)
        except BufferError:
            held.append(True)
        os.write(other_end, b"12345")

    held = []
    writer = threading.Thread(target=write)
    writer.start()
    began.set()
    count = function(end, target, 5)
    writer.join()
    for each in (end, other_end):
        os.close(each)
    assert (count, held, target[:5]) == (5, [True], b"12345")
    target.append(1)


# --- Python code that runs in a conversion -------------------------------------------------------


def test_an_index_runs_while_buffers_before_it_are_held(make, identity):
    thing = bytearray(8)
    function = make(identity, "(pointer, i64) -> u64")

    def grow():
        with pytest.raises(BufferError):
            thing.append(1)

    assert function(thing, Index(1, grow)) == buffer_address(thing)
    thing.append(1)


def test_what_a_conversion_closes_is_not_passed(make, identity):
    """However the arguments are ordered."""
    for parameters, order in (("(pointer, i64)", 1), ("(i64, pointer)", -1)):
        function = make(identity, f"{parameters} -> u64")
        host = HostFunction(print, "()")
        arguments = [host, Index(1, host.close)]
        with pytest.raises(ValueError, match="the HostFunction is closed"):
            function(*arguments[::order])
    instance = asm_libcalls.Instance()
    function = make(identity, "(vmctx, i64) -> u64")
    with pytest.raises(ValueError, match="the Instance is closed"):
        function(instance, Index(1, instance.close))
    box = VMExternRef("x")
    with pytest.raises(ValueError, match="the VMExternRef was dropped"):
        make(identity, "(externref, i64) -> u64")(box, Index(1, box.drop))


def test_a_conversion_that_raises_or_calls_again(make, identity):
    function = make(identity, "(pointer, i64) -> u64")
    thing = bytearray(8)

    def fail():
        raise Special

    with pytest.raises(Special):
        function(thing, Index(1, fail))
    thing.append(1)
    depth = []

    def again():
        depth.append(1)
        if len(depth) < 20:
            assert function(thing, Index(1, again)) == buffer_address(thing)

    assert function(thing, Index(1, again)) == buffer_address(thing)
    assert len(depth) == 20
    thing.append(1)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ is called from 3.12 on")
class TestOwnBuffers:
    class Own:
        def __init__(self, memory, during=lambda: None):
            self.memory, self.during = memory, during
            self.released = 0

        def __buffer__(self, flags):
            self.during()
            return memoryview(self.memory)

        def __release_buffer__(self, view):
            self.released += 1
            view.release()

    @pytest.mark.parametrize("end", ENDS)
    def test_each_is_released_once(self, make_calling, binding, end):
        signature = "(pointer, const pointer) -> i64"
        host, give_back = binding.host_address(
            lambda a, b: end(), asm_libcalls.Signature(signature), False
        )
        function = make_calling(host, signature)
        one, two = self.Own(bytearray(4)), self.Own(b"abc")
        if end is end_normally:
            function(one, two)
        else:
            with pytest.raises((Special, asm_libcalls.Trap)):
                function(one, two)
        assert (one.released, two.released) == (1, 1)
        one.memory.append(1)
        give_back()

    def test_it_may_do_anything(self, make, identity):
        function = make(identity, "(pointer, pointer, pointer) -> u64")
        first = bytearray(8)
        host = HostFunction(print, "()")
        with pytest.raises(ValueError, match="the HostFunction is closed"):
            function(first, host, self.Own(bytearray(1), host.close))
        first.append(1)

        def fail():
            raise Special

        with pytest.raises(Special):
            function(first, None, self.Own(bytearray(1), fail))
        first.append(1)
        inner = self.Own(bytearray(1), lambda: function(first, bytearray(1), None))
        assert function(first, inner, None) == buffer_address(first)
        first.append(1)

    def test_read_only_and_refusing(self, make, identity):
        function = make(identity, "(pointer) -> u64")
        with pytest.raises(TypeError, match=r"must be writable memory, .* got read-only Own"):
            function(self.Own(b"abc"))

        def refuse():
            raise BufferError("not now")

        with pytest.raises(ValueError, match=r"argument .*: not now"):
            function(self.Own(bytearray(3), refuse))


# --- objects of the runtime ----------------------------------------------------------------------


def test_an_externref_is_kept_for_the_call(make_calling, binding):
    """Also if the function that it calls drops it."""
    box = VMExternRef({"a": 1})
    values = []

    def body(pointer):
        box.drop()
        values.append(VMExternRef.clone_from_raw(pointer).value)

    host, give_back = binding.host_address(body, asm_libcalls.Signature("(externref)"), False)
    raw = box.as_raw()
    make_calling(host, "(externref)")(box)
    assert values == [{"a": 1}]
    assert box.closed
    with pytest.raises(ValueError, match="no live externref"):
        VMExternRef.clone_from_raw(raw)
    give_back()


def test_an_own_object_passes_itself(make, identity):
    asked = []

    class Own:
        def __init__(self, answer):
            self.answer = answer

        def __native_address__(self, kind):
            asked.append(kind)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    owners = {
        "pointer": "an owner of an address",
        "const pointer": "an owner of an address",
        "vmctx": r"an asm_libcalls\.Instance",
        "anyfunc": "a FuncRef or an export",
    }
    for kind, owner in owners.items():
        function = make(identity, f"({kind}) -> u64")
        assert function(Own(4096)) == 4096
        assert function(Own((4096, "kept"))) == 4096
        assert asked[-1] == kind
        with pytest.raises(TypeError, match=f"argument .*(?: or|,) {owner}"):
            function(Own(NotImplemented))
        with pytest.raises(OverflowError, match="argument "):
            function(Own(-1))
        for error in (ValueError("gone"), TypeError("never")):
            with pytest.raises(type(error), match=f"argument .*: {error}"):
                function(Own(error))


# --- what a host function returns ----------------------------------------------------------------


@pytest.mark.parametrize("name", pointers())
def test_a_host_function_returns_an_address(binding, name):
    thing, address = ALL[name]
    for kind in ("pointer", "const pointer"):
        signature = asm_libcalls.Signature(f"() -> {kind}")
        host, give_back = binding.host_address(lambda: thing, signature, False)
        if name.startswith(("_as_parameter_", "ctypes of")) or address != 2**64:
            assert binding.entry.call(host, signature, []) == address
        give_back()


def test_a_host_function_returns_no_memory(binding):
    signature = asm_libcalls.Signature("() -> pointer")
    box = VMExternRef("x")
    for thing, kind, message in (
        (bytearray(8), "pointer", "got bytearray.*, whose memory nothing would hold"),
        (b"abc", "const pointer", "got bytes.*, whose memory nothing would hold"),
        (numpy.zeros(3), "pointer", "got ndarray.*, whose memory nothing would hold"),
        ("text", "pointer", "must be an address .*got str 'text'$"),
        (box, "externref", "must be an address that outlives the call"),
    ):
        signature = asm_libcalls.Signature(f"() -> {kind}")
        host, give_back = binding.host_address(lambda thing=thing: thing, signature, False)
        with pytest.raises(TypeError, match=f"the result of host function .*{message}"):
            binding.entry.call(host, signature, [])
        give_back()
