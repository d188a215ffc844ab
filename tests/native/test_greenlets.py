"""Greenlets that switch in host functions: each has its own activations, traps and externrefs."""

import gc
import random
import sys
import threading
import weakref

import pytest
from jit_modules import Function, instantiate

import asm_libcalls
from asm_libcalls import HostFunction, catch_traps
from asm_libcalls.activation import Departure
from asm_libcalls.native import process
from asm_libcalls.native.unraisable import catch
from asm_libcalls.runtime import transit
from asm_libcalls.toy_jit.runtime import functions, host_functions, values

greenlet = pytest.importorskip("greenlet")

pytestmark = pytest.mark.usefixtures("machine_code")


class Thing:
    """An object that a weak reference can watch."""


# divide(n) = n / wait();  keep() -> make(), then wait(), and the object is still in its frame.
DIVIDE = {"divide": Function("i32 -> i32", "local.get 00 call 00 i32.div_s")}
KEEP = {"keep": Function("-> externref", "call 00 local.set 00 call 01 local.get 00", "externref")}


def switch_to_main(*arguments):
    return greenlet.getcurrent().parent.switch(*arguments)


def divider(wait=switch_to_main):
    return instantiate(DIVIDE, {"wait": "-> i32"}, {"wait": wait}).exports["divide"]


def keeper(things, wait=switch_to_main):
    def make():
        thing = Thing()
        things.add(thing)
        return thing

    return instantiate(
        KEEP,
        {"make": "-> externref", "wait": "->"},
        {"make": make, "wait": lambda: wait() and None},
    )


def started(function, *arguments):
    """Return a greenlet in which the function runs until it switches back."""
    new = greenlet.greenlet(function)
    new.switch(*arguments)
    return new


def departures():
    """Return the records of this thread, of native code that Python has not returned to."""
    record = process.machine_entry.record()
    found, address = [], record.departures if record else 0
    while address:
        found.append(Departure.from_address(address))
        address = found[-1].next
    return found


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    gc.collect()
    assert departures() == []
    with pytest.raises(ZeroDivisionError):  # traps reach their own entry
        divider(lambda: 0)(1)
    assert divider(lambda: 5)(100) == 20


@pytest.mark.parametrize("order", ["the first one first", "the last one first"])
@pytest.mark.parametrize("shared", [True, False], ids=["one instance", "an instance each"])
def test_each_gets_its_own_trap_and_result(order, shared):
    one = divider()
    outcomes = {}

    def run(number):
        try:
            outcomes[number] = (one if shared else divider())(number)
        except asm_libcalls.Trap as trap:
            outcomes[number] = trap

    workers = {number: started(run, number) for number in range(20)}
    for number in [*workers] if order.startswith("the first") else [*workers][::-1]:
        assert number not in outcomes
        workers[number].switch(number % 3)
        assert workers[number].dead
    for number, outcome in outcomes.items():
        if number % 3:
            assert outcome == number // (number % 3)
        else:
            assert isinstance(outcome, asm_libcalls.IntegerDivisionByZero)
            assert [frame.function_name for frame in outcome.wasm_backtrace] == ["divide"]


def test_an_exception_of_a_host_function_comes_back_in_its_greenlet():
    def wait():
        raise switch_to_main()

    def run(number):
        with pytest.raises(KeyError) as caught:
            divider(wait)(1)
        return caught.value.args

    workers = {number: started(run, number) for number in range(5)}
    for number in (3, 0, 4, 1, 2):
        assert workers[number].switch(KeyError(number)) == (number,)


def test_a_killed_greenlet_unwinds_its_native_frames():
    ended = []

    def run(number):
        try:
            divider()(1)
        finally:
            ended.append(number)

    workers = [started(run, number) for number in range(4)]
    workers[1].throw()  # GreenletExit
    with pytest.raises(ValueError, match="thrown"):
        workers[3].throw(ValueError("thrown"))
    assert ended == [1, 3]
    del workers[0]  # which throws GreenletExit too
    gc.collect()
    assert sorted(ended) == [0, 1, 3]
    assert len(departures()) == 1
    workers.clear()


def test_objects_in_frames_of_suspended_greenlets_stay_and_others_go():
    things = weakref.WeakSet()
    instance = keeper(things)
    workers = [started(instance.exports["keep"]) for _ in range(6)]
    for worker in workers[1::2]:
        assert type(worker.switch()) is Thing
    instance.gc()
    gc.collect()
    assert len(things) == 3  # those that were given back have gone, though others are suspended
    for worker in workers[::2]:
        assert worker.switch() in things
    instance.gc()
    gc.collect()
    assert not things


def test_an_instance_is_closed_while_a_stack_is_too_long_to_see():
    body = "local.get 00 if 40 local.get 00 i32.const 01 i32.sub call 01 else call 00 end"
    functions = {"deep": Function("i32 ->", body)}
    instance = instantiate(functions, {"wait": "->"}, {"wait": switch_to_main})
    worker = started(instance.exports["deep"], 3000)
    instance.close()
    gc.collect()
    worker.switch()
    assert worker.dead


def test_a_stack_that_is_too_long_to_copy_keeps_all():
    things = weakref.WeakSet()

    def make():
        thing = Thing()
        things.add(thing)
        return thing

    body = """
        local.get 00 if 40 local.get 00 i32.const 01 i32.sub call 02 drop else call 01 end
        call 00
    """
    functions = {"deep": Function("i32 -> externref", body)}
    imports = {"make": "-> externref", "wait": "->"}
    instance = instantiate(functions, imports, {"make": make, "wait": switch_to_main})
    worker = started(instance.exports["deep"], 3000)
    assert not departures()[0].frames
    other = instantiate(functions, imports, {"make": make, "wait": lambda: None})
    other.exports["deep"](600)
    assert len(things) > 512  # none of their frames are known
    worker.switch()
    other.gc()
    instance.gc()
    assert not things


def test_no_call_leaves_anything_behind_while_others_are_suspended():
    things = weakref.WeakSet()
    suspended = started(divider(), 1)
    instance = keeper(things, wait=lambda: None)
    for _ in range(3000):
        instance.exports["keep"]()
    assert len(instance.runtime.activations_table) <= 512
    suspended.switch(1)


def test_an_instance_is_closed_while_a_suspended_greenlet_runs_it():
    """Closing does not wait for it; it goes on when it is switched to."""
    instance = instantiate(DIVIDE, {"wait": "-> i32"}, {"wait": switch_to_main})
    worker = started(instance.exports["divide"], 12)
    instance.close()
    gc.collect()
    assert worker.switch(4) == 3
    with pytest.raises(ValueError, match="the Instance is closed"):
        instance.exports["divide"](1)


def test_nothing_collects_what_is_on_its_way_in_another_greenlet(monkeypatch):
    to_slots = values.to_slots

    def convert_and_switch(*arguments, **keywords):
        result = to_slots(*arguments, **keywords)
        if greenlet.getcurrent().parent is not None:
            switch_to_main()
        return result

    for module in (functions, host_functions):
        monkeypatch.setattr(module, "to_slots", convert_and_switch)
    # From Python (the argument), to Python and back (the result of a host function).
    passes = {"pass": Function("externref -> externref", "local.get 00 call 00")}
    instance = instantiate(passes, {"make": "externref -> externref"}, {"make": lambda _: Thing()})
    other = instantiate(DIVIDE, {"wait": "-> i32"}, {"wait": lambda: instance.gc() or 1})
    # Not by machine code, which lets nothing come in between.
    call = instance.exports["pass"]._call
    worker = greenlet.greenlet(lambda: type(call((Thing(),), bits=False)[0]))
    results = [worker.switch()]
    while not worker.dead:
        instance.gc()
        other.exports["divide"](1)  # which collects in a host function
        results.append(worker.switch())
    assert results == [(), (), Thing]
    assert not transit.roots()


@pytest.mark.parametrize("seed", range(8))
def test_random_switches_among_nested_calls(seed):
    """Greenlets recurse through WebAssembly and Python, and switch, trap, raise and collect."""
    pick = random.Random(seed)
    things = weakref.WeakSet()
    main = greenlet.getcurrent()
    log = []

    # nest(depth, thing): kept = thing; 100 / host(depth, thing); return kept
    body = "i32.const e400 local.get 00 local.get 01 call 00 i32.div_s drop local.get 01"
    functions = {"nest": Function("i32 externref -> externref", body)}

    def host(depth, thing):
        main.switch()
        kind = pick.randrange(8)
        if kind == 0:
            instances[depth % 2].gc()
        if depth and kind > 1:
            inner = Thing()
            things.add(inner)
            try:
                assert nest[pick.randrange(2)](depth - 1, inner) is inner
            except (ZeroDivisionError, KeyError) as error:
                log.append(isinstance(error, KeyError))
            main.switch()
        if kind == 6:
            return 0
        if kind == 7:
            raise KeyError(depth)
        return 1

    instances = [
        instantiate(functions, {"host": "i32 externref -> i32"}, {"host": host}) for _ in range(2)
    ]
    nest = [instance.exports["nest"] for instance in instances]

    def run():
        for _ in range(4):
            thing = Thing()
            things.add(thing)
            try:
                assert nest[pick.randrange(2)](pick.randrange(6), thing) is thing
                log.append(None)
            except (ZeroDivisionError, KeyError) as error:
                log.append(isinstance(error, KeyError))

    workers = [greenlet.greenlet(run) for _ in range(12)]
    while workers:
        worker = pick.choice(workers)
        if pick.random() < 0.005:
            worker.throw()
        else:
            worker.switch()
        workers = [worker for worker in workers if not worker.dead]
    assert {None, True, False} == set(log)
    for instance in instances:
        instance.gc()
    gc.collect()
    assert not things


def test_greenlets_of_two_threads():
    def work():
        workers = [started(divider(), number) for number in range(10)]
        return [worker.switch(2) for worker in workers]

    results = []
    threads = [threading.Thread(target=lambda: results.append(work())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[number // 2 for number in range(10)]] * 2


def test_a_switch_to_another_thread_is_refused_and_the_call_goes_on():
    there = []
    ready, done = threading.Event(), threading.Event()

    def work():
        there.append(started(switch_to_main))
        ready.set()
        done.wait(60)
        there.clear()

    def wait():
        with pytest.raises(greenlet.error):
            there[0].switch()
        return 4

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(60)
    assert divider(wait)(12) == 3
    done.set()
    thread.join()


def test_a_thread_that_ends_with_suspended_greenlets():
    kept = []
    thread = threading.Thread(target=lambda: kept.append(started(divider(), 1)))
    for _ in range(20):
        thread = threading.Thread(target=lambda: kept.append(started(divider(), 1)))
        thread.start()
        thread.join()
    del kept[:]


def test_host_functions_of_plain_native_code():
    seen = []

    def wait(number):
        seen.append(number)
        return switch_to_main(number)

    host = HostFunction(wait, "(i64) -> i64")
    calls = [
        catch_traps(host.address, host.signature),
        asm_libcalls.native_function(host.address, "(i64) -> i64"),
        asm_libcalls.native_function(host.address, "(i64) -> i64", release_gil=True),
    ]
    workers = [started(call, number) for number, call in enumerate(calls)]
    assert [worker.switch(10 * i) for i, worker in enumerate(workers)] == [0, 10, 20]
    assert seen == [0, 1, 2]
    host.close()


IMPORTED_LATE = """
    from jit_modules import Function, instantiate
    import sys

    things = {}

    def make():
        things[len(things)] = thing = object()
        return thing

    def wait():
        # Above native code that was left before greenlet was there.
        assert "greenlet" not in sys.modules
        import greenlet
        main = greenlet.getcurrent()
        workers = []
        for _ in range(4):
            worker = greenlet.greenlet(lambda: inner.exports["keep"]())
            worker.switch()
            workers.append(worker)
        for worker in (workers[2], workers[0]):
            assert worker.switch() in things.values()
        inner.gc()
        outer.gc()
        for worker in (workers[3], workers[1]):
            assert worker.switch() in things.values()

    def inner_wait():
        import greenlet
        greenlet.getcurrent().parent.switch()

    functions = {"keep": Function(
        "-> externref", "call 00 local.set 00 call 01 local.get 00", "externref")}
    imports = {"make": "-> externref", "wait": "->"}
    inner = instantiate(functions, imports, {"make": make, "wait": inner_wait})
    outer = instantiate(functions, imports, {"make": make, "wait": wait})
    inner.gc(), outer.gc()
    assert outer.exports["keep"]() is things[0]
    inner.gc(), outer.gc()
    print("done")
"""


def test_greenlet_may_be_imported_while_native_code_is_left(child):
    assert child(IMPORTED_LATE).stdout == "done\n"


def test_recursion_in_greenlets_traps():
    body = "local.get 00 if 40 local.get 00 i32.const 01 i32.sub call 01 else call 00 end"
    functions = {"descend": Function("i32 ->", body)}
    instance = instantiate(functions, {"wait": "->"}, {"wait": switch_to_main})
    descend = instance.exports["descend"]

    def run(depth):
        try:
            descend(depth)
            return "returned"
        except asm_libcalls.StackOverflow:
            return "overflow"

    shallow = [started(run, depth) for depth in (10, 100, 1000)]
    assert greenlet.greenlet(run).switch(10_000_000) == "overflow"
    assert [worker.switch() for worker in shallow] == ["returned"] * 3


WITHOUT_MACHINE_CODE = """
    import greenlet
    from asm_libcalls import HostFunction, backend_report, catch_traps

    main = greenlet.getcurrent()

    def wait(number):
        given = main.switch()
        if isinstance(given, Exception):
            raise given
        return given

    host = HostFunction(wait, "(i64) -> i64")
    call = catch_traps(host.address, "(i64) -> i64")
    outcomes = {}

    def run(number):
        try:
            outcomes[number] = call(number)
        except ValueError as error:
            outcomes[number] = repr(error)

    workers = [greenlet.greenlet(run) for _ in range(4)]
    for number, worker in enumerate(workers):
        worker.switch(number)
    for number in (1, 0, 3, 2):
        workers[number].switch(number if number % 2 else ValueError(number))
    print(sorted(outcomes.items()))
"""


@pytest.mark.parametrize("backend", ["fallback", "auto"])
def test_exceptions_find_their_greenlet_on_either_backend(child, backend):
    done = child(WITHOUT_MACHINE_CODE, variables={"ASM_LIBCALLS_BACKEND": backend})
    assert done.stdout == "[(0, 'ValueError(0)'), (1, 1), (2, 'ValueError(2)'), (3, 3)]\n"


def test_exceptions_of_destructors_that_switch_are_heard_by_those_who_listen():
    class Failing:
        def __init__(self, number):
            self.number = number

        def __del__(self):
            switch_to_main()
            raise KeyError(self.number)

    def run(number):
        heard = []
        catch(lambda: Failing(number) and None, heard)
        return [error.args for error in heard]

    before = sys.unraisablehook
    workers = [started(run, number) for number in range(3)]
    assert [worker.switch() for worker in workers] == [[(number,)] for number in range(3)]
    assert sys.unraisablehook is before
