"""gevent: WebAssembly in many greenlets, which sleep, wait and are killed in host functions."""

import signal
import threading
import time

import pytest
from jit_modules import Function, instantiate

import asm_libcalls

gevent = pytest.importorskip("gevent")

Event = pytest.importorskip("gevent.event").Event
Pool = pytest.importorskip("gevent.pool").Pool
ThreadPool = pytest.importorskip("gevent.threadpool").ThreadPool

pytestmark = pytest.mark.usefixtures("machine_code")

# divide(n) = n / wait(n)
DIVIDE = {"divide": Function("i32 -> i32", "local.get 00 local.get 00 call 00 i32.div_s")}


def divider(wait):
    return instantiate(DIVIDE, {"wait": "i32 -> i32"}, {"wait": wait}).exports["divide"]


def sleep(number):
    gevent.sleep(number % 7 / 1000)
    return number % 5


def outcome(divide, number):
    try:
        return divide(number)
    except ZeroDivisionError:
        return "trap"


def expected(number):
    return number // (number % 5) if number % 5 else "trap"


@pytest.mark.parametrize("shared", [True, False], ids=["one instance", "an instance each"])
def test_greenlets_that_sleep_in_host_functions(shared):
    one = divider(sleep)
    pool = Pool(50)
    found = pool.map(lambda i: outcome(one if shared else divider(sleep), i), range(200))
    assert found == [expected(i) for i in range(200)]


def test_timeouts_and_kills_unwind():
    divide = divider(lambda number: gevent.sleep(60) or 1)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        divide(1)
    workers = [gevent.spawn(divide, i) for i in range(10)]
    gevent.sleep(0)
    gevent.killall(workers)
    assert all(isinstance(worker.value, gevent.GreenletExit) for worker in workers)
    assert divider(lambda number: 2)(10) == 5


def test_a_call_that_another_greenlet_lets_go_on():
    event = Event()
    worker = gevent.spawn(divider(lambda number: event.wait(60) and 2), 10)
    gevent.sleep(0)
    assert divider(lambda number: event.set() or 1)(3) == 3
    assert worker.get(timeout=60) == 5


def test_the_pool_of_threads():
    pool = ThreadPool(3)
    waits = divider(lambda number: pool.spawn(lambda: number % 5).get())
    assert [outcome(waits, i) for i in range(20)] == [expected(i) for i in range(20)]

    def in_a_thread(number):
        inner = [gevent.spawn(outcome, divider(sleep), number + i) for i in range(3)]
        return [worker.get() for worker in inner]

    found = [pool.spawn(in_a_thread, number) for number in range(6)]
    assert [job.get() for job in found] == [
        [expected(number + i) for i in range(3)] for number in range(6)
    ]
    pool.kill()


def test_the_time_limit_of_one_leaves_the_others_alone():
    endless = instantiate(
        {"spin": Function("->", "loop 40 call 00 br 00 end")},
        {"yield": "->"},
        {"yield": lambda: gevent.sleep(0.001)},
    )
    others = [gevent.spawn(outcome, divider(sleep), i) for i in range(1, 5)]
    spinning = gevent.spawn(endless.exports["spin"])
    with endless.time_limit(0.1), pytest.raises(asm_libcalls.Interrupt):
        spinning.get(timeout=60)
    assert [other.get(timeout=60) for other in others] == [expected(i) for i in range(1, 5)]


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
def test_ctrl_c_arrives_while_greenlets_wait_and_one_computes():
    def interrupt():
        time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)

    waiting = gevent.spawn(outcome, divider(lambda number: gevent.sleep(0.4) or 2), 10)
    gevent.sleep(0)
    spin = instantiate({"spin": Function("->", "loop 40 br 00 end")}).exports["spin"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = gevent.get_hub().threadpool.spawn(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            spin()
    finally:
        signal.signal(signal.SIGINT, before)
    assert waiting.get(timeout=60) == 5
    thread.get()
