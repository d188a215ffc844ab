"""Without the GIL, steps of Python and libcalls in machine code that count exclude each other."""

import dis
import os
import sys
import threading
import time

import pytest
from free_threading import WITHOUT_GIL
from in_threads import in_threads

import asm_libcalls
from asm_libcalls import Global, Instance, Table, VMExternRef, steps
from asm_libcalls.native import process
from asm_libcalls.runtime import externref_boxes, step_lock

pytestmark = [
    pytest.mark.usefixtures("machine_code"),
    pytest.mark.skipif(not WITHOUT_GIL, reason="there is no lock of steps with the GIL"),
]


@pytest.fixture
def lock():
    assert process.image is not None
    step_lock.share(process.image)
    assert isinstance(steps._shared[0], step_lock.SharedLock)
    return steps._shared[0]


def elsewhere(function):
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_a_thread_takes_it_again_and_leaves_to_a_depth(lock):
    assert lock.depth() == 0
    for depth in (1, 2, 3):
        lock.take()
        assert lock.depth() == depth
    lock.leave(2)
    lock.leave(2)
    assert lock.depth() == 2
    seen = []
    elsewhere(lambda: (seen.append(lock.depth()), lock.leave(0))).join()
    assert seen == [0]
    assert lock.depth() == 2
    lock.leave(0)
    lock.leave(0)
    assert lock.depth() == 0


def test_others_wait_until_it_isfree(lock):
    order = []
    lock.take()

    def other():
        lock.take()
        order.append("other")
        lock.leave(0)

    thread = elsewhere(other)
    time.sleep(0.05)
    order.append("this")
    lock.leave(0)
    thread.join()
    assert order == ["this", "other"]
    assert lock.depth() == 0


def operations(instance, reference):
    """Return calls whose machine code takes the lock."""
    return [
        lambda: asm_libcalls.table_fill(instance, 0, 0, reference, 2),
        lambda: asm_libcalls.table_copy(instance, 0, 0, 2, 0, 2),
        lambda: asm_libcalls.table_init(instance, 0, 0, 0, 0, 1),
        lambda: asm_libcalls.table_grow(instance, 0, 1, reference),
        lambda: asm_libcalls.externref_global_set(instance, 0, reference),
        lambda: asm_libcalls.externref_global_get(instance, 0),
        lambda: asm_libcalls.activations_table_insert_with_gc(instance, reference),
        lambda: asm_libcalls.elem_drop(instance, 0),
    ]


def make():
    reference = VMExternRef("value")
    instance = Instance(
        tables=[Table("externref", 4, 8)],
        globals=[Global("externref", None, True)],
        elements=[("externref", [reference])],
    )
    return instance, reference


EXPECTED = 1 + 5 + 1 + 2  # the reference, the table, the global, the activations table


@pytest.mark.parametrize("where", ["in a step", "in another thread's step"])
def test_libcalls_leave_for_python_where_the_lock_is_taken(lock, where):
    instance, reference = make()

    @steps.step
    def in_a_step():
        for operation in operations(instance, reference):
            operation()
        assert lock.state.depth == 1

    if where == "in a step":
        in_a_step()
    else:
        begun = threading.Event()

        @steps.step
        def hold():
            begun.set()
            time.sleep(0.05)

        thread = elsewhere(hold)
        assert begun.wait(60)
        for operation in operations(instance, reference):
            operation()
        thread.join()
    assert lock.state.owner == lock.state.depth == 0
    assert reference.strong_count() == EXPECTED
    instance.close()
    assert reference.strong_count() == 1


def test_machine_code_releases_it_also_where_it_leaves(lock):
    instance, reference = make()
    for operation in operations(instance, reference):
        operation()
        assert lock.state.owner == 0
    for operation in (
        lambda: asm_libcalls.table_fill(instance, 0, 3, reference, 9),  # a trap
        lambda: asm_libcalls.table_copy(instance, 0, 0, 8, 0, 9),
        lambda: asm_libcalls.externref_global_get(instance, 1),  # no such global
    ):
        with pytest.raises((asm_libcalls.TableOutOfBounds, ValueError)):
            operation()
        assert lock.state.owner == 0
    asm_libcalls.table_fill(instance, 0, 0, None, 5)
    table, dropped = instance.tables[0], []

    class Thing:
        def __del__(self):
            dropped.append(lock.state.owner)

    for i in range(4):
        table[i] = Thing()
    asm_libcalls.table_fill(instance, 0, 0, None, 4)  # it undoes its counting, and leaves
    assert dropped == [0] * 4


def test_threads_count_the_same_boxes_in_machine_code_and_in_python(lock):
    references = [VMExternRef(i) for i in range(3)]
    instances = [Instance(tables=[Table("externref", 6)]) for _ in range(4)]

    def work(number):
        instance, table = instances[number], instances[number].tables[0]
        for i in range(400):
            asm_libcalls.table_fill(instance, 0, 0, references[i % 3], 5)
            asm_libcalls.table_copy(instance, 0, 0, 1, 0, 5)
            table[i % 6] = references[(i + number) % 3]
            references[i % 3].clone().drop()
        asm_libcalls.table_fill(instance, 0, 0, None, 6)

    in_threads(work, range(4))
    assert [each.strong_count() for each in references] == [1, 1, 1]
    assert lock.state.owner == 0


def test_a_box_becomes_free_in_a_step_of_its_own():
    """Making a box reads and then removes the last free one: nothing is added in between."""
    held, dropping, seen = threading.Event(), threading.Event(), []

    class Thing:
        def __del__(self):
            dropping.set()
            assert held.wait(60)

    @steps.step
    def hold():
        held.set()
        before = [*externref_boxes.free]
        time.sleep(0.1)
        seen.append(before == externref_boxes.free)

    def other():
        assert dropping.wait(60)
        hold()

    thread = elsewhere(other)
    VMExternRef(Thing()).drop()
    thread.join()
    assert seen == [True]


def test_a_signal_handler_that_raises_leaves_itfree(child):
    child(
        """
        import signal
        import asm_libcalls
        from asm_libcalls import Instance, Table, VMExternRef, steps

        table = Table("externref", 4)
        instance, reference = Instance(tables=[table]), VMExternRef("x")
        asm_libcalls.table_fill(instance, 0, 0, reference, 4)
        lock = steps._shared[0]

        class Struck(Exception):
            pass

        armed = []

        def strike(number, frame):
            if armed:
                armed.pop()
                raise Struck

        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0002)
        struck = 0
        while struck < 1000:
            try:
                armed.append(1)
                for i in range(4):
                    table[i] = reference
                    VMExternRef(i).drop()
                armed.clear()
            except Struck:
                struck += 1
                assert lock.state.owner == lock.state.depth == 0
        signal.setitimer(signal.ITIMER_REAL, 0)
        """
    )


@pytest.mark.parametrize("how", ["a signal handler", "a finalizer"])
def test_what_python_runs_at_any_moment_may_wait_for_a_thread_that_counts(child, how):
    """It never runs between taking and leaving the lock."""
    child(
        f"""
        import gc, os, queue, random, signal, threading, time
        from asm_libcalls import Instance, Table, VMExternRef

        table = Table("externref", 4, 4)
        Instance(tables=[table])
        jobs, done = queue.SimpleQueue(), queue.SimpleQueue()

        def work():
            while True:
                jobs.get()
                VMExternRef(1).drop()
                done.put(None)

        threading.Thread(target=work, daemon=True).start()
        waits, main, ended = 0, threading.get_ident(), False

        def wait():
            global waits
            jobs.put(None)
            try:
                done.get(timeout=10)
            except queue.Empty:
                os._exit(3)
            waits += 1

        def handler(number, frame):
            wait()
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.0006))

        class Finalized:
            def __init__(self):
                self.itself = self

            def __del__(self):
                if threading.get_ident() == main and not ended:
                    wait()

        is_signal = {how!r} == "a signal handler"
        if is_signal:
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.001)
        else:
            gc.set_threshold(10, 1, 1)
        begun = time.monotonic()
        while waits < 2000 and time.monotonic() - begun < 20:
            with VMExternRef(1) as reference:
                assert reference.clone().value == 1
                table[1] = reference
                table[2] = table[1]
            if not is_signal:
                Finalized()
        signal.setitimer(signal.ITIMER_REAL, 0)
        ended = True
        assert waits > 100, waits
        """
    )


def test_steps_begin_without_a_check():
    """Python runs signal handlers and collections where a function begins."""
    modules = [each for name, each in [*sys.modules.items()] if name.startswith("asm_libcalls")]
    things = [thing for module in modules for thing in vars(module).values()]
    things += [member for thing in things if type(thing) is type for member in vars(thing).values()]
    found = {
        function.__wrapped__.__qualname__: function.__wrapped__
        for function in things
        if getattr(getattr(function, "__code__", None), "co_name", "") == "alone"
    }
    assert len(found) > 30
    for name, function in found.items():
        first = next(dis.get_instructions(function))
        assert (first.opname, first.arg) == ("RESUME", 2), name


def test_a_fork_in_a_step_leaves_both_processes_in_it(lock):
    lock.take()
    process = os.fork()
    if not process:
        inside = lock.depth() == 1
        lock.leave(0)
        os._exit(0 if inside and lock.state.owner == 0 else 1)
    assert lock.depth() == 1
    lock.leave(0)
    assert os.waitpid(process, 0)[1] == 0
