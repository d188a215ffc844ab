"""Time limits: their values, the calls that they cover, and that they hold to their end."""

import contextlib
import datetime
import math
import os
import sys
import threading
import time
import warnings
from decimal import Decimal
from fractions import Fraction

import pytest
import wasm_builder as wasm
from interruptions import at_every_point
from jit_modules import Function, build, instantiate

import asm_libcalls
from asm_libcalls import Interrupt, toy_jit
from asm_libcalls.toy_jit.runtime.interrupts import watcher
from asm_libcalls.toy_jit.runtime.watcher import Watcher

pytestmark = pytest.mark.usefixtures("machine_code")

ENDLESS = Function("->", "loop 40 br 00 end")
FUNCTIONS = {"endless": ENDLESS, "nothing": Function("->", "")}
CALLER = {"call": Function("->", "call 00"), "on": Function("->", "call 00 loop 40 br 00 end")}


def caller_of(function):
    return instantiate(CALLER, {"f": "->"}, {"f": function})


class Number:
    def __init__(self, **special):
        self.__class__ = type("Number", (Number,), special)


def numpy_number(name, value):
    numpy = pytest.importorskip("numpy")
    return getattr(numpy, name)(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: 0, lambda: 0.01, lambda: Decimal("0.01"), lambda: Fraction(1, 100), lambda: -0.0,
        lambda: numpy_number("float32", 0.01), lambda: numpy_number("uint8", 0),
        lambda: Number(__float__=lambda self: 0.01), lambda: Number(__index__=lambda self: 0),
    ],
)  # fmt: skip
def test_numbers_limit(make):
    instance = instantiate(FUNCTIONS)
    with pytest.raises(Interrupt), instance.time_limit(make()):
        instance.exports["endless"]()
    module = toy_jit.Module(build(FUNCTIONS, start=0))
    with pytest.raises(Interrupt):
        toy_jit.Instance(module, time_limit=make())


@pytest.mark.parametrize("value", [1e10, math.inf, 10**400, Decimal("1e500"), 60, 2**63])
def test_what_is_never_reached_is_no_limit(value):
    instance = toy_jit.Instance(toy_jit.Module(build(FUNCTIONS, start=1)), time_limit=value)
    with instance.time_limit(value):
        instance.exports["nothing"]()


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, TypeError, "must be a number of seconds, got NoneType"),
        ("0.5", TypeError, "must be a number of seconds, got str"),
        (b"1", TypeError, "must be a number of seconds, got bytes"),
        ([1], TypeError, "must be a number of seconds, got list"),
        (1j, TypeError, "must be a number of seconds, got complex"),
        (datetime.timedelta(1), TypeError, "must be a number of seconds, got timedelta"),
        (float, TypeError, "must be a number of seconds, got type"),
        (Number(__float__=lambda self: "1"), TypeError, "must be a number of seconds: "),
        (-1, ValueError, "must be a number of seconds that is not negative, got -1"),
        (-1e-9, ValueError, "must be a number of seconds that is not negative, got -1e-09"),
        (-math.inf, ValueError, "must be a number of seconds that is not negative, got -inf"),
        (-(10**400), ValueError, "must be a number of seconds that is not negative, got an int"),
        (math.nan, ValueError, "must be a number of seconds that is not negative, got nan"),
        (Decimal("nan"), ValueError, "must be a number of seconds that is not negative, got"),
        (Decimal("snan"), ValueError, "must be a number of seconds: "),
    ],
)
def test_what_is_no_limit_is_refused(value, error, message):
    instance = instantiate(FUNCTIONS)
    with pytest.raises(error, match=rf"^time_limit\(\): seconds {message}"):
        instance.time_limit(value)
    if value is not None:
        with pytest.raises(error, match=rf"^Instance\(\): time_limit {message}"):
            toy_jit.Instance(instance.module, time_limit=value)
    instance.exports["nothing"]()


def test_an_instance_without_a_limit():
    toy_jit.Instance(toy_jit.Module(build(FUNCTIONS, start=1)), time_limit=None)


# -- what a limit covers


def through_an_import(inner):
    return caller_of(inner.exports["endless"])


def through_a_host_function(inner):
    return caller_of(inner.exports["endless"].call_bits)


def through_both(inner):
    return caller_of(through_a_host_function(inner).exports["call"])


def through_a_table(inner):
    instance = instantiate(
        {"call": Function("->", "i32.const 00 call_indirect 00 00")}, tables=[b"\x70\x00\x01"],
        exports=[wasm.exported("t", 1, 0)],
    )  # fmt: skip
    instance.exports["t"][0] = inner.exports["endless"]  # type () -> () is type 0
    return instance


WAYS = [through_an_import, through_a_host_function, through_both, through_a_table]


@pytest.mark.parametrize("way", WAYS)
def test_a_limit_covers_what_the_instance_calls(way):
    inner = instantiate(FUNCTIONS)
    outer = way(inner)
    for _ in range(3):
        with pytest.raises(Interrupt), outer.time_limit(0.05):
            outer.exports["call"]()
    inner.exports["nothing"]()


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_reaches_what_the_instance_calls(way):
    outer = way(instantiate(FUNCTIONS))
    timer = threading.Timer(0.05, outer.interrupt)
    timer.start()
    with pytest.raises(Interrupt):
        outer.exports["call"]()
    timer.join()


def test_a_limit_covers_an_instance_that_is_made_after_its_end():
    module = toy_jit.Module(build(FUNCTIONS))

    def host():
        time.sleep(0.1)
        toy_jit.Instance(module).exports["endless"]()

    outer = caller_of(host)
    with pytest.raises(Interrupt), outer.time_limit(0.02):
        outer.exports["call"]()


def test_a_limit_covers_an_instance_that_other_threads_use():
    """Other threads take no request from the thread that it is for."""
    inner = instantiate(FUNCTIONS)
    done = []

    def use():
        while not done:
            inner.exports["nothing"]()

    def host():
        time.sleep(0.1)  # the limit expires
        done.append(True)
        thread.join()
        inner.exports["endless"]()

    outer = caller_of(host)
    thread = threading.Thread(target=use)
    thread.start()
    with pytest.raises(Interrupt), outer.time_limit(0.02):
        outer.exports["call"]()
    done.append(True)


def test_another_instance_has_no_limit():
    limited, other = instantiate(FUNCTIONS), instantiate(FUNCTIONS)
    with limited.time_limit(0):
        other.exports["nothing"]()
        caller_of(other.exports["nothing"]).exports["call"]()
        with pytest.raises(Interrupt):
            limited.exports["nothing"]()


@pytest.mark.parametrize("way", ["import", "host function"])
def test_whoever_catches_the_interrupt_is_interrupted_again(way):
    inner = instantiate(FUNCTIONS)
    caught = []

    def host():
        for _ in range(5):
            try:
                inner.exports["endless"]()
            except Interrupt:
                caught.append(True)

    outer = caller_of(host)
    if way == "import":
        outer = caller_of(outer.exports["on"])
    with outer.time_limit(0.05), pytest.raises(Interrupt):
        outer.exports["on"]()
    assert len(caught) == 5


# -- nested limits, and what calls them off


def test_an_outer_limit_holds_when_an_inner_one_is_left():
    instance = instantiate(FUNCTIONS)
    with instance.time_limit(0.05):
        with instance.time_limit(100):
            time.sleep(0.2)
        with pytest.raises(Interrupt):
            instance.exports["endless"]()


def test_an_outer_limit_holds_after_an_inner_one():
    instance = instantiate(FUNCTIONS)
    with instance.time_limit(0.1):
        with pytest.raises(Interrupt), instance.time_limit(0.02):
            instance.exports["endless"]()
        with pytest.raises(Interrupt):
            instance.exports["endless"]()
    instance.exports["nothing"]()


def test_limits_of_other_instances_hold_in_between():
    inner = instantiate(FUNCTIONS)

    def host():
        with inner.time_limit(100):
            inner.exports["endless"]()

    outer = caller_of(host)
    with pytest.raises(Interrupt), outer.time_limit(0.05):
        outer.exports["call"]()
    with pytest.raises(Interrupt), inner.time_limit(0.05), outer.time_limit(100):
        outer.exports["call"]()


def test_a_limit_of_a_caller_holds_where_the_inner_one_has_expired():
    """The inner limit ends what it covers, and no more: then the outer one goes on."""
    inner = instantiate(FUNCTIONS)
    ended = []

    def host():
        with pytest.raises(Interrupt), inner.time_limit(0.02):
            inner.exports["endless"]()
        ended.append(True)
        inner.exports["endless"]()

    outer = caller_of(host)
    with pytest.raises(Interrupt), outer.time_limit(0.1):
        outer.exports["call"]()
    assert ended == [True]


@pytest.mark.parametrize("seconds", [0, 0.01, 100, math.inf])
def test_leaving_a_limit_leaves_an_interrupt(seconds):
    instance = instantiate(FUNCTIONS)
    with instance.time_limit(seconds):
        instance.interrupt()
        time.sleep(0.03)
    with pytest.raises(Interrupt):
        instance.exports["nothing"]()
    instance.exports["nothing"]()


def test_a_limit_can_be_entered_again():
    instance = instantiate(FUNCTIONS)
    limit = instance.time_limit(0.02)
    for _ in range(2):
        with pytest.raises(Interrupt), limit:
            instance.exports["endless"]()
        with pytest.raises(Interrupt), limit, limit:
            instance.exports["endless"]()
        instance.exports["nothing"]()
        with pytest.raises(RuntimeError, match="left, but not entered"):
            limit.__exit__()


def test_many_limits_at_the_same_time():
    instances = [instantiate(FUNCTIONS) for _ in range(8)]
    ended = []

    def work(instance, seconds):
        with pytest.raises(Interrupt), instance.time_limit(seconds):
            instance.exports["endless"]()
        ended.append(instance)

    threads = [
        threading.Thread(target=work, args=(instance, 0.02 * (i % 3)))
        for i, instance in enumerate(instances)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ended) == len(instances)


def test_a_thread_that_cannot_be_made_is_an_error(monkeypatch):
    """Without it the end of the limit would have no effect."""
    instance = instantiate(FUNCTIONS)

    def refuse(self, at_once):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(Watcher, "_start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"), instance.time_limit(1):
            pytest.fail("the context was entered")
    assert instance.runtime.deadlines == []


# -- start functions


def test_a_start_function_is_interrupted_by_its_module():
    module = toy_jit.Module(build(FUNCTIONS, start=0))
    other = instantiate(FUNCTIONS)
    stopped = threading.Event()

    def stop():
        while not stopped.is_set():
            module.interrupt()
            time.sleep(0.01)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Interrupt):
        toy_jit.Instance(module)
    stopped.set()
    thread.join()
    other.exports["nothing"]()


def test_a_start_function_is_interrupted_through_the_host_function_that_it_calls():
    @toy_jit.access_caller
    def publish(caller):
        timers.append(threading.Timer(0.05, caller.interrupt))
        timers[0].start()

    timers = []
    module = toy_jit.Module(
        build({"f": Function("->", "call 00 loop 40 br 00 end")}, {"h": "->"}, start=1)
    )
    with pytest.raises(Interrupt):
        toy_jit.Instance(module, {"m": {"h": publish}})
    timers[0].join()


def test_a_limit_on_the_importer_covers_a_start_function_that_a_host_function_runs():
    module = toy_jit.Module(build(FUNCTIONS, start=0))
    outer = caller_of(lambda: toy_jit.Instance(module))
    with pytest.raises(Interrupt), outer.time_limit(0.05):
        outer.exports["call"]()


# -- other worlds


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_limit_holds_in_a_forked_child(child):
    done = child(
        """
        import os, warnings
        from toy_jit.test_time_limits import *
        warnings.simplefilter("ignore")  # a fork where there are threads
        instance = instantiate(FUNCTIONS)
        with instance.time_limit(0.3):
            pid = os.fork()
            try:
                instance.exports["endless"]()
            except Interrupt:
                if not pid:
                    os._exit(5)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert done.stdout == "5\n"


def test_a_limit_holds_where_gevent_has_replaced_threads(child):
    pytest.importorskip("gevent")
    done = child(
        """
        from gevent import monkey
        monkey.patch_all()
        from toy_jit.test_time_limits import *
        instance = instantiate(FUNCTIONS)
        try:
            with instance.time_limit(0.1):
                instance.exports["endless"]()
        except Interrupt:
            print("stopped")
        """
    )
    assert done.stdout == "stopped\n"


def test_a_limit_at_the_end_of_the_program_prints_nothing(child):
    done = child(
        """
        import asm_libcalls, atexit
        from toy_jit.test_time_limits import *
        instance = instantiate(FUNCTIONS)
        limit = instance.time_limit(1e10)
        limit.__enter__()
        instance.exports["nothing"]()
        """
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert asm_libcalls.Interrupt is Interrupt


def strike():
    raise KeyError("a signal handler")


def stop_endless_code(instance):
    with pytest.raises(Interrupt), instance.time_limit(0.001):
        instance.exports["endless"]()


@pytest.mark.parametrize("is_needed", [False, True], ids=["no watcher runs", "one runs"])
@pytest.mark.parametrize("seconds", [0, 1000, math.inf])
def test_a_signal_handler_that_raises_while_a_limit_begins(is_needed, seconds):
    """The limit is not left behind, and later ones hold."""
    instance = instantiate(FUNCTIONS)
    entered = []

    def scene():
        if not is_needed:
            watcher._end()
            assert not watcher.running
        entered.append(instance.time_limit(seconds))
        return entered[-1].__enter__, strike

    def check(outcome, number):
        assert isinstance(outcome, KeyError)
        assert entered[-1]._entered == []
        assert instance.runtime.deadlines == []
        assert len(watcher._deadlines) == is_needed
        stop_endless_code(instance)

    other = instantiate(FUNCTIONS)
    with other.time_limit(1000) if is_needed else contextlib.nullcontext():
        assert at_every_point(scene, check) > 5
    entered[-1].__exit__()


def test_a_signal_handler_that_raises_while_a_limit_ends():
    """Later limits hold."""
    instance = instantiate(FUNCTIONS)

    def scene():
        limit = instance.time_limit(1000)
        limit.__enter__()
        return limit.__exit__, strike

    def check(outcome, number):
        assert isinstance(outcome, KeyError)
        # The handler may have come before the first line of the exit, so the limit may be in force.
        instance.runtime.deadlines.clear()
        watcher._deadlines.clear()
        stop_endless_code(instance)

    assert at_every_point(scene, check) > 5


@pytest.mark.parametrize("through_a_host_function", [False, True], ids=["itself", "its callee"])
def test_a_signal_handler_that_raises_while_a_limit_is_checked(
    through_a_host_function, monkeypatch
):
    """As Ctrl-C does: the limit stays in force."""
    # Python reports the exception where it comes while a generator is finalized.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    instance = instantiate(FUNCTIONS)
    call, limited = instance.exports["nothing"], instance
    if through_a_host_function:
        limited = caller_of(call)
        call = limited.exports["call"]

    def check(outcome, number):
        assert isinstance(outcome, (KeyError, Interrupt))  # the first that left the check
        with pytest.raises(Interrupt):
            call()

    with limited.time_limit(0):
        assert at_every_point(lambda: (call, strike), check) > 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_signal_handler_that_raises_during_a_fork():
    """Limits that were set before the fork hold in the parent, later ones in the child too."""
    instance = instantiate(FUNCTIONS)
    reported = []

    def fork():
        child = os.fork()
        if not child:
            status = 1
            try:
                sys.settrace(None)
                stop_endless_code(instance)
                status = 0
            finally:
                os._exit(status)
        return child

    def scene():
        limit = instance.time_limit(0.02)
        limit.__enter__()
        return fork, strike

    def check(outcome, number):
        assert os.waitstatus_to_exitcode(os.waitpid(outcome, 0)[1]) == 0
        with pytest.raises(Interrupt):
            instance.exports["endless"]()
        instance.runtime.deadlines.clear()

    with pytest.MonkeyPatch.context() as patched, warnings.catch_warnings():
        # If the handler ends the hook before the fork, Python warns of the thread that runs.
        warnings.simplefilter("ignore", DeprecationWarning)
        patched.setattr(sys, "unraisablehook", reported.append)
        assert at_every_point(scene, check, package=watcher.__module__) > 20
    assert reported


def test_the_watcher_goes_on_after_an_exception(monkeypatch):
    """Such as MemoryError: what is due is called again."""
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    errors = [MemoryError("none left")]
    done = threading.Event()

    def fail_once():
        if errors:
            raise errors.pop()
        done.set()

    watcher.add("a key", time.monotonic(), fail_once)
    assert done.wait(30)
    assert [str(each.exc_value) for each in reported] == ["none left"]


def test_two_threads_that_fork_at_once_leave_limits_in_force():
    """The second one finds the watcher ended for the first."""
    due = threading.Event()
    watcher.add("key", time.monotonic() + 0.2, due.set)
    watcher._pause()
    watcher._pause()
    assert not watcher.running
    watcher._resume()  # of the first
    assert watcher.running
    watcher._pause()
    watcher._resume()  # of the second, after a third has ended it again
    assert watcher.running
    watcher._resume()
    assert due.wait(60)
