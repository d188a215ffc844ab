"""Exports of references, vectors and several results: machine code does what Python defines."""

import contextlib
import enum
import gc
import math
import signal
import struct
import sys
import weakref

import pytest
from in_threads import in_threads, switching_every
from jit_modules import Function, build, instantiate

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.native.call_slot import FUNCTION
from asm_libcalls.native.native_function import why_not_builtin
from asm_libcalls.runtime import externref_boxes

pytestmark = pytest.mark.usefixtures("machine_code")

TYPES = ("i32", "i64", "f32", "f64", "v128", "externref", "funcref")


class Number(enum.IntEnum):
    ONE = 1


class OwnInt(int):
    def __index__(self):
        return 99


class HasIndex:
    def __index__(self):
        return 5


class OwnReference(asm_libcalls.VMExternRef):
    def as_raw(self):
        raise AssertionError("not asked")


def numbers():
    powers = (7, 8, 15, 16, 29, 30, 31, 32, 59, 60, 61, 62, 63, 64, 89, 90, 119, 120, 127, 128, 150)
    around = [sign * 2**n + d for n in powers for sign in (1, -1) for d in (-1, 0, 1)]
    return [0, *around, True, False, Number.ONE, OwnInt(3), OwnInt(-(2**100)), HasIndex()]


def odd_values():
    dropped = asm_libcalls.VMExternRef("dropped")
    dropped.drop()
    floats = [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 1e300, 2.0**-149]
    others = [None, "text", b"bytes", [], (), object(), type, Ellipsis, 1j]
    references = [asm_libcalls.VMExternRef("kept"), OwnReference("own"), dropped]
    return numbers() + floats + others + references


def outcome(function, *arguments):
    try:
        result = function(*arguments)
    except Exception as error:
        return type(error), str(error)
    return described(result)


def described(result):
    if isinstance(result, tuple):
        return tuple(map(described, result))
    if isinstance(result, float):
        return struct.pack("d", result)
    if isinstance(result, int):
        return type(result), result
    return id(result)


def by_python(func):
    """Return the function that defines what a call does."""

    def call(*arguments):
        results = func._call(arguments, bits=False)
        return results[0] if len(results) == 1 else results or None

    return call


def is_builtin(func):
    return isinstance(getattr(func, FUNCTION, None), type(len))


@pytest.fixture
def exports():
    """Functions that return their arguments: each type alone, beside a number, and all."""
    functions = {}
    for name in TYPES:
        functions[name] = Function(f"{name} -> {name}", "local.get 00")
        functions[f"{name}, 2"] = Function(f"{name} i32 -> i32 {name}", "local.get 01 local.get 00")
    everything = " ".join(TYPES)
    body = " ".join(f"local.get {i:02x}" for i in reversed(range(len(TYPES))))
    functions["all"] = Function(f"{everything} -> {' '.join(reversed(TYPES))}", body)
    functions["nothing"] = Function("externref ->", "")
    functions["no parameters"] = Function("-> i32 externref", "41 07 d0 6f")
    functions["_declared"] = Function("->", "")
    return instantiate(functions).exports


def test_where_cells_are_laid_out_otherwise_python_makes_the_boxes(child):
    child(
        """
        from types import CellType
        from asm_libcalls.x86_64.python_functions import object_layouts
        find = object_layouts.find_member

        def find_other(cls, member):
            if cls is CellType: raise object_layouts.Unsupported("the contents have no one place")
            return find(cls, member)

        object_layouts.find_member = find_other
        from asm_libcalls.native.call_slot import FUNCTION
        from asm_libcalls.runtime import externref_boxes
        from jit_modules import Function, instantiate
        functions = {"same": Function("externref -> externref", "local.get 00")}
        same = instantiate(functions).exports["same"]
        things = [object(), "text", None, 2**70]
        for _ in range(100):
            for thing in things: assert same(thing) is thing
        assert not isinstance(getattr(same, FUNCTION, None), type(len))
        """
    )


def test_they_are_builtins(exports):
    reason = why_not_builtin()
    for name in ("v128", "externref", "funcref", "all", "i64, 2", "nothing"):
        arguments = {"all": (1, 2, 3.0, 4.0, 5, "6", None), "i64, 2": (1, 2)}.get(name, (None,))
        exports[name](*((0,) if name == "v128" else arguments))
        assert is_builtin(exports[name]) or reason
    assert exports["all"].__name__ == "all"


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", ["", ", 2"])
def test_every_value_is_converted_as_by_python(exports, name, shape):
    func = exports[name + shape]
    rest = (7,) if shape else ()
    values = odd_values()
    if name == "funcref":
        values += [exports["i32"], func, asm_libcalls.Instance().functions]
    for value in values:
        expected = outcome(by_python(func), value, *rest)
        for _ in range(2):
            assert outcome(func, value, *rest) == expected, value


def test_without_parameters(exports):
    for _ in range(3):
        assert exports["no parameters"]() == (7, None)


@pytest.mark.parametrize("count", range(4))
def test_a_wrong_count_is_refused_as_by_python(exports, count):
    for name in ("externref", "v128", "i32, 2", "all", "nothing"):
        arguments = (None,) * count
        result = outcome(exports[name], *arguments)
        expected = outcome(by_python(exports[name]), *arguments)
        # CPython itself checks the count of one argument.
        assert result == expected or (
            len(exports[name].type.params) == 1 and result[0] is TypeError
        )
        with pytest.raises(TypeError):
            exports[name](1, keyword=2)


def test_the_first_argument_that_is_wrong_is_named(exports):
    good = [1, 2, 3.0, 4.0, 5, object(), None]
    bad = ["a", "b", "c", "d", "e", None, 7]
    for i in range(len(good)):
        arguments = good[:i] + bad[i:]
        expected = outcome(by_python(exports["all"]), *arguments)
        assert outcome(exports["all"], *arguments) == expected


def test_all_types_at_once(exports):
    thing = object()
    arguments = (-1, 2**63, 0.5, -0.0, -1, thing, exports["i32"])
    results = exports["all"](*arguments)
    assert results == (exports["i32"], thing, 2**128 - 1, -0.0, 0.5, -(2**63), -1)
    assert results[1] is thing
    assert results[0] is exports["i32"]


def test_no_reference_is_lost_or_gained(exports):
    thing, text = object(), "text" * 3
    reference = asm_libcalls.VMExternRef(text)
    func = exports["all"]
    calls = [
        lambda: exports["externref"](thing),
        lambda: exports["externref"](reference),
        lambda: exports["nothing"](thing),
        lambda: exports["externref, 2"](thing, 3),
        lambda: func(1, 2, 3.0, 4.0, 2**127, thing, func),
        lambda: outcome(func, 1, 2, 3.0, 4.0, 2**128, thing, func),
        lambda: outcome(func, 1, 2, 3.0, 4.0, 0, thing, thing),
        lambda: exports["funcref"](func),
    ]
    for call in calls:
        call()
    gc.collect()

    def counts():
        kept = (thing, text, func, exports["all"], None, *exports.values())
        return [sys.getrefcount(each) for each in kept if each is not None]

    before, boxes, owners = counts(), externref_boxes.live_count(), reference.strong_count()
    for call in calls:
        for _ in range(100):
            call()
    gc.collect()
    assert counts() == before
    assert externref_boxes.live_count() == boxes
    assert reference.strong_count() == owners == 1


def test_an_object_that_code_keeps_has_the_box_as_long_as_that_does():
    """So many that machine code's own boxes are used up, and Python fills them again."""
    module = build(
        {
            "set": Function("i32 externref ->", "local.get 00 local.get 01 table.set 00"),
            "get": Function("i32 -> externref", "local.get 00 table.get 00"),
        },
        tables=[b"\x6f\x00\xac\x02"],  # 300 externrefs
    )
    instance = toy_jit.Instance(toy_jit.Module(module))
    exports = instance.exports

    class Thing:
        pass

    boxes = externref_boxes.live_count()
    things = [Thing() for _ in range(300)]
    seen = [weakref.ref(thing) for thing in things]
    for i, thing in enumerate(things):
        exports["set"](i, thing)
    assert all(exports["get"](i) is thing for i, thing in enumerate(things))
    del things, thing
    gc.collect()
    assert all(reference() is not None for reference in seen)
    for i in range(300):
        exports["set"](i, None)
    instance.gc()  # beside other threads, what the code has read is kept until then
    assert not any(reference() for reference in seen)
    assert externref_boxes.live_count() == boxes


def test_a_trap_and_an_exception_drop_the_boxes():
    def host(value):
        if value is None:
            raise LookupError("of the host")
        return value

    functions = {
        "trap": Function("externref v128 -> externref i32", "unreachable"),
        "call": Function("externref -> externref", "local.get 00 call 00"),
    }
    instance = instantiate(functions, {"host": "externref -> externref"}, {"host": host})
    exports = instance.exports
    thing = object()
    exports["call"](thing)
    instance.gc()
    boxes, count = externref_boxes.live_count(), sys.getrefcount(thing)
    for _ in range(10):
        with pytest.raises(asm_libcalls.Trap) as caught:
            exports["trap"](thing, 1)
        assert caught.value.wasm_backtrace[0].function_name == "trap"
        with pytest.raises(LookupError, match="of the host"):
            exports["call"](None)
        assert exports["call"](thing) is thing
    del caught
    gc.collect()
    instance.gc()  # beside other threads, what the host function returned is kept until then
    assert externref_boxes.live_count() == boxes
    assert sys.getrefcount(thing) == count


def test_a_closed_instance_refuses(exports):
    instance = instantiate({"f": Function("externref v128 -> v128 externref",
                                          "local.get 01 local.get 00")})  # fmt: skip
    f, thing = instance.exports["f"], object()
    assert f(thing, 3) == (3, thing)
    boxes = externref_boxes.live_count()
    instance.close()
    for call in (f, by_python(f)):
        with pytest.raises(ValueError, match="closed"):
            call(thing, 3)
    assert externref_boxes.live_count() == boxes


def test_a_call_may_call_again():
    inner = []

    def host(value):
        if len(inner) < 20:
            inner.append(value)
            return exports["f"](value, 2**100 + len(inner))[1]
        return value

    exports = instantiate(
        {"f": Function("externref v128 -> v128 externref", "local.get 01 local.get 00 call 00")},
        {"host": "externref -> externref"},
        {"host": host},
    ).exports
    thing = object()
    assert exports["f"](thing, 1) == (1, thing)
    assert inner == [thing] * 20


def test_functions_of_other_instances_are_kept():
    table = build(
        {
            "pass": Function("funcref -> funcref", "local.get 00"),
        }
    )
    exports = toy_jit.Instance(toy_jit.Module(table)).exports
    others = [
        instantiate({"f": Function("-> i32", f"i32.const {i:02x}")}).exports["f"] for i in range(9)
    ]
    for _ in range(3):
        for other in others:
            assert exports["pass"](other) is other
    kept = [weakref.ref(other.instance) for other in others]
    assert all(each() is not None for each in kept)
    del others, other
    gc.collect()
    assert all(each() is not None for each in kept)  # as long as the instance that got them


def test_a_destructor_may_do_anything(exports):
    """The last reference to an argument may go with the call, and run Python code there."""
    seen = []

    class Thing:
        def __del__(self):
            seen.append(exports["externref"](seen) is seen)

    for _ in range(5):
        exports["nothing"](Thing())
        exports["nothing"](asm_libcalls.VMExternRef(Thing()))
    gc.collect()
    assert seen == [True] * 10


def test_a_reference_that_is_dropped_during_the_call():
    reference = asm_libcalls.VMExternRef(value := object())

    def drop():
        reference.drop()

    exports = instantiate(
        {"f": Function("externref -> externref", "call 00 local.get 00")},
        {"drop": "->"},
        {"drop": drop},
    ).exports
    boxes = externref_boxes.live_count()
    assert exports["f"](reference) is value
    gc.collect()
    assert externref_boxes.live_count() == boxes - 1


class _Interrupted(Exception):
    pass


def test_a_signal_handler_that_raises_loses_nothing(exports):
    def handle(number, frame):
        raise _Interrupted

    def call_often():
        for _ in range(20_000):  # an exception in a destructor does not end it
            exports["externref, 2"](thing, 1)

    thing = object()
    exports["externref, 2"](thing, 1)
    boxes, count = externref_boxes.live_count(), sys.getrefcount(thing)
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for _ in range(20):
            with contextlib.suppress(_Interrupted):
                signal.setitimer(signal.ITIMER_REAL, 0.002)
                call_often()
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    asm_libcalls.VMExternRef(1).drop()  # gives back what Python code has left
    assert externref_boxes.live_count() == boxes
    assert sys.getrefcount(thing) == count


def test_threads_share_functions_boxes_and_objects():
    """Each is inside a store in turn, while objects and boxes are of several stores."""

    def run(number):
        own = exports[number % 2]
        for i in range(2000):
            assert own["externref, 2"](things[i % 3], i) == (i, things[i % 3])
            assert own["externref"](shared) is things[0]
            assert own["externref"](number + i * 1000) == number + i * 1000
            assert own["funcref, 2"](own["nothing"], i)[1] is own["nothing"]

    body = "local.get 01 local.get 00"
    functions = {
        "externref": Function("externref -> externref", "local.get 00"),
        "externref, 2": Function("externref i32 -> i32 externref", body),
        "funcref, 2": Function("funcref i32 -> i32 funcref", body),
        "nothing": Function("->", ""),
    }
    exports = [instantiate(functions).exports for _ in range(2)]
    things = [object() for _ in range(3)]
    shared = asm_libcalls.VMExternRef(things[0])
    run(0)
    boxes, counts = externref_boxes.live_count(), [sys.getrefcount(thing) for thing in things]
    with switching_every(1e-5):
        in_threads(run, range(8))
    asm_libcalls.VMExternRef(1).drop()  # gives back what Python code has left
    assert externref_boxes.live_count() == boxes
    assert [sys.getrefcount(thing) for thing in things] == counts
    assert shared.strong_count() == 1
