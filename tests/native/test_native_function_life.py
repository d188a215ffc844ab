"""Native functions over time: references, collection, threads, forks, exits, and other Pythons."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import tracemalloc
import weakref

import process_maps
import pytest
from free_threading import WITHOUT_GIL, frees_modules_and_classes
from in_threads import in_threads
from interruptions import at_every_point

import asm_libcalls
from asm_libcalls import LIBCALLS, Instance
from asm_libcalls.binding import default_binding
from asm_libcalls.native import native_function as module
from asm_libcalls.native.native_function import native_function, why_not_builtin
from asm_libcalls.signatures import Signature

LIBM, LIBC = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None)


def address_of(function) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value


LDEXP, LABS = address_of(LIBM.ldexp), address_of(LIBC.labs)


@pytest.fixture(autouse=True)
def builtins(machine_code):
    assert why_not_builtin() == ""


class Callable:
    """A slow path that can be watched, and have attributes."""

    def __call__(self, *arguments):
        return arguments


# --- references ----------------------------------------------------------------------------------


def calls_of_every_kind():
    """Functions and arguments that take every way through a builtin."""
    sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
    same = default_binding().x86_64.loaded.routine("return_first_argument")
    ways = []
    for options in ({"catch": False}, {}, {"release_gil": True}):
        ldexp = native_function(LDEXP, "(f64, i32) -> f64", **options)
        labs = native_function(LABS, "(i64) -> i64", **options)
        pointer = native_function(same, "(pointer) -> pointer", **options)
        nothing = native_function(same, "(i64)", **options)
        single = native_function(same, "(f32) -> f32", **options)
        none = native_function(address_of(LIBC.getpid), "()", **options)
        ways += [
            (ldexp, (1.5e300, 2)),
            (ldexp, (1.5e300, True)),
            (ldexp, (1.5e300, 2**77)),
            (ldexp, ("x", 2)),
            (ldexp, (1.0,)),
            (labs, (-(2**62),)),
            (labs, (2**64 + 1,)),
            (labs, (None,)),
            (labs, (1, 2)),
            (pointer, (None,)),
            (pointer, (2**63,)),
            (nothing, (2**61,)),
            (single, (0.1,)),
            (none, ()),
        ]
    divide = native_function(sdiv.address, sdiv.signature)
    fail = native_function(address_of(ctypes.pythonapi.PyErr_NoMemory), "() -> pointer")
    return [*ways, (divide, (2**40, 0)), (divide, (True, 0)), (divide, (2**40, 3)), (fail, ())]


def outcome(function, arguments):
    try:
        return function(*arguments)
    except Exception as error:
        return type(error)


def left_behind(work):
    """Return the bytes of memory that are left allocated by the third call of a function."""
    traced = []
    work()
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(2):
            work()
            gc.collect()
            traced.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return traced[1] - traced[0]


def test_reference_counts_are_exact():
    ways = calls_of_every_kind()
    for function, arguments in ways:
        repeated = [object(), *arguments]
        first = outcome(function, arguments)
        watched = [function, function.__self__, *arguments, None, True, int, float, type(first)]
        before = [sys.getrefcount(each) for each in watched]
        for _ in range(2000):
            outcome(function, arguments)
        after = [sys.getrefcount(each) for each in watched]
        # Small integers, and what other threads of the test runner hold, may move by a few.
        moved = {
            repr(each): b - a
            for each, a, b in zip(watched, before, after, strict=True)
            if abs(b - a) > 50
        }
        assert moved == {}, (function, arguments)
        assert repeated


def test_calls_leave_no_memory():
    ways = calls_of_every_kind()

    def run():
        for function, arguments in ways:
            for _ in range(300):
                outcome(function, arguments)

    # 300 times the smallest object would be 7 kB a way, 350 kB in all.
    assert left_behind(run) < 20_000


@frees_modules_and_classes
def test_functions_leave_no_memory():
    def make():
        for i in range(500):
            native_function(LABS, "(i64) -> i64", name=f"f{i}", doc="x" * 1000)

    assert left_behind(make) < 20_000


def test_functions_of_one_shape_share_their_code():
    native_function(LDEXP, "(f64, i32) -> f64")
    before = [m for m in process_maps.mappings() if "x" in m.permissions]
    functions = [native_function(LDEXP, "(f64, u32) -> f64") for _ in range(1000)]
    after = [m for m in process_maps.mappings() if "x" in m.permissions]
    assert len(functions) == 1000
    assert [repr(m) for m in before] == [repr(m) for m in after]


@pytest.mark.parametrize(("last", "size"), [("u8", 640), ("pointer", 1024)])
def test_a_batch_shares_its_pages(last, size):
    kinds = ("i32", "i64", "f32", "f64", last)
    signatures = [f"({a}, {b}, {c}, i64, i32) -> {b}" for a in kinds for b in kinds for c in kinds]
    executable = [m.end - m.start for m in process_maps.mappings() if "x" in m.permissions]
    # libffi's closures, where an earlier test made some.
    both = [repr(m) for m in process_maps.mappings() if m.writable_and_executable]
    made = module.native_functions(module.Specification(LABS, s) for s in signatures)
    now = [m.end - m.start for m in process_maps.mappings() if "x" in m.permissions]
    assert len(made) == 125
    assert sum(now) - sum(executable) <= 125 * size
    assert [repr(m) for m in process_maps.mappings() if m.writable_and_executable] == both


# --- what keeps what alive -----------------------------------------------------------------------


def test_a_dropped_function_is_freed():
    slow = Callable()
    alive = weakref.ref(slow)
    function = native_function(LABS, "(i64) -> i64", slow=slow)
    seen = weakref.ref(function)
    del slow
    gc.collect()
    assert function("x") == ("x",)
    bound = function
    del function
    assert bound(None) == (None,)
    del bound
    assert seen() is None
    if WITHOUT_GIL:
        gc.collect()  # the collector counts the references to modules: PEP 703, deferred counting
    assert alive() is None


@pytest.mark.parametrize("how", ["attribute", "closure", "partial"])
def test_a_cycle_is_collected(how):
    if how == "closure":

        def make():
            def slow(*arguments):
                return function, arguments

            function = native_function(LABS, "(i64) -> i64", slow=slow)
            return function, weakref.ref(slow)
    else:

        def make():
            slow = Callable()
            target = slow if how == "attribute" else slow.__call__
            function = native_function(LABS, "(i64) -> i64", slow=target)
            slow.function = function
            return function, weakref.ref(slow)

    function, alive = make()
    assert gc.get_referents(function.__self__)
    gc.collect()
    assert alive() is not None
    assert function(-5) == 5
    del function
    gc.collect()
    assert alive() is None


def test_a_function_can_be_called_while_its_cycle_is_collected(child):
    # Finalizers run before anything is taken apart, so the function still does all it did.
    child("""
        import ctypes, gc
        from asm_libcalls.native.native_function import native_function
        labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
        got = []
        class Slow:
            def __call__(self, *arguments):
                return arguments
            def __del__(self):
                got.append((self.function(-3), self.function("x"), self.function(1.5)))
        for _ in range(100):
            slow = Slow()
            slow.function = native_function(labs, "(i64) -> i64", slow=slow)
            del slow
            gc.collect()
        assert got == [(3, ("x",), (1.5,))] * 100, got
        """)


def test_a_function_whose_slow_path_is_cleared_says_so(machine_code):
    """The garbage collector clears a cycle, and a call comes in between."""
    slow = Callable()
    before = sys.getrefcount(slow)
    one = native_function(LABS, "(i64) -> i64", slow=slow)
    two = native_function(LDEXP, "(f64, i32) -> f64", slow=slow)
    entered = native_function(LABS, "(i64) -> i64", slow=slow, catch=False)
    assert sys.getrefcount(slow) == before + 3
    clear = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object)(
        machine_code.loaded.routine("function_state_clear")
    )
    for function, fast, answer in ((one, (-5,), 5), (two, (1.5, 1), 3.0), (entered, (-5,), 5)):
        assert clear(function.__self__) == 0
        assert clear(function.__self__) == 0
        assert function(*fast) == answer
        with pytest.raises(ReferenceError, match="garbage collector"):
            function(*["x"] * len(fast))
        assert slow not in gc.get_referents(function.__self__)
    with pytest.raises(ReferenceError):
        two()
    assert sys.getrefcount(slow) == before


def test_functions_work_until_the_very_end(child):
    done = child("""
        import atexit, ctypes, sys
        from asm_libcalls.native.native_function import native_function
        labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
        function = native_function(labs, "(i64) -> i64")
        sys.keep = native_function(labs, "(i64) -> i64", slow=print)
        class Late:
            def __init__(self, function, write): self.function, self.write = function, write
            def __del__(self): self.write(1, f"late {self.function(-4)}\\n".encode())
        import os
        late = Late(function, os.write)
        sys.later = Late(native_function(labs, "(i64) -> i64", slow=print), os.write)
        cycle = Late(function, os.write); cycle.cycle = cycle
        atexit.register(lambda: print("atexit", function(-3), flush=True))
        """)
    assert done.stdout.splitlines()[0] == "atexit 3"
    assert "late 4" in done.stdout
    assert done.stderr == ""


# --- threads and processes -----------------------------------------------------------------------


def test_eight_threads():
    ways = calls_of_every_kind()
    expected = [outcome(*way) for way in ways]
    wrong = []

    def run(number):
        for _ in range(100):
            for way, answer in zip(ways, expected, strict=True):
                if outcome(*way) != answer:
                    wrong.append(way)
        # Making functions, of new shapes too, from many threads.
        for i in range(20):
            f = native_function(LABS, f"(i64{', f64' * (i % 9 + 1)}) -> i64")
            if f(-7, *[0.5] * (i % 9 + 1)) != 7:
                wrong.append(f)

    in_threads(run, range(8))
    assert wrong == []


def test_a_forked_child(child):
    child("""
        import ctypes, os
        from asm_libcalls.native.native_function import native_function
        import asm_libcalls
        labs = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p).value
        sdiv = asm_libcalls.LIBCALLS["i64_sdiv"]
        functions = [native_function(labs, "(i64) -> i64", release_gil=r) for r in (False, True)]
        divide = native_function(sdiv.address, sdiv.signature)
        pid = os.fork()
        if pid == 0:
            try:
                divide(1, 0)
            except ZeroDivisionError:
                new = native_function(labs, "(i64, i64) -> i64")
                os._exit(functions[0](-1) + functions[1](-2) + new(-4, 0))
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        """)


# --- where machine code does not serve -----------------------------------------------------------

BEHAVES = """
import ctypes, inspect, pickle, sys
import asm_libcalls
from asm_libcalls.native.native_function import native_function, why_not_builtin
libm, libc = ctypes.CDLL("libm.so.6"), ctypes.CDLL(None)
address_of = lambda f: ctypes.cast(f, ctypes.c_void_p).value
ldexp = native_function(
    address_of(libm.ldexp), "(f64, i32) -> f64", name="ldexp", doc="Scale.", parameters=["x", "i"]
)
assert type(ldexp) is type(lambda: 0), ldexp
assert ldexp(0.75, 4) == ldexp(0.75, True + 3) == 12.0
assert (ldexp.__name__, ldexp.__qualname__, ldexp.__doc__) == ("ldexp", "ldexp", "Scale.")
assert ldexp.__module__ == "__main__" and pickle.loads(pickle.dumps(ldexp)) is ldexp
assert str(inspect.signature(ldexp)) == "(x, i, /)"
for arguments, error, message in (
    (("x", 1), TypeError, "ldexp(): argument 'x' must be a real number (f64), got str 'x'"),
    ((1.0, -1j), TypeError, "ldexp(): argument 'i' must be an integer (i32), got complex (-0-1j)"),
):
    try:
        ldexp(*arguments)
    except error as raised:
        assert str(raised) == message, raised
    else:
        raise AssertionError(arguments)
held = native_function(address_of(ctypes.pythonapi.PyGILState_Check), "() -> i32")
assert held() == 1
free = native_function(address_of(ctypes.pythonapi.PyGILState_Check), "() -> i32", release_gil=True)
assert free() == 0
fail = native_function(address_of(ctypes.pythonapi.PyErr_NoMemory), "() -> pointer")
try:
    fail()
except MemoryError:
    pass
else:
    raise AssertionError("no MemoryError")
assert asm_libcalls.f64_ceil(1.5) == 2.0 and asm_libcalls.f64_ceil(True) == 1.0
try:
    asm_libcalls.i64_sdiv(1, 0)
except asm_libcalls.IntegerDivisionByZero:
    pass
else:
    raise AssertionError("no trap")
print(why_not_builtin())
assert asm_libcalls.backend_report()["functions"] == f"Python functions: {why_not_builtin()}"
"""

DIFFERENT = {
    "another implementation": (
        "sys.implementation.name = 'other'",
        "this Python is other, not CPython",
    ),
    "other integers": (
        "import types; i = sys.int_info\n"
        "sys.int_info = types.SimpleNamespace(bits_per_digit=15, sizeof_digit=2)",
        "integers of this CPython do not have digits of 30 bits",
    ),
    "no API function": (
        "import asm_libcalls.emitter.libc as c; real = c.function_address\n"
        "def missing(name):\n"
        "    if name == 'PyFloat_FromDouble': raise AttributeError('no PyFloat_FromDouble')\n"
        "    return real(name)\n"
        "import asm_libcalls; c.function_address = missing",
        "no PyFloat_FromDouble",
    ),
    "no pages": (
        "import asm_libcalls.emitter.pages as p, asm_libcalls\n"
        "def load(*what, **options): raise OSError('the system refuses')\n"
        "p.load = load",
        "the system refuses",
    ),
}


# Each part of a layout, one at a time, at other places: before the object, in it, behind it.
WRONG_OFFSETS = {
    f"{part} at {offset}": (part, offset)
    for part, offsets in {
        "object_type": (-8, 0, 4, 16, 24, 1 << 20),
        "float_value": (-16, 0, 8, 20, 32, 1 << 40),
        "module_state": (-8, 0, 8, 16, 25, 40, 88, 96, 104, 1 << 20),
    }.items()
    for offset in offsets
}

WRONG = {
    **{
        name: f"layout.{part} = {offset} if layout.{part} != {offset} else 2"
        for name, (part, offset) in WRONG_OFFSETS.items()
    },
    "each other layout of integers": "layout.integers = other",
    "integers without their size": "row.size += 8",
    "integers without their sign": "row.size -= 8; row.tagged = not row.tagged",
    "integers without their digits": "row.digits += 4",
    "integers whose digits are far away": "row.digits += 1 << 20",
    "integers whose type is elsewhere": "row.object_type += 8",
}

SIMULATE = """
import asm_libcalls.x86_64.python_functions.object_layouts as o
layout, rows = o.search(), o.INTEGER_LAYOUTS
row = rows[layout.integers]
other = next(name for name in rows if rows[name].tagged != row.tagged)
CHANGE
WHERE
"""


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_layout_is_noticed_before_anything_is_read_by_it(child, which):
    code = SIMULATE.replace("CHANGE", WRONG[which])
    found = "o.TESTED_LAYOUTS = (); o.search = lambda: layout"
    done = child(f"import sys\n{code.replace('WHERE', found)}\n{BEHAVES}")
    assert " not at byte " in done.stdout or " is not laid out as a " in done.stdout


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_layout_among_the_tested_ones_does_not_fit(child, which):
    code = SIMULATE.replace("CHANGE", WRONG[which])
    tested = (
        "o.TESTED_LAYOUTS = (layout,)\n"
        "def search(): raise o.Unsupported('no tested layout fits')\n"
        "o.search = search"
    )
    done = child(f"import sys\n{code.replace('WHERE', tested)}\n{BEHAVES}")
    assert "no tested layout fits" in done.stdout


def test_where_parts_are_not_to_be_found_once_python_functions_serve(child):
    find_all, find_none = "lambda offset: True", "lambda offset: False"
    for number, what in enumerate(
        ("the type of an object", "the value of a float", "the state of a module object")
    ):
        for finds, text in ((find_all, "at the bytes [0, 8"), (find_none, "nowhere to be found")):
            done = child(
                "import asm_libcalls.x86_64.python_functions.object_layouts as o\n"
                "o.TESTED_LAYOUTS = ()\n"
                "real = o.Samples.facts\n"
                "def facts(self):\n"
                "    result = real(self)\n"
                f"    result[{number}] = (*result[{number}][:2], {finds})\n"
                "    return result\n"
                f"o.Samples.facts = facts\n{BEHAVES}"
            )
            assert f"{what} of this CPython is {text}" in done.stdout


def test_integers_that_no_code_reads_are_left_to_python_functions(child):
    done = child(
        "import asm_libcalls.x86_64.python_functions.object_layouts as o\n"
        f"for row in o.INTEGER_LAYOUTS.values(): row.size += 4\n{BEHAVES}"
    )
    assert "integers of this CPython are laid out as in no other" in done.stdout


def test_a_module_definition_of_another_size_is_not_handed_to_python(child):
    done = child(
        "import asm_libcalls.x86_64.python_functions.object_layouts as o\n"
        f"o.ModuleDefinition.SIZE += 8\n{BEHAVES}"
    )
    assert re.search(r"a \w+ of this CPython has \d+ bytes, not \d+", done.stdout)


def test_the_report_says_that_this_python_is_newer_than_what_was_tested(child):
    child("""
        import asm_libcalls.x86_64.python_functions.object_layouts as o
        assert o.NEWEST_TESTED >= (3, 15)
        o.NEWEST_TESTED = (3, 9)
        import asm_libcalls
        report = asm_libcalls.backend_report()["functions"]
        assert report == "builtins (this CPython is newer than 3.9, the newest tested)", report
        assert type(asm_libcalls.f64_ceil) is type(len) and asm_libcalls.f64_ceil(0.5) == 1.0
        """)


@pytest.mark.parametrize("which", DIFFERENT)
def test_on_a_python_that_is_not_as_expected_python_functions_serve(child, which):
    change, reason = DIFFERENT[which]
    done = child(f"import sys\n{change}\n{BEHAVES}")
    assert reason in done.stdout


def test_without_machine_code_python_functions_serve(child):
    done = child(BEHAVES, variables={"ASM_LIBCALLS_BACKEND": "fallback"})
    assert done.stdout == "the fallback was asked for\n"


def test_without_new_pages_a_new_shape_is_a_python_function(monkeypatch):
    from asm_libcalls.emitter import pages

    known = native_function(LDEXP, "(f64, i32) -> f64")

    def refuse(image, **options):
        raise PermissionError("mprotect")

    monkeypatch.setattr(pages, "load", refuse)
    signature = "(f64, i32, i32, f32, i32, f32, pointer) -> f64"
    made = native_function(LDEXP, signature)
    assert type(made) is type(refuse)
    assert made(0.75, 2, 0, 0.0, 0, 0.0, None) == 3.0
    again = native_function(LDEXP, "(f64, i32) -> f64")
    assert type(again) is type(known) is type(len)
    monkeypatch.undo()
    assert type(native_function(LDEXP, signature)) is type(len)


def test_a_value_that_is_read_wrongly_is_noticed(machine_code, monkeypatch):
    """By functions of its type; those of other types are made."""
    from asm_libcalls.x86_64.python_functions import (
        function_maker,
        function_objects,
        function_shapes,
    )

    for probes in ({"i64": ((1.5,), ())}, {"f64": ((), (0.5,))}):
        monkeypatch.setattr(function_maker, "_PROBES", probes)
        objects = function_objects.FunctionObjects(machine_code.loaded, print, print)
        maker = function_maker.FunctionMaker(objects)
        assert "is read as" in maker.refusal()
    monkeypatch.setattr(function_maker, "_PROBES", {"u16": ((1.5,), ())})
    maker = function_maker.FunctionMaker(objects)
    shapes = [function_shapes.Shape.of(Signature(f"({kind}) -> i64")) for kind in ("u16", "i64")]
    for _ in range(2):
        with pytest.raises(function_maker.Unsupported, match="is read as"):
            maker.prepare(shapes)
    maker.prepare(shapes[1:])


# --- stencils ------------------------------------------------------------------------------------


def test_what_a_composition_lacks_is_an_error(machine_code):
    from asm_libcalls.emitter import stencils as parts
    from asm_libcalls.x86_64.python_functions import STENCIL_PREFIX, object_layouts

    pieces = parts.read(machine_code.loaded.image, STENCIL_PREFIX)
    with pytest.raises(KeyError, match="argument"):
        parts.compose("x", [parts.Part(pieces["object_vector"])])
    with pytest.raises(KeyError, match="slow"):
        parts.compose("x", [parts.Part(pieces["float64_0"], object_layouts.found().holes())])


def test_every_stencil_is_used_by_some_shape(machine_code):
    from asm_libcalls.emitter import stencils as parts
    from asm_libcalls.toy_jit.runtime import slot_functions
    from asm_libcalls.x86_64.python_functions import (
        STENCIL_PREFIX,
        function_shapes,
        object_layouts,
        slot_shapes,
    )
    from asm_libcalls.x86_64.trampolines import IN_STEP

    pieces = parts.read(machine_code.loaded.image, STENCIL_PREFIX)
    layout = object_layouts.found()
    used = set()

    class Recorder(dict):
        def __getitem__(self, name):
            used.add(name)
            return super().__getitem__(name)

        def get(self, name, default):
            used.add(name)
            return super().get(name, default)

    wide = ", ".join(["i64"] * 6 + ["f64"] * 8)
    narrow = ", ".join(["f32"] * 8)
    more = ", ".join(["i64"] * 7 + ["f64"] * 9 + ["f32"])  # than registers hold
    results = ("i8", "u8", "i16", "u16", "bool", "i32", "u32", "i64", "u64", "f32", "f64")
    for result in ("", *(f"-> {name}" for name in results)):
        for parameters in ("", "i32", "f32", wide, narrow, more):
            for enter in ("", "asm_libcalls_enter")[parameters == more :]:
                shape = function_shapes.Shape.of(Signature(f"({parameters}){result}"), enter)
                function_shapes.parts_of(Recorder(pieces), shape, layout)
    for parameters in (
        *("pointer", "const pointer", "externref"),
        "pointer, const pointer, externref, i8, f32, f64",
    ):
        for enter in ("", "asm_libcalls_enter"):
            shape = function_shapes.Shape.of(Signature(f"({parameters})"), enter)
            function_shapes.parts_of(Recorder(pieces), shape, layout)
    for guard in ("divisor_not_zero", "quotient_fits"):
        function_shapes.parts_of(
            Recorder(pieces), function_shapes.Shape.of(Signature("(i64, i64)"), "", guard), layout
        )
    for name in (n for n in pieces if n.removesuffix(IN_STEP) in LIBCALLS):
        signature = LIBCALLS[name.removesuffix(IN_STEP)].signature
        shape = function_shapes.Shape.of(signature, inline=name, vmctx_of=(Instance, "_vmctx"))
        for has_gil in (True, False):
            vmctx = (id(Instance), 16)
            function_shapes.parts_of(Recorder(pieces), shape, layout, vmctx=vmctx, has_gil=has_gil)
    types = ("i32", "i64", "f32", "f64", "v128", "externref", "funcref")
    references = slot_shapes.References({}, dict.fromkeys(slot_shapes.MEMBERS, 0))
    for parameters, results in ((types, types), ((), ()), *(((name,), (name,)) for name in types)):
        slot_shape = slot_shapes.SlotShape(parameters, results, "enter", 0, references)
        for has_gil in (True, False):
            slot_shapes.slot_parts(Recorder(pieces), slot_shape, layout, has_gil)
    used.update(stencil for _, stencil in slot_functions.ROUTINES + slot_functions.WITHOUT_GIL)
    shape = function_shapes.Shape.of(Signature(f"({', '.join(['reference'] * 6)})"))
    members = ((id(Instance), 16), (id(Instance), 24))
    function_shapes.parts_of(Recorder(pieces), shape, layout, references=members)
    used.discard("")  # asked for where nothing is inlined
    used.add("forward")  # of callable_types.py
    other = {"box_none_counted", "box_none_immortal"} - used
    assert len(other) == 1  # of another version of CPython
    assert used | other == set(pieces)


# --- signal handlers that raise ------------------------------------------------------------------


def test_nothing_is_kept_where_a_signal_handler_raises_while_one_is_made():
    """A handler may raise at any point: nothing is owned twice, or by nobody, at any of them."""
    watched = []

    def scene():
        given = [Callable()]
        watched[:] = [weakref.ref(given[0])]

        def handler():
            raise KeyError("from a signal handler")

        return lambda: native_function(LABS, "(i64) -> i64", slow=given.pop()), handler

    def check(outcome, number):
        interrupted = isinstance(outcome, KeyError)
        if interrupted:
            outcome.__traceback__ = None  # its frames have it
        assert (watched[0]() is None) == interrupted, (number, repr(outcome))

    native_function(LABS, "(i64) -> i64")  # its code is made
    assert at_every_point(scene, check) > 10
