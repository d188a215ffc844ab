"""Compiled code is stopped from outside: by signals, by ``interrupt()``, by a time limit."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest
import wasm_builder as wasm
from child_process import environment
from interruptions import at_every_point
from jit_modules import EXTERNREFS, MEMORY, Function, instantiate

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.toy_jit.runtime import interrupts
from asm_libcalls.toy_jit.runtime import watcher as watching
from asm_libcalls.toy_jit.runtime.interrupts import watcher

pytestmark = pytest.mark.usefixtures("machine_code")

ENDLESS = {
    "loop": Function("->", "loop 40 br 00 end"),
    "count": Function(
        "i32 -> i32",
        "loop 40 local.get 00 i32.const 01 i32.add local.tee 00 br_if 00 end i32.const 00",
    ),
    "calls": Function("->", "loop 40 call 03 br 00 end"),
    "_empty": Function("->", ""),
    "results": Function("-> i32 i32", "loop 40 br 00 end i32.const 01 i32.const 02"),
}
NAMES = [name for name in ENDLESS if not name.startswith("_")]


def after(seconds, function):
    thread = threading.Timer(seconds, function)
    thread.start()
    return thread


@pytest.mark.parametrize("name", ["loop", "calls", "results"])
def test_another_thread_interrupts(name):
    instance = instantiate(ENDLESS)
    timer = after(0.1, instance.interrupt)
    with pytest.raises(asm_libcalls.Interrupt, match=r"^interrupt") as caught:
        instance.exports[name]()
    timer.join()
    assert caught.value.wasm_backtrace[-1].function_name == name
    assert instance.exports["count"](-1) == 0  # it can go on


def test_an_interrupt_waits_for_the_next_call():
    instance = instantiate(ENDLESS)
    instance.interrupt()
    with pytest.raises(asm_libcalls.Interrupt):
        instance.exports["count"](-1)
    assert instance.exports["count"](-1) == 0


# What code without frame pointers may have in rbp when it calls Python.
OTHER_WORDS_IN_RBP = {
    "a small number": "48c7c5 40000000",  # mov rbp, 64
    "an odd number": "48c7c5 41000000",
    "below the stack": "4889e5 4881ed 00001000",  # mov rbp, rsp; sub rbp, 1 << 20
    "above the stack": "4883cdff 4883e5f8",  # or rbp, -1; and rbp, -8
    "its own address": "4889e5 48896d00",  # mov rbp, rsp; mov [rbp], rbp
    "two that point to each other": "4889e5 488d4508 488928 48894500",
}


@pytest.mark.parametrize("word", OTHER_WORDS_IN_RBP)
def test_a_caller_is_interrupted_across_code_without_frame_pointers(child, word):
    """The walk that looks for its frames reads live stack alone, and ends."""
    child(
        f"""
        import asm_libcalls
        from asm_libcalls import HostFunction, catch_traps, load_code
        from jit_modules import Function, instantiate

        callee = instantiate({{"loop": Function("->", "loop 40 end")}})
        inner = HostFunction(callee.exports["loop"], "()")
        # push rbp; sub rsp, 16; set rbp; mov rax, inner; call rax; add rsp, 16; pop rbp; ret
        code = bytes.fromhex("55 4883ec10 {OTHER_WORDS_IN_RBP[word]} 48b8")
        code += inner.address.to_bytes(8, "little") + bytes.fromhex("ffd0 4883c410 5d c3")
        between = catch_traps(load_code(code), "()")

        def host():
            caller.interrupt()
            between()

        run = Function("->", "call 00")
        caller = instantiate({{"run": run}}, {{"host": "->"}}, {{"host": host}})
        for _ in range(3):
            try:
                caller.exports["run"]()
            except asm_libcalls.Interrupt:
                pass
            else:
                raise AssertionError("not interrupted")
            between()
        """,
        timeout=60,
    )


def test_an_interrupt_is_for_one_instance():
    module = instantiate(ENDLESS).module
    first, second = toy_jit.Instance(module), toy_jit.Instance(module)
    first.interrupt()
    assert second.exports["count"](-1) == 0
    with pytest.raises(asm_libcalls.Interrupt):
        first.exports["count"](-1)


def test_no_interrupt_is_lost():
    instance = instantiate({"add": Function("i32 -> i32", "loop 40 end local.get 00 call 01"),
                            "_id": Function("i32 -> i32", "local.get 00")})  # fmt: skip
    add = instance.exports["add"]
    done = []

    def interrupt():
        while not done:
            heard.clear()
            asked.append(1)
            instance.interrupt()
            heard.wait(60)

    asked = []
    heard = threading.Event()
    thread = threading.Thread(target=interrupt)
    thread.start()
    interrupts = 0
    deadline = time.monotonic() + 240
    while interrupts < 500 and time.monotonic() < deadline:
        try:
            add(1)
        except asm_libcalls.Interrupt:
            interrupts += 1
            heard.set()
    done.append(True)
    heard.set()
    thread.join()
    assert interrupts == 500


def test_a_time_limit():
    instance = instantiate(ENDLESS)
    start = time.monotonic()
    with pytest.raises(asm_libcalls.Interrupt), instance.time_limit(0.1):
        instance.exports["loop"]()
    assert time.monotonic() - start > 0.09
    with instance.time_limit(60):
        assert instance.exports["count"](-1) == 0
    with instance.time_limit(0):
        time.sleep(0.05)
    assert instance.exports["count"](-1) == 0  # what did not happen in time is called off


class Raised(Exception):
    pass


@pytest.fixture
def is_stopped():
    """Have a signal's handler raise some seconds after a function has begun."""
    before = signal.getsignal(signal.SIGALRM)

    def handler(number, frame):
        raise Raised

    def is_stopped(seconds, function):
        def run():
            signal.setitimer(signal.ITIMER_REAL, seconds)
            function()

        with pytest.raises(Raised):
            run()

    signal.signal(signal.SIGALRM, handler)
    yield is_stopped
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", ["loop", "calls", "results"])
def test_a_signal_handler_stops_a_loop(name, is_stopped):
    f = instantiate(ENDLESS).exports[name]
    for _ in range(3):
        is_stopped(0.05, f)


def test_ctrl_c_stops_a_loop():
    loop = instantiate(ENDLESS).exports["loop"]
    main = threading.main_thread().ident

    def interrupted():
        timers.append(after(0.05, lambda: signal.pthread_kill(main, signal.SIGINT)))
        loop()

    timers = []
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        timers.pop().join()


def test_a_signal_stops_code_that_python_calls_through_the_host(is_stopped):
    inner = instantiate(ENDLESS)
    outer = instantiate(
        {"f": Function("->", "call 00")}, {"h": "->"}, {"h": inner.exports["loop"].call_bits}
    )
    is_stopped(0.1, outer.exports["f"])


def test_a_signal_stops_code_that_a_host_function_came_back_to(is_stopped):
    functions = {"f": Function("->", "call 00 loop 40 br 00 end")}
    instance = instantiate(functions, {"h": "->"}, {"h": lambda: time.sleep(0.3)})
    is_stopped(0.6, instance.exports["f"])


def test_a_signal_stops_code_of_an_imported_function(is_stopped):
    library = instantiate(ENDLESS).exports
    outer = instantiate({"f": Function("->", "call 00")}, {"loop": "->"}, library)
    is_stopped(0.1, outer.exports["f"])


def test_a_handler_that_returns_changes_nothing():
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        count = instantiate(ENDLESS).exports["count"]
        while len(seen) < 3:
            assert count(-300_000_000) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_handler_that_collects_leaves_what_frames_hold():
    """Every place where code is interrupted has a stack map: parameters, locals, operands."""

    class Marker:
        pass

    markers = []

    def make():
        markers.append(weakref.ref(marker := Marker()))
        return marker

    functions = {
        # A local and an operand below a loop, which no Python object keeps alive.
        "f": Function(
            "externref -> i32 externref externref externref",
            "i32.const 09 call 00 local.set 01 call 00 "
            "loop 40 i32.const 00 i32.load 02 00 i32.eqz br_if 00 end "
            "local.get 01 local.get 00",
            "externref",
        ),
    }
    exports = [wasm.exported("memory", 2, 0)]
    instance = instantiate(functions, {"h": "-> externref"}, {"h": make}, exports=exports, **MEMORY)
    collections = []

    def collect(*_):
        instance.gc()
        collections.append([marker() is not None for marker in markers])
        stop[0] = 1  # the loop ends by it, and so never before it

    before = signal.signal(signal.SIGALRM, collect)
    try:
        for _ in range(100):
            markers.clear()
            argument = Marker()
            stop = memoryview(instance.exports["memory"])
            stop[0] = 0
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            results = instance.exports["f"](argument)
            assert results == (9, markers[1](), markers[0](), argument)
            if [True, True] in collections:  # in the loop, as it mostly is
                break
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [True, True] in collections
    assert all(map(all, collections))
    del results
    instance.gc()
    assert not any(marker() for marker in markers)


def test_parameters_are_kept_where_a_function_begins():
    """The check of a prologue has a stack map too: here the code is stopped in each of them."""

    class Marker:
        pass

    def make():
        made.append(weakref.ref(marker := Marker()))
        instance.runtime.check_soon()
        return marker

    made = []
    functions = {
        "f": Function("-> externref", "call 00 call 02"),
        "_g": Function("externref -> externref", "local.get 00", "externref i32"),
    }
    instance = instantiate(functions, {"h": "-> externref"}, {"h": make}, **EXTERNREFS)
    seen = []

    def profile(frame, event, argument):
        if made and event == "call" and frame.f_code.co_name == "interrupted":
            instance.gc()
            seen.append(made[-1]() is not None)

    sys.setprofile(profile)
    try:
        result = instance.exports["f"]()
    finally:
        sys.setprofile(None)
    assert result is made[0]()
    assert seen == [True]


def wait_for_the_end_of_the_watcher():
    deadline = time.monotonic() + 30
    while watcher.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not watcher.running


def test_the_watcher_is_there_while_it_is_needed():
    wait_for_the_end_of_the_watcher()
    count = instantiate(ENDLESS).exports["count"]
    assert not watcher.running
    count(-1)
    assert watcher.running
    wait_for_the_end_of_the_watcher()


def test_threads_that_are_not_the_main_one_start_no_watcher():
    wait_for_the_end_of_the_watcher()
    count = instantiate(ENDLESS).exports["count"]
    seen = []
    thread = threading.Thread(target=lambda: seen.append((count(-1), watcher.running)))
    thread.start()
    thread.join()
    assert seen == [(0, False)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("by", ["main", "thread"])
def test_a_forked_child_is_stopped_too(child, by):
    done = child(
        f"""
        import os, signal, sys, threading, warnings
        warnings.simplefilter("error")
        from toy_jit.test_interrupts import *
        instance = instantiate(ENDLESS)
        instance.exports["count"](-100_000_000)

        def work():
            pid = os.fork()
            if pid == 0:
                def handler(*_):
                    raise Raised
                signal.signal(signal.SIGALRM, handler)
                deadline = time.monotonic() + 5

                def wait():
                    # Not in the try itself: there CPython 3.13.0 does not always catch it.
                    while time.monotonic() < deadline:
                        pass

                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.1)
                    wait()
                except Raised:
                    pass
                else:
                    os._exit(8)
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.1)
                    instance.exports["loop"]()
                except Raised:
                    os._exit(7)
                os._exit(1)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

        if {by!r} == "main":
            work()
        else:
            warnings.simplefilter("default")  # of a fork where there are threads: there are
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        timer = threading.Timer(0.1, instance.interrupt)
        timer.start()
        try:
            instance.exports["loop"]()
        except asm_libcalls.Interrupt:
            print("interrupted")
        """
    )
    child_status, then = done.stdout.splitlines()
    assert then == "interrupted"
    if child_status == "8" and by == "thread":
        pytest.skip("this Python calls no signal handlers in a child that a thread has forked")
    assert child_status == "7"


def test_a_fork_within_a_host_function(child):
    done = child(
        """
        import os, signal
        from toy_jit.test_interrupts import *

        def fork():
            pid = os.fork()
            if pid:
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                print(status, flush=True)
                signal.setitimer(signal.ITIMER_REAL, 0.2)
            else:
                signal.setitimer(signal.ITIMER_REAL, 0.2)

        def handler(*_):
            raise Raised

        signal.signal(signal.SIGALRM, handler)
        functions = {"f": Function("->", "call 00 loop 40 br 00 end")}
        parent = os.getpid()
        try:
            instantiate(functions, {"h": "->"}, {"h": fork}).exports["f"]()
        except Raised:
            if os.getpid() == parent:
                print("stopped")
            else:
                os._exit(5)
        """
    )
    assert done.stdout == "5\nstopped\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_whose_only_thread_ends_within_a_host_function_ends(child):
    """The watcher's thread does not keep it alive, and reads no record of the thread that ended."""
    done = child(
        """
        import os, sys, threading, warnings
        warnings.simplefilter("ignore")  # of forks where there are threads
        from toy_jit.test_interrupts import *

        def fork():
            process = os.fork()
            if not process:
                sys.exit()  # ends the thread
            for _ in range(200):
                if os.waitpid(process, os.WNOHANG)[0]:
                    return
                time.sleep(0.05)
            print(os.listdir(f"/proc/{process}/task"))
            os.kill(process, signal.SIGKILL)

        f = instantiate({"f": Function("->", "call 00")}, {"h": "->"}, {"h": fork}).exports["f"]
        instantiate(ENDLESS).exports["count"](-1)  # the main thread begins to be watched
        for _ in range(12):
            thread = threading.Thread(target=f)
            thread.start()
            thread.join()
        """
    )
    assert done.stdout == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_has_one_watcher(child):
    done = child(
        """
        import os
        from toy_jit.test_interrupts import *

        def fork():
            process = os.fork()
            if not process:
                time.sleep(0.2)
                os._exit(len(os.listdir("/proc/self/task")))
            print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

        instantiate({"f": Function("->", "call 00")}, {"h": "->"}, {"h": fork}).exports["f"]()
        """
    )
    assert done.stdout == "2\n"


@pytest.mark.parametrize(
    "around",
    [
        "instance.exports['loop']()",
        # asyncio sets a wake-up descriptor and a handler of its own.
        """async def main():
                asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)
                instance.exports['loop']()
            asyncio.run(main())""",
    ],
    ids=["plain", "asyncio"],
)
def test_ctrl_c_ends_a_program(tmp_path, around):
    source = f"""
        import asyncio, signal
        from toy_jit.test_interrupts import *
        instance = instantiate(ENDLESS)
        try:
            print("ready", flush=True)
            {around}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        # asyncio takes the first one for a wish to cancel the task, which is not waiting. There is
        # time between them: the next one must not strike a program that is about to say it.
        for pause in (0.3, 2, 30, 30):
            if not select.select([process.stdout], [], [], pause)[0]:
                process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def wait_until_it_ends():
    while watcher.running:
        time.sleep(0.001)


def test_a_handler_that_raises_while_code_is_entered_leaves_later_signals_to_the_watcher():
    """An entry with interrupts in its record does not start the watcher."""
    empty = instantiate({"empty": Function("->", "")}).exports["empty"]
    empty()
    record = interrupts.current_record()

    def strike():
        raise KeyboardInterrupt

    def operation():
        try:
            empty()
        except KeyboardInterrupt:
            return "struck"

    def scene():
        wait_until_it_ends()
        assert not record.interrupts
        return operation, strike

    def check(outcome, number):
        assert outcome == "struck", number
        assert watcher.running or not record.interrupts, number
        empty()
        assert watcher.running, number

    assert at_every_point(scene, check) > 20


@pytest.fixture
def no_thread(monkeypatch):
    """Refuse to start threads: return the context in which that holds."""

    @contextlib.contextmanager
    def refusing():
        def refuse(*arguments):
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(watching._thread, "start_new_thread", refuse)
            yield

    return refusing


def test_where_no_thread_can_be_started_the_next_entry_tries_again(no_thread):
    empty = instantiate({"empty": Function("->", "")}).exports["empty"]
    empty()
    wait_until_it_ends()
    with no_thread():
        empty()
    assert not watcher.running
    empty()
    assert watcher.running


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_none_can_be_started_after_a_fork_the_next_entry_does(no_thread):
    empty = instantiate({"empty": Function("->", "")}).exports["empty"]
    empty()
    watcher._pause()
    interrupts.current_record().interrupts = 1  # the entry came after the watcher's last look
    with no_thread(), pytest.raises(RuntimeError, match="can't start new thread"):
        watcher._resume()
    assert not watcher.running
    empty()
    assert watcher.running


def test_a_handlers_runtime_error_is_not_taken_for_a_refusal():
    empty = instantiate({"empty": Function("->", "")}).exports["empty"]
    empty()

    def strike():
        raise RuntimeError("the handler's")

    def scene():
        wait_until_it_ends()
        return empty, strike

    outcomes = []

    def check(outcome, number):
        outcomes.append(outcome)

    assert at_every_point(scene, check, package=watching.__name__) > 10
    # At one point at most: right after the call that starts the thread.
    assert [isinstance(each, RuntimeError) for each in outcomes].count(False) <= 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="no handlers run in such a child")
@pytest.mark.parametrize("main", ["waits", "runs"])
def test_a_fork_of_another_thread_within_a_host_function(child, main):
    """The child's main thread is that one, and has not been watched before."""
    done = child(
        f"""
        import os, signal, threading
        from toy_jit.test_interrupts import *

        def fork():
            pid = os.fork()
            if pid:
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                raise Raised
            signal.setitimer(signal.ITIMER_REAL, 0.3)

        def handler(*_):
            raise KeyError

        def work():
            time.sleep(0.2)
            try:
                forking.exports["f"]()
            except KeyError:
                os._exit(7)
            except Raised:
                endless.interrupt()

        signal.signal(signal.SIGALRM, handler)
        functions = {{"f": Function("->", "call 00 loop 40 br 00 end")}}
        forking = instantiate(functions, {{"h": "->"}}, {{"h": fork}})
        endless = instantiate(ENDLESS)
        thread = threading.Thread(target=work)
        thread.start()
        if {main!r} == "runs":
            try:
                endless.exports["loop"]()
            except asm_libcalls.Interrupt:
                print("interrupted")
        thread.join()
        """,
        timeout=60,
    )
    assert done.stdout == "7\n" + "interrupted\n" * (main == "runs")
