"""A host function that is closed while it runs goes on with its callable."""

import gc
import os
import signal
import sys
import threading
import weakref

import pytest

import asm_libcalls
from asm_libcalls import HostFunction, catch_traps
from asm_libcalls.native import record_readers
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.x86_64.trampolines import READER_COUNT_SIZE


def use_freed_memory():
    """Reuse the memory that was just freed."""
    return [bytearray(b"A" * size) for size in range(16, 400, 8) for _ in range(20)]


class Callable:
    """A callable that only its host function holds."""

    def __init__(self, call):
        self._call = call

    def __call__(self, *arguments):
        return self._call(*arguments)


CASES = {
    # signature: arguments, a result that is right, some that do not fit as they are
    "(i64) -> i64": ((1,), 7, (2**63, 2**64, None)),
    "(i64, f64, i32) -> i32": ((1, 2.0, 3), -5, (2**31, "x")),
    "(f32) -> f32": ((0.5,), 0.25, (None, "x")),
    "(u64) -> u64": ((1,), 2**63 - 1, (2**64 - 1, -1)),
    "()": ((), None, ()),
}


pytestmark = pytest.mark.usefixtures("machine_code")


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("signature", CASES)
@pytest.mark.parametrize("outcome", ["result", "wrong result", "exception"])
def test_in_its_own_call(signature, outcome, reused):
    arguments, right, misfits = CASES[signature]
    others = []

    def call(*given):
        assert given == arguments
        host.close()
        assert host.closed
        gc.collect()
        if reused:  # another host function takes its place, with another result
            others.append(HostFunction(lambda: 12345, "() -> u32"))
        others.append(use_freed_memory())
        if outcome == "exception":
            raise KeyError("from the host function")
        return result

    for each in misfits if outcome == "wrong result" else [right] * 10:
        result = each
        host = HostFunction(Callable(call), signature)
        address = host.address
        held = weakref.ref(host.function)
        del host.function
        enter = catch_traps(address, signature)
        if outcome == "result":
            assert enter(*arguments) == right
        else:
            with pytest.raises(KeyError if outcome == "exception" else RuntimeError):
                enter(*arguments)
        gc.collect()
        assert held() is None  # released when the call has left
        if not reused:
            with pytest.raises(RuntimeError, match="a host function that was closed"):
                enter(*arguments)
        for other in others:
            if isinstance(other, HostFunction):
                other.close()
        others.clear()


def test_nested_calls_of_one_that_is_closed_in_the_innermost():
    depth = 0

    def call(number):
        nonlocal depth
        if number:
            return enter(number - 1) + 1
        host.close()
        use_freed_memory()
        return 100

    host = HostFunction(call, "(i64) -> i64")
    enter = catch_traps(host.address, host.signature)
    assert enter(20) == 120
    with pytest.raises(RuntimeError, match="was closed"):
        enter(0)


def test_from_another_thread_while_it_runs():
    runs, closed = threading.Event(), threading.Event()

    def call(number):
        runs.set()
        assert closed.wait(60)
        return number + 1

    def close():
        assert runs.wait(60)
        host.close()
        used.append(use_freed_memory())
        closed.set()

    used = []
    for _ in range(20):
        runs.clear()
        closed.clear()
        host = HostFunction(Callable(call), "(i64) -> i64")
        enter = catch_traps(host.address, host.signature)
        thread = threading.Thread(target=close)
        thread.start()
        assert enter(41) == 42
        thread.join()
        with pytest.raises(RuntimeError, match="was closed"):
            enter(1)


def test_threads_that_call_while_others_close():
    """Each call gives its result, or finds the function closed, or its successor."""
    interval = sys.getswitchinterval()
    hosts = [HostFunction(lambda n: n, "(i64) -> i64") for _ in range(4)]
    enters = [catch_traps(host.address, host.signature) for host in hosts]
    results, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            for enter in enters:
                try:
                    results.append(enter(3))
                except RuntimeError:
                    results.append(3)

    threads = [threading.Thread(target=call) for _ in range(3)]
    try:
        sys.setswitchinterval(1e-5)
        for thread in threads:
            thread.start()
        for _ in range(300):
            for i, host in enumerate(hosts):
                host.close()
                use_freed_memory()[:10]
                hosts[i] = HostFunction(Callable(lambda n: n), "(i64) -> i64")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert set(results) <= {3}


@pytest.mark.skipif(HAS_GIL, reason="with the GIL nothing is closed while a record is read")
def test_a_close_waits_for_threads_that_read_the_record():
    host = HostFunction(Callable(lambda n: n), "(i64) -> i64")
    enter = catch_traps(host.address, host.signature)
    assert enter(3) == 3
    (counts,) = record_readers._made[:1]
    assert not any(counts.words)  # each thread that was counted has left
    for index in range(0, len(counts.words), READER_COUNT_SIZE // 8):
        host = HostFunction(Callable(lambda n: n), "(i64) -> i64")
        held = weakref.ref(host.function)
        del host.function
        counts.words[index] = 1
        thread = threading.Thread(target=host.close)
        thread.start()
        thread.join(0.02)
        assert thread.is_alive()
        assert held() is not None
        counts.words[index] = 0
        thread.join()
        assert host.closed
        assert held() is None


@pytest.mark.skipif(HAS_GIL, reason="with the GIL nothing is closed while a record is read")
def test_a_child_does_not_wait_for_threads_that_a_fork_has_ended():
    host = HostFunction(lambda n: n, "(i64) -> i64")
    words = record_readers._made[0].words
    words[0] = 1
    try:
        child = os.fork()
        if not child:
            signal.alarm(60)
            host.close()
            os._exit(7)
    finally:
        words[0] = 0
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_the_references_of_a_call_are_dropped():
    """Thousands of calls change no count, whichever way they end."""

    def call(number):
        if number == 1:
            raise KeyError
        return "x" if number == 2 else number

    host = HostFunction(call, "(i64) -> i64")
    enter = catch_traps(host.address, host.signature)
    before = sys.getrefcount(call)
    for _ in range(1000):
        assert enter(0) == 0
        with pytest.raises(KeyError):
            enter(1)
        with pytest.raises(TypeError):
            enter(2)
    assert sys.getrefcount(call) == before
    host.close()
    assert asm_libcalls.LIBCALLS["i64_sdiv"](7, 2) == 3
