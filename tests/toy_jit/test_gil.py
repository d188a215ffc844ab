"""Exports without loops and calls keep the GIL; the others let other threads run.

Python forces no thread to release the GIL here, so a thread that waits for it runs exactly when
another one releases it.
"""

import contextlib
import threading
import time

import pytest
import wasm_builder as wasm
from in_threads import switching_every
from jit_modules import Function, instantiate

import asm_libcalls
from asm_libcalls import toy_jit
from asm_libcalls.steps import HAS_GIL

pytestmark = pytest.mark.usefixtures("machine_code")

COUNT = "loop 40 local.get 00 i32.const 01 i32.sub local.tee 00 br_if 00 end local.get 00"
FUNCTIONS = {
    "count": Function("i32 -> i32", COUNT),
    "call": Function("i32 -> i32", "local.get 00 call 00"),
    "add": Function("i32 -> i32", "local.get 00 i32.const 01 i32.add"),
    # Of a function that has no loop: n + (n - 1) + ... calls itself, twice at each step.
    "tree": Function(
        "i32 -> i32",
        "local.get 00 if 7f local.get 00 i32.const 01 i32.sub call 03 "
        "local.get 00 i32.const 01 i32.sub call 03 i32.add else i32.const 01 end",
    ),
    "divide": Function("i64 -> i64", "local.get 00 i64.const 03 i64.div_s"),
    "trap at once": Function("i32 -> i32", "unreachable"),
    "for ever": Function("->", "loop 40 br 00 end"),
    "trap": Function("i32 -> i32", "loop 40 local.get 00 i32.const 01 i32.sub local.tee 00 "
                                   "br_if 00 end unreachable"),
}  # fmt: skip


@pytest.fixture
def waiting():
    """A context in which another thread waits for the GIL; what it gives says if it has run."""

    @contextlib.contextmanager
    def wait():
        lock, ran = threading.Lock(), []
        lock.acquire()

        def run():
            with lock:
                ran.append(True)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.01)  # it waits for the lock by now, or else for the GIL
        with switching_every(1000):
            lock.release()
            yield ran
        thread.join()

    return wait


def keeps_gil(waiting, function, *arguments, times=50_000):
    """Return whether calls keep the GIL, but for such as come while signals are looked for.

    True where there is no GIL.
    """
    for _ in range(20):
        with waiting() as ran:
            for _ in range(times):
                function(*arguments)
            kept = not ran
        if kept or not HAS_GIL:
            return True
    return False


def lets_run(waiting, function, *arguments):
    """Return whether calls release the GIL."""
    with waiting() as ran:
        deadline = time.monotonic() + 60
        while not ran and time.monotonic() < deadline:
            function(*arguments)
        return bool(ran)


@pytest.mark.skipif(not HAS_GIL, reason="there is no GIL to keep")
@pytest.mark.parametrize("name", ["add", "divide"])
def test_what_has_no_loop_and_no_call_keeps_it(waiting, name):
    assert keeps_gil(waiting, instantiate(FUNCTIONS).exports[name], 1)


@pytest.mark.parametrize("argument", [1, 10**6])
@pytest.mark.parametrize("name", ["count", "call"])
def test_others_release_it(waiting, name, argument):
    assert lets_run(waiting, instantiate(FUNCTIONS).exports[name], argument)


def test_functions_that_call_themselves_release_it(waiting):
    assert lets_run(waiting, instantiate(FUNCTIONS).exports["tree"], 16)


def test_a_trap_leaves_it_as_it_was(waiting):
    instance = instantiate(FUNCTIONS)
    for argument in (1, 1000) * 20:
        for name in ("trap", "trap at once"):
            with pytest.raises(asm_libcalls.UnreachableCodeReached):
                instance.exports[name](argument)
        assert instance.exports["add"](3) == 4
        assert instance.exports["count"](3) == 0
    assert keeps_gil(waiting, instance.exports["add"], 3)


def test_an_instance_that_another_calls(waiting):
    called = instantiate(FUNCTIONS)
    caller = instantiate(
        {
            "call": Function("i32 -> i32", "local.get 00 call 00"),
            "for ever": Function("->", "call 01"),
        },
        {"count": "i32 -> i32", "for ever": "->"},
        {name: called.exports[name] for name in ("count", "for ever")},
    )
    assert lets_run(waiting, caller.exports["call"], 10**6)
    timer = threading.Timer(0.05, called.interrupt)
    timer.start()
    with pytest.raises(asm_libcalls.Interrupt):
        caller.exports["for ever"]()
    timer.join()


def test_a_host_function_in_between(waiting):
    """A call may leave the instance in any state: the loop after it can be stopped."""
    depth = []

    def host():
        if len(depth) < 3:
            depth.append(True)
            instance.exports["count"](1)
            instance.exports["count"](10**5)
            with pytest.raises(asm_libcalls.UnreachableCodeReached):
                instance.exports["trap"](1)
            instance.exports["host then loop"](1)

    functions = {
        "count": Function("i32 -> i32", COUNT.replace("call 00", "call 01")),
        "trap": FUNCTIONS["trap"],
        "host then loop": Function("i32 -> i32", f"call 00 {COUNT}"),
        "host then for ever": Function("->", "call 00 loop 40 br 00 end"),
    }
    instance = instantiate(functions, {"host": "->"}, {"host": host})
    for argument in (1, 10**6):
        depth.clear()
        assert instance.exports["host then loop"](argument) == 0
        assert len(depth) == 3
    depth.clear()
    timer = threading.Timer(0.05, instance.interrupt)
    timer.start()
    with pytest.raises(asm_libcalls.Interrupt):
        instance.exports["host then for ever"]()
    timer.join()


@pytest.mark.parametrize("name", ["fill", "copy", "init"])
def test_operations_on_memory_release_it(waiting, name):
    bodies = {
        "fill": "i32.const 00 i32.const 01 local.get 00 memory.fill 00",
        "copy": "i32.const 00 i32.const 01 local.get 00 memory.copy 00 00",
        "init": "i32.const 00 i32.const 00 local.get 00 memory.init 00 00",
    }
    instance = instantiate(
        {name: Function("i32 ->", bodies[name])},
        memories=[b"\x00\x40"],
        data=[b"\x01" + wasm.sized(bytes(1 << 21))],
        data_count=1,
    )
    assert lets_run(waiting, instance.exports[name], (1 << 20) + 1)


def test_other_threads_call_at_the_same_time():
    """Each has instances of its own; short calls, long ones and traps, and none loses the GIL."""
    module = instantiate(FUNCTIONS).module
    errors = []

    def work(seed):
        try:
            instance = toy_jit.Instance(module)
            for i in range(300):
                assert instance.exports["count"](1 + (i * seed) % 40) == 0
                assert instance.exports["tree"](i % 7) == 2 ** (i % 7)
                with pytest.raises(asm_libcalls.UnreachableCodeReached):
                    instance.exports["trap"](1 + i % 30)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
