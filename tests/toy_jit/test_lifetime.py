"""Lifetimes: externrefs in frames, instances and their code, threads with their own."""

import gc
import os
import sys
import threading
import weakref
from pathlib import Path

import pytest
import wasm_builder as wasm
from free_threading import frees_modules_and_classes
from in_threads import in_threads
from jit_modules import EXTERNREFS, FUNCREFS, MEMORY, Function, build, instantiate
from process_maps import mappings

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.native.call_slot import FUNCTION
from asm_libcalls.runtime import transit
from asm_libcalls.runtime.activations_table import CHUNK_SIZE
from asm_libcalls.runtime.instance import DEFAULT_STACK_MAP_REGISTRY
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.link import code_map

pytestmark = pytest.mark.usefixtures("machine_code")


class Marker:
    pass


class Markers:
    """Makes objects that only compiled code holds, and records whether they live."""

    def __init__(self):
        self.references = []

    def __call__(self):
        marker = Marker()
        self.references.append(weakref.ref(marker))
        return marker

    def alive(self):
        return [reference() is not None for reference in self.references]


def frames(body, results="externref", locals_="", **parts):
    """An instance whose f runs `body`: call 00 makes a marker, call 01 collects and notes."""
    make = Markers()
    noted = []

    def collect():
        instance.gc()
        noted.append(make.alive())

    functions = {
        "f": Function(f"-> {results}", body, locals_),
        "_take": Function("externref externref -> externref", "call 01 local.get 01"),
    }
    imports = {"make": "-> externref", "collect": "->", "pass": "externref -> externref"}
    given = {"make": make, "collect": collect, "pass": lambda value: value}
    instance = instantiate(functions, imports, given, **parts)
    return instance, make, noted


def test_collecting_at_any_moment_loses_nothing():
    """A signal's handler may collect between any two instructions of Python's."""
    functions = {
        "through": Function("externref externref -> externref", "local.get 00 drop local.get 01"),
        "swap": Function("externref externref -> externref externref", "local.get 01 local.get 00"),
        "host": Function("externref -> externref", "local.get 00 call 00"),
        "hosts": Function("externref -> externref externref", "local.get 00 call 01"),
        "made": Function("-> externref externref", "call 02 call 02"),
    }
    imports = {
        "one": "externref -> externref",
        "two": "externref -> externref externref",
        "make": "-> externref",
    }
    markers = Markers()
    given = {"one": lambda value: value, "two": lambda value: (value, markers()), "make": markers}
    instance = instantiate(functions, imports, given)
    exports = instance.exports
    collections = 0

    def trace(frame, event, argument):
        nonlocal collections
        frame.f_trace_opcodes = True
        collections += 1
        instance.gc()
        return trace

    def run():
        first, second = Marker(), Marker()
        assert exports["through"](first, second) is second
        assert exports["swap"](first, second) == (second, first)
        assert exports["swap"].call_bits(first, None) == (None, first)
        assert exports["host"](first) is first
        assert exports["hosts"](first)[0] is first
        assert len({*exports["made"]()}) == 2

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(before)
    assert collections > 1000
    instance.gc()
    assert not any(markers.alive())
    assert len(instance.runtime.activations_table) == 0
    assert not transit.roots()


@pytest.mark.parametrize(
    ("body", "locals_", "noted"),
    [
        # In an operand slot, below other operands, in a local, in both; in an argument.
        ("call 00 call 01", "", [[True]]),
        ("call 00 i32.const 01 call 00 call 01 drop drop", "", [[True, True]]),
        ("call 00 local.set 00 call 01 local.get 00", "externref", [[True]]),
        ("call 00 local.tee 00 call 01 drop local.get 00", "externref", [[True]]),
        ("call 00 call 00 call 04", "", [[True, True]]),  # parameters are locals, to the end
        ("call 00 call 00 call 04 call 01", "", [[True, True], [False, True]]),
        # Dropped, or overwritten: it dies.
        ("call 00 drop call 01 ref.null 6f", "", [[False]]),
        ("call 00 local.set 00 ref.null 6f local.set 00 call 01 ref.null 6f", "externref",
         [[False]]),
        ("call 00 drop call 00 call 01", "", [[False, True]]),
        # In a table and in a global it is owned.
        ("i32.const 00 call 00 table.set 00 call 01 i32.const 00 table.get 00 call 01", "",
         [[True], [True]]),
        ("call 00 global.set 00 call 01 global.get 00 call 01 ref.null 6f global.set 00", "",
         [[True], [True]]),
        # Through the host, whose frame lets it go.
        ("call 00 call 02 call 01", "", [[True]]),
        # In blocks, whose operands stay in their slots.
        ("call 00 block 40 loop 40 call 01 end end call 01", "", [[True], [True]]),
        ("call 00 call 00 i32.const 01 1c 01 6f call 01", "", [[True, False]]),  # select
        # Beside a funcref, which is not counted.
        ("ref.func 03 local.set 00 call 00 call 01 local.get 00 drop", "funcref", [[True]]),
    ],
)  # fmt: skip
def test_what_a_frame_holds_survives_a_collection(body, locals_, noted):
    parts = {
        **EXTERNREFS,
        "globals_": [b"\x6f\x01\xd0\x6f\x0b"],
        "elements": [b"\x03\x00\x01\x03"],
    }
    instance, make, seen = frames(body, locals_=locals_, **parts)
    for _ in range(3):
        result = instance.exports["f"]()
        assert seen == noted
        if result is not None:
            assert any(result is reference() for reference in make.references)
        seen.clear()
        del result
        for number in range(8):
            if instance.runtime.tables:
                instance.runtime.tables[0][number] = None
        instance.gc()
        assert not any(make.alive())
        make.references.clear()


def test_thousands_of_references_are_collected_by_themselves():
    functions = {
        "f": Function(
            "i32 ->",
            "loop 40 call 00 drop local.get 00 i32.const 01 i32.sub local.tee 00 br_if 00 end",
        )
    }
    alive = [0, 0]

    class Counted:
        def __init__(self):
            alive[0] += 1
            alive[1] = max(alive)

        def __del__(self):
            alive[0] -= 1

    instance = instantiate(functions, {"make": "-> externref"}, {"make": Counted})
    instance.exports["f"](20_000)
    assert alive[1] < 2000
    instance.close()
    assert alive[0] == 0


@pytest.mark.parametrize("count", [2, 600, 1000])
def test_values_that_enter_together_are_all_kept(count):
    """The table of activations is nearly full: the second must not cost the first its life."""
    names = "externref " * count
    functions = {
        "f": Function(f"-> {names}", "call 00"),
        "g": Function(f"{names} -> {names}", "".join(f"local.get {leb(i)} " for i in range(count))),
    }
    made = []

    def make():
        made[:] = [Marker() for _ in range(count)]
        return tuple(map(Keeper, made))

    instance = instantiate(functions, {"make": f"-> {names}"}, {"make": make})
    for filled in (0, 505, 511, 512):
        instance.gc()
        table = instance.runtime.activations_table
        while len(table) < filled:
            box = asm_libcalls.VMExternRef(None)
            table.insert(box.as_raw())
        results = instance.exports["f"]()
        assert [keeper.marker for keeper in results] == made
        objects = tuple(Keeper(marker) for marker in made)
        assert all(a is b for a, b in zip(instance.exports["g"](*objects), objects, strict=True))


class Keeper:
    """An object that only a reference to it keeps."""

    def __init__(self, marker):
        self.marker = marker


def leb(number):
    return wasm.u(number).hex(" ")


# --- instances and modules


BINARY = build(
    {
        "f": Function("i32 -> i32", "local.get 00 i32.load8_u 00 00 global.get 00 drop"),
        "_g": Function("externref ->", "local.get 00 drop"),
        "many": Function("-> i32 i32", "i32.const 01 i32.const 02"),
    },
    {"h": "->"},
    **MEMORY,
    **FUNCREFS,
    globals_=[b"\x70\x00\xd2\x00\x0b"],
    elements=[b"\x00\x41\x00\x0b\x02\x00\x01"],
)


def use(module, reference_itself=True):
    """Use an instance whose host function refers to it, as they do."""
    holder = []
    instance = toy_jit.Instance(module, {"m": {"h": lambda: holder}})
    if reference_itself:
        holder.append(instance)
    assert instance.exports["f"](5) == 0
    assert instance.exports["many"]() == (1, 2)
    return weakref.ref(instance.runtime), weakref.ref(instance.exports["f"])


def test_an_instance_that_nobody_has_is_collected():
    module = toy_jit.Module(BINARY)
    references = use(module)
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_code_goes_with_the_last_that_could_run_it():
    module = toy_jit.Module(BINARY)
    address = module.code.address
    instance = toy_jit.Instance(module, {"m": {"h": print}})
    f = instance.exports["f"]
    f(1)
    del module
    del instance
    gc.collect()
    assert address in code_map._codes
    assert f(2) == 0
    with pytest.raises(asm_libcalls.HeapOutOfBounds) as caught:
        f(-1)
    assert caught.value.wasm_backtrace[0].function_name == "f"
    builtin = getattr(f, FUNCTION)
    del f
    del caught
    gc.collect()
    assert builtin(3) == 0
    del builtin
    gc.collect()
    assert address not in code_map._codes
    assert DEFAULT_STACK_MAP_REGISTRY.lookup(address + 1) is None


def test_code_stays_while_a_table_has_its_functions():
    table = asm_libcalls.Table("funcref", 1)
    source = instantiate({"seven": Function("-> i32", "i32.const 07")})
    table[0] = source.exports["seven"]
    binary = build({"f": Function("-> i32", "i32.const 00 call_indirect 00 00")})
    types_end = 8 + 2 + binary[9]
    importing = wasm.section(2, wasm.vector([wasm.imported(1, b"\x70\x00\x01")]))
    binary = binary[:types_end] + importing + binary[types_end:]
    user = toy_jit.Instance(toy_jit.Module(binary), {"m": {"i": table}})
    del source
    gc.collect()
    assert user.exports["f"]() == 7


def test_finalizers_of_garbage_may_call_it():
    """A finalizer in the cycle runs before what it calls is taken apart, in whatever order."""
    results = []

    class Calls:
        def __init__(self, instance):
            self.instance = instance
            self.f = instance.exports["f"]

        def __del__(self):
            try:
                results.append(self.f(0))
            except ValueError as error:
                results.append(str(error))

    for order in range(20):
        module = toy_jit.Module(BINARY)
        holder = []
        if order % 2:
            instance = toy_jit.Instance(module, {"m": {"h": lambda holder=holder: holder}})
            holder.append(Calls(instance))
        else:
            holder.append(None)
            instance = toy_jit.Instance(module, {"m": {"h": lambda holder=holder: holder}})
            holder[0] = Calls(instance)
        if order % 4 > 1:
            instance.exports["f"](1)
        del holder, instance, module
        gc.collect()
    assert len(results) == 20
    assert set(results) <= {0, "the Instance is closed"}


def executable_bytes():
    return sum(m.end - m.start for m in mappings() if "x" in m.permissions and not m.name)


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@frees_modules_and_classes
@pytest.mark.parametrize(
    ("what", "count"), [("instances", 3_000), ("modules", 1_000), ("cycles", 1_000)]
)
def test_thousands_leave_nothing(what, count):
    module = toy_jit.Module(BINARY)

    def run(count):
        for _ in range(count):
            made = toy_jit.Module(BINARY) if what == "modules" else module
            use(made, reference_itself=what == "cycles")

    run(500)
    gc.collect()
    before = resident(), executable_bytes(), len(code_map._codes)
    run(count)
    gc.collect()
    after = resident(), executable_bytes(), len(code_map._codes)
    assert after[0] - before[0] < 800 * count
    assert after[1] <= before[1] + (64 << 10)
    assert after[2] == before[2]


# --- threads


def test_eight_threads_with_instances_of_their_own():
    functions = {
        "sum": Function(
            "i32 -> i64",
            "loop 40 local.get 01 local.get 00 i64.extend_i32_u i64.add local.set 01 "
            "local.get 00 i32.const 01 i32.sub local.tee 00 br_if 00 end local.get 01",
            "i64",
        ),
        "through": Function("externref -> externref", "local.get 00 call 00"),
        "trap": Function("->", "unreachable"),
    }
    binary = build(functions, {"h": "externref -> externref"})
    shared = toy_jit.Module(binary)

    def work(number):
        for i in range(60):
            module = shared if i % 2 else toy_jit.Module(binary)
            seen = []
            given = {"m": {"h": lambda value, seen=seen: seen.append(value) or value}}
            instance = toy_jit.Instance(module, given)
            n = 1000 * number + i + 1
            assert instance.exports["sum"](n) == n * (n + 1) // 2
            marker = Marker()
            for _ in range(20):
                assert instance.exports["through"](marker) is marker
            assert seen == [marker] * 20
            with pytest.raises(asm_libcalls.UnreachableCodeReached) as caught:
                instance.exports["trap"]()
            assert caught.value.wasm_backtrace[0].function_name == "trap"

    in_threads(work, range(8))


def test_threads_run_side_by_side():
    """Compiled code that may take long does not hold the GIL."""
    functions = {
        "wait": Function("->", "loop 40 i32.const 00 i32.load 02 00 i32.eqz br_if 00 end"),
    }
    instance = instantiate(functions, **MEMORY, exports=[wasm.exported("memory", 2, 0)])
    view = memoryview(instance.exports["memory"])
    thread = threading.Thread(target=instance.exports["wait"])
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    view[0] = 1
    thread.join(30)
    assert not thread.is_alive()


def test_an_instance_goes_from_thread_to_thread():
    functions = {
        "deep": Function(
            "i32 -> i32",
            "local.get 00 i32.eqz if 7f i32.const 00 else local.get 00 i32.const 01 i32.sub "
            "call 00 i32.const 01 i32.add end",
        )
    }
    deep = instantiate(functions).exports["deep"]
    results = []
    for stack_size in (256 << 10, 64 << 20, 1 << 20):
        before = threading.stack_size(stack_size)
        thread = threading.Thread(target=lambda: results.append(deep_or_overflow(deep)))
        thread.start()
        threading.stack_size(before)
        thread.join()
    assert results == ["overflow", 20_000, "overflow"]
    assert deep(1000) == 1000


def deep_or_overflow(deep):
    try:
        return deep(20_000)
    except asm_libcalls.StackOverflow:
        return "overflow"


def _fill_activations_table(instance, table, get):
    for number in range(CHUNK_SIZE - len(instance.runtime.activations_table)):
        table[3] = number
        assert get() == number
    assert len(instance.runtime.activations_table) == CHUNK_SIZE


def test_table_get_calls_python_only_where_the_activations_table_is_full():
    functions = {
        "f": Function("-> externref", "i32.const 03 table.get 00"),
        "at": Function("i32 -> externref", "local.get 00 table.get 00"),
    }
    exports = [wasm.exported("table", 1, 0)]
    instance = instantiate(functions, exports=exports, tables=[b"\x6f\0\x08"])
    table, f, at = (instance.exports[name] for name in ("table", "f", "at"))
    called = []
    sys.setprofile(lambda frame, event, argument: called.append(frame.f_code.co_name))
    try:
        found = [at(0), f()]
        table[3] = thing = Marker()
        del called[:]
        found += [f(), f(), at(3)]
        calls = [name for name in called if name == "_table_get"]
    finally:
        sys.setprofile(None)
    assert found == [None, None, thing, thing, thing]
    assert not calls
    assert len(instance.runtime.activations_table) == 1  # the newest entry is not repeated
    for index in (8, 2**32 - 1):
        with pytest.raises(asm_libcalls.TableOutOfBounds):
            at(index)
    _fill_activations_table(instance, table, f)
    things = [Marker() for _ in range(3 * CHUNK_SIZE)]
    for each in things:
        table[3] = each
        assert f() is each
    references = [*map(weakref.ref, things)]
    del found, thing, things, each
    table[3] = None
    instance.gc()
    assert [reference() for reference in references] == [None] * len(references)
    table.close()
    with pytest.raises(ValueError, match="the Table is closed"):
        f()


RETURNING = {
    "table": ("i32.const 03 table.get 00", ("_table_get", "insert_returned", "enter")),
    "global": ("global.get 00", ("enter",)),
}


@pytest.mark.parametrize("how", ["collects", "calls again", "collects in a host function"])
@pytest.mark.parametrize(
    ("place", "where"), [(p, name) for p, (_, names) in RETURNING.items() for name in names]
)
def test_a_reference_on_its_way_survives_what_a_signal_handler_collects(place, where, how):
    """On its way to native code, and back: after the builtin `enter`, which `call_bits` calls."""
    body = RETURNING[place][0]
    exports = [wasm.exported("table", 1, 0), wasm.exported("global", 3, 0)]
    instance = instantiate(
        {"f": Function("-> externref", body)},
        exports=exports, tables=[b"\x6f\0\x08"], globals_=[b"\x6f\1\xd0\x6f\x0b"],
    )  # fmt: skip
    other = instantiate({"g": Function("->", "call 00")}, {"h": "->"}, {"h": instance.gc})
    f, table, global_ = (instance.exports[name] for name in ("f", "table", "global"))
    if where in ("_table_get", "insert_returned"):  # where machine code leaves the rest to Python
        _fill_activations_table(instance, table, f)
    thing = Marker()
    table[3] = global_.value = thing
    reference = weakref.ref(thing)
    del thing
    collected = []

    def handler(frame, event, argument):  # may run wherever a signal handler may
        returns = {"return": frame.f_code.co_name, "c_return": getattr(argument, "__name__", "")}
        if returns.get(event) == where:
            sys.setprofile(None)
            table[3] = global_.value = None
            if how == "calls again":
                assert f() is None
            if how == "collects in a host function":
                other.exports["g"]()
            instance.gc()
            collected.append(True)

    sys.setprofile(handler)
    try:
        (result,) = f.call_bits()
    finally:
        sys.setprofile(None)
    assert collected
    assert type(result) is Marker
    del result
    instance.gc()
    assert reference() is None


def act_at(number, act, operation):
    """Call `act` at the n-th call or return of a Python function during an operation.

    Return the operation's result, and the number of these events.
    """
    events = 0

    def handler(frame, event, argument):
        nonlocal events
        events += event != "c_call"
        if events == number:
            sys.setprofile(None)
            act()

    sys.setprofile(handler)
    try:
        result = operation()
    finally:
        sys.setprofile(None)
    return result, events


@pytest.mark.parametrize("then", ["returns", "collects", "calls again", "calls another"])
def test_closing_at_any_moment_of_a_call_loses_nothing_and_lets_nothing_in(then):
    """A signal's handler may close the instance at any call or return of Python's functions."""

    def make():
        functions = {"f": Function("externref -> externref", "local.get 00 call 00")}
        imports = {"h": "externref -> externref"}
        return instantiate(functions, imports, {"h": lambda value: value})

    another = make().exports["f"]
    marker = Marker()
    closed = "the Instance is closed"

    def result(f):
        try:
            return f(marker)
        except ValueError as error:
            return str(error)

    def attempt(number):
        """Close at this event; return whether there were so many."""
        instance = make()
        f = instance.exports["f"]

        def act():
            instance.close()
            if then == "collects":
                gc.collect()  # releases the references of closed instances
            if then == "calls again":
                assert result(f) in (marker, closed)
            if then == "calls another":
                assert another(marker) is marker
                assert result(f) in (marker, closed)

        found, events = act_at(number, act, lambda: result(f))
        assert found in (marker, closed), number
        if events < number:
            assert found is marker
            return False
        gc.collect()
        assert result(f) == closed, number
        assert another(marker) is marker
        assert result(f) == closed, number
        return True

    attempts = 0
    step = 1 if HAS_GIL else 7  # there every collection looks at all objects
    gc.collect()
    gc.freeze()  # the collections below look at the new objects only
    try:
        while attempt(attempts + 1):
            attempts += step
            gc.collect()  # a closed instance that still exists would make further events
    finally:
        gc.unfreeze()
    assert attempts > 100
    assert not transit.roots()


# Python prints what a handler raises in a generator or destructor that ends meanwhile.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("does", ["raises", "calls"])
def test_nothing_in_the_refusal_of_a_call_lets_the_next_one_in(does):
    """A handler that runs while a closed instance refuses a call may do anything."""

    def make():
        return instantiate({"f": Function("-> i32", "i32.const 07")}).exports["f"]

    def result(f):
        try:
            return f.call_bits()
        except ValueError as error:
            return str(error)

    another, f = make(), make()
    assert result(f) == (7,)
    f.instance.owner.close()

    def attempt(number):
        """Do it at this event; return whether there were so many."""

        def act():
            if does == "raises":
                raise KeyboardInterrupt
            assert result(another) == (7,)
            assert result(f) == "the Instance is closed"

        try:
            refusal, events = act_at(number, act, lambda: result(f))
            assert refusal == "the Instance is closed"
        except KeyboardInterrupt:
            events = number
        assert result(another) == (7,)
        assert result(f) == "the Instance is closed", number
        return events >= number

    attempts = 0
    while attempt(attempts + 1):
        attempts += 1
    assert attempts > 20


def test_an_instance_is_freed_after_a_thread_was_started(child):
    """From then on CPython 3.13 never frees modules in a build without the GIL."""
    child(
        """
        import gc, threading, weakref
        import asm_libcalls
        from jit_modules import Function, instantiate

        thread = threading.Thread(target=lambda: None)
        thread.start()
        thread.join()
        identity = asm_libcalls.load_code(bytes.fromhex("4889f8c3"))

        def export():
            instance = instantiate({"f": Function("-> i32", "i32.const 07")})
            assert instance.exports["f"]() == 7
            return instance

        def native_function():
            function = asm_libcalls.native_function(identity, "(i64) -> i64", slow=Slow())
            assert function("text") is None
            return function.__self__

        class Slow:
            seen = []

            def __init__(self):
                self.seen.append(weakref.ref(self))

            def __call__(self, *arguments):
                return None

        references = [weakref.ref(make()) for make in (export, native_function)]
        gc.collect()
        assert references[0]() is None
        assert Slow.seen[0]() is None
        """
    )
