"""Calls that are awaited: in worker threads, interrupted when their task is cancelled."""

import asyncio
import contextvars
import math
import threading
import time
from types import SimpleNamespace

import pytest
import wasm_builder as wasm
from interruptions import at_every_point
from jit_modules import Function, instantiate

from asm_libcalls import Interrupt, UnreachableCodeReached
from asm_libcalls.steps import HAS_GIL
from asm_libcalls.toy_jit.runtime import async_calls
from asm_libcalls.toy_jit.wasi import Exit

pytestmark = pytest.mark.usefixtures("machine_code")

FUNCTIONS = {
    "add": Function("i32 i32 -> i32", "local.get 00 local.get 01 i32.add"),
    "endless": Function("->", "loop 40 br 00 end"),
    "long": Function("i32 -> i32", "loop 40 local.get 00 41 01 6b 22 00 0d 00 end local.get 00"),
    "forever": Function("i32 ->", "loop 40 br 00 end"),
    "trap": Function("->", "unreachable"),
    "host": Function("i32 -> i32", "local.get 00 call 00"),
    "after": Function("->", "i32.const 00 call 00 drop loop 40 br 00 end"),
}
HOST = {"host": "i32 -> i32"}


@pytest.fixture
def make():
    return lambda host=lambda value: value: instantiate(FUNCTIONS, HOST, {"host": host})


def test_a_result_and_a_trap(make):
    exports = make().exports

    async def main():
        assert await exports["add"].call_async(40, 2) == 42
        assert await exports["host"].call_async(7) == 7
        with pytest.raises(UnreachableCodeReached):
            await exports["trap"].call_async()
        with pytest.raises(TypeError, match="takes 2 arguments"):
            await exports["add"].call_async(1)
        return await exports["add"].call_async(1, 2, time_limit=10)

    assert asyncio.run(main()) == 3


def test_a_host_function_that_a_module_exports_again():
    """It is not stopped. A task that was cancelled ends after it."""
    begun, go_on = threading.Event(), threading.Event()

    def host(value):
        begun.set()
        assert go_on.wait(60)
        return value

    exports = instantiate({}, HOST, {"host": host}, exports=[wasm.exported("host", 0, 0)]).exports

    async def main():
        task = asyncio.ensure_future(exports["host"].call_async(7))
        await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        await asyncio.sleep(0.1)
        assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await exports["host"].call_async(7, time_limit=0.01)

    assert asyncio.run(main()) == 7
    assert exports["host"].instance.deadlines == []


def test_it_runs_in_another_thread_with_the_context_of_the_task(make):
    variable = contextvars.ContextVar("variable")
    seen = []

    def host(value):
        seen.append((threading.get_ident(), variable.get()))
        return value

    async def main():
        variable.set("told")
        await make(host).exports["host"].call_async(1)

    asyncio.run(main())
    ((thread, value),) = seen
    assert thread != threading.get_ident()
    assert value == "told"


def test_the_loop_goes_on(make):
    inside, outside = threading.Event(), threading.Event()

    def host(value):
        inside.set()
        assert outside.wait(60)
        return value

    async def main():
        task = asyncio.create_task(make(host).exports["host"].call_async(5))
        while not inside.is_set():
            await asyncio.sleep(0)
        outside.set()  # which the loop would not come to if it waited
        return await task

    assert asyncio.run(main()) == 5


def test_a_cancelled_task_interrupts(make):
    instance = make()

    async def main():
        for _ in range(20):
            task = asyncio.create_task(instance.exports["endless"].call_async())
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # The instance is free, and no interrupt was left behind.
            assert await instance.exports["add"].call_async(1, 2) == 3
            assert instance.exports["add"](1, 2) == 3
        assert instance.runtime.deadlines == []

    asyncio.run(main())


def test_cancelling_just_when_it_ends(make):
    """No interrupt hits a later call."""
    instance = make()
    add = instance.exports["add"]

    async def main():
        cancelled = 0
        for i in range(300):
            task = asyncio.create_task(add.call_async(i, 1))
            for _ in range(i % 7):
                await asyncio.sleep(0)
            task.cancel()
            try:
                assert await task == i + 1
            except asyncio.CancelledError:
                cancelled += 1
            assert add(i, 2) == i + 2
        return cancelled

    assert asyncio.run(main()) > 0
    assert instance.runtime.deadlines == []


def test_the_deadline_of_a_call_is_in_force_only_while_it_is_awaited():
    """Else a later call could find it: the task that cancels does not wait for such a call."""

    class Deadlines(list):
        def append(self, deadline):
            assert deadline.at == math.inf
            assert call._is_running
            super().append(deadline)

        def remove(self, deadline):
            super().remove(deadline)
            assert call._is_running

    instance = SimpleNamespace(deadlines=Deadlines(), check_soon=lambda: None)
    call = async_calls._Call(instance)
    assert not call.cancel()
    assert not call.begin()
    call = async_calls._Call(instance)
    assert call.begin()
    assert call.cancel()
    assert len(instance.deadlines) == 1
    call.end()
    assert not call.cancel()
    assert not instance.deadlines


@pytest.mark.skipif(HAS_GIL, reason="with the GIL one thread at a time may use an instance")
@pytest.mark.parametrize("how", ["cancelled", "time limit"])
def test_calls_of_one_instance_end_without_each_other(make, how):
    exports = make().exports

    async def main():
        first = asyncio.create_task(exports["long"].call_async(2_000_000_000))
        await asyncio.sleep(0.05)
        limit = 0.1 if how == "time limit" else None
        second = asyncio.create_task(exports["endless"].call_async(time_limit=limit))
        await asyncio.sleep(0.05)
        if limit is None:
            second.cancel()
        with pytest.raises(asyncio.CancelledError if limit is None else Interrupt):
            await second
        assert not first.done()
        return await first

    assert asyncio.run(main()) == 0


@pytest.mark.skipif(not HAS_GIL, reason="the other thread waits until this one leaves the store")
@pytest.mark.parametrize("how", ["cancelled", "time limit"])
def test_what_others_check_before_a_call_enters_is_checked_again(make, how):
    """Of its own thread, in another instance, and of another thread, in this instance."""
    exports, others = make().exports, make().exports
    converted = threading.Event()

    class Argument:
        def __index__(self):
            converted.set()
            time.sleep(0.1)  # it is cancelled, or the limit passes
            others["add"](1, 2)
            thread = threading.Thread(target=exports["add"], args=(1, 2))
            thread.start()
            thread.join()
            return 0

    async def main():
        limit = 0.05 if how == "time limit" else None
        task = asyncio.create_task(exports["forever"].call_async(Argument(), time_limit=limit))
        await asyncio.to_thread(converted.wait, 60)
        if limit is None:
            task.cancel()
        with pytest.raises(asyncio.CancelledError if limit is None else Interrupt):
            await task

    exports["add"](1, 2)
    others["add"](1, 2)
    asyncio.run(main())


def test_wait_for(make):
    async def main():
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(make().exports["endless"].call_async(), 0.05)

    asyncio.run(main())


def test_a_time_limit(make):
    instance = make()

    async def main():
        with pytest.raises(Interrupt):
            await instance.exports["endless"].call_async(time_limit=0.05)
        assert await instance.exports["add"].call_async(1, 2) == 3
        for wrong, kind in (("1", TypeError), (-1, ValueError), (float("nan"), ValueError)):
            with pytest.raises(kind, match=r"call_async\(\): time_limit must be a number"):
                await instance.exports["add"].call_async(1, 2, time_limit=wrong)

    asyncio.run(main())


def test_several_at_once(make):
    async def main():
        calls = [make().exports["add"].call_async(i, i) for i in range(20)]
        return await asyncio.gather(*calls)

    assert asyncio.run(main()) == [2 * i for i in range(20)]


def test_a_host_function_is_waited_for(make):
    """A task that is cancelled, and again, ends when the call has ended."""
    inside, outside = threading.Event(), threading.Event()
    ended = []

    def host(value):
        inside.set()
        assert outside.wait(60)
        ended.append(True)
        return value

    async def main():
        task = asyncio.create_task(make(host).exports["after"].call_async())
        while not inside.is_set():
            await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        outside.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]

    asyncio.run(main())


def test_a_call_that_has_not_begun(make):
    """The executor is full: the task ends at once, and nothing is ever called."""
    free = threading.Event()
    called = []

    async def main():
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        blocker = loop.run_in_executor(None, free.wait, 60)
        instance = make(lambda value: called.append(value) or value)
        task = asyncio.create_task(instance.exports["after"].call_async())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not free.is_set()
        free.set()
        await blocker

    asyncio.run(main())
    assert called == []


@pytest.mark.parametrize("kind", [ValueError, KeyError, StopIteration])
def test_what_a_host_function_raises(make, kind):
    def host(value):
        raise kind("text")

    async def main():
        expected = RuntimeError if kind is StopIteration else kind
        with pytest.raises(expected):
            await make(host).exports["host"].call_async(1)

    asyncio.run(main())


def test_an_exit_of_a_program(make):
    def host(value):
        raise Exit(5)

    async def main():
        try:
            await make(host).exports["host"].call_async(1)
        except Exit as end:
            return end.code

    assert asyncio.run(main()) == 5


class Struck(Exception):
    """A signal handler raises this."""


def strike():
    raise Struck


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_signal_handler_that_raises_in_a_cancellation(make, ends_first):
    """The call is cancelled or goes on; nothing of it is left for later calls."""
    instance = make()

    def scene():
        call = async_calls._Call(instance.runtime)
        assert call.begin()
        scenes.append(call)
        if ends_first:
            call.end()
        return call.cancel, strike

    def check(outcome, number):
        assert isinstance(outcome, (bool, Struck))
        if not ends_first:
            scenes[-1].end()
        assert instance.runtime.deadlines == []
        instance.runtime.trap_if_asked()
        assert instance.exports["add"](1, 2) == 3

    scenes = []
    assert at_every_point(scene, check) >= 1


def test_a_call_that_was_cancelled_before_does_not_begin(make):
    call = async_calls._Call(make().runtime)
    assert not call.cancel()
    assert not call.begin()
    assert call._instance.deadlines == []
