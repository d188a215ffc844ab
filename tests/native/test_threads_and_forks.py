"""Threads with an instance each run everything at once; a fork leaves two processes that work."""

import sys

import pytest

from asm_libcalls.native import unraisable

pytestmark = pytest.mark.usefixtures("machine_code")

PRELUDE = """
    import gc, os, sys, threading, time, warnings, weakref
    warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads, from 3.12 on
    import asm_libcalls, soak
    from asm_libcalls import *
    from asm_libcalls import HostFunction, Instance, Table, VMExternRef, catch_traps
    from asm_libcalls.runtime import externref_boxes
    from forks import check, in_child
    from in_threads import in_threads
    from soak import Soak, Thing
"""


@pytest.fixture
def run(child):
    """Run code after the PRELUDE in a child process."""
    return lambda code, **options: child(PRELUDE + code, **options)


@pytest.fixture(autouse=True)
def _needs_assembler():
    pytest.importorskip("peachpy", reason="no assembler for native frames")


def test_eight_threads_each_with_its_own_instance(run):
    run(
        """
    sys.setswitchinterval(1e-5)
    soaks = [Soak() for _ in range(8)]  # the assembler is not for threads

    def run(soak):
        for _ in range(48):
            soak.round(5)

    in_threads(run, soaks)
    for one in soaks:
        assert set(one.outcomes.values()) == {6}, one.outcomes
        left = one.settle()
        assert left["activations"] == 0
        assert left["segment counts"] == 4
    assert len(Thing.alive) == 16  # two in each segment
    assert externref_boxes.live_count() == 16
    """,
        timeout=300,
    )


def test_threads_come_and_go(run):
    """Each thread that enters native code gets a record, which is freed with it."""
    run("""
    one = Soak()
    def run():
        for _ in range(8): one.round(1)
    def many(count):
        for _ in range(count):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            while len(os.listdir("/proc/self/task")) > 1:
                time.sleep(0.001)  # until the system is done with it too, and its memory is free
        one.settle()
        return soak.resident_kilobytes()
    many(50)
    before = many(50)
    after = many(300)
    assert after - before < 512, (before, after)
    """)


def test_a_fork_while_eight_threads_run(run):
    run(
        """
    sys.setswitchinterval(1e-5)
    if "t" in getattr(sys, "abiflags", ""):
        # CPython 3.13 without the GIL: if another thread is about to stop all threads, for a
        # collection, the lock for that is not free in the child, whose next collection hangs.
        import gc as python_gc
        python_gc.disable()
        collecting, collect = threading.RLock(), python_gc.collect
        def collect_alone(*arguments):
            with collecting: return collect(*arguments)
        python_gc.collect = collect_alone
        os.register_at_fork(before=collecting.acquire, after_in_parent=collecting.release,
                            after_in_child=collecting.release)
        # Nor is the lock of an object that several threads change: here the class and its set.
        Thing.__init__ = lambda self: None
    soaks = [Soak() for _ in range(8)]
    own = Soak()
    stop = threading.Event()
    failures = []

    def run(soak):
        try:
            while not stop.is_set():
                soak.round(3)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(soak,)) for soak in soaks]
    for thread in threads: thread.start()

    def work():
        # In the child only this thread is there, with all that the others were in the middle of.
        for _ in range(24): own.round(3)
        hosts = [HostFunction(lambda x, i=i: x + i, "(i32) -> i32") for i in range(200)]
        assert [catch_traps(h.address, h.signature)(1) for h in hosts] == list(range(1, 201))
        hook = sys.unraisablehook
        class Raises:
            def __del__(self): raise ValueError("heard")
        ref = VMExternRef(Raises())
        try:
            ref.drop()
        except ValueError:
            pass
        else:
            raise AssertionError("not heard")
        thread = threading.Thread(target=lambda: [own.round(2) for _ in range(8)])
        thread.start(); thread.join()

    for _ in range(12):
        process = in_child(work)
        for _ in range(8): own.round(2)
        check(process)
    stop.set()
    for thread in threads: thread.join()
    assert failures == [], failures
    """,
        timeout=300,
    )


def test_a_fork_under_native_frames(run):
    """Both processes come back through the native frames, trap, collect, and go on."""
    run("""
    one = Soak()
    inner = one.in_host
    forked = []

    def fork_once(count):
        if count == 2 and not forked:
            forked.append(os.fork())
        return inner(count)

    one.in_host = fork_once
    one.host.close()
    one.host = HostFunction(lambda count: one.in_host(count), "(u64) -> pointer")
    one.code.loaded.set_slot("host", one.host.address)
    for _ in range(32): one.round(4)
    left = one.settle()
    assert left["activations"] == 0
    assert left["things"] == 2, left
    if forked == [0]:
        os._exit(0)
    check(forked[0])
    """)


def test_a_fork_in_a_destructor_and_in_a_nested_activation(run):
    run("""
    hook = sys.unraisablehook
    processes = []

    class Forks:
        def __del__(self):
            processes.append(os.fork())
            raise ValueError("after the fork")

    ref = VMExternRef(Forks())

    def drop():
        ref.drop()

    inner = HostFunction(drop, "()")
    outer = HostFunction(lambda: catch_traps(inner.address, "()")(), "()")
    try:
        catch_traps(outer.address, "()")()
    except ValueError as error:
        assert str(error) == "after the fork"
    else:
        raise AssertionError
    assert sys.unraisablehook is hook
    try:
        asm_libcalls.i64_sdiv(1, 0)
    except ZeroDivisionError:
        pass
    if processes == [0]:
        os._exit(0)
    check(processes[0])
    """)


def test_a_memory_after_a_fork_is_the_process_s_own(run):
    run("""
    from asm_libcalls import Memory
    memory = Memory(1, 4)
    instance = Instance([memory])
    view = memoryview(memory)
    memory_fill(instance, 0, 0, 1, 10)

    def work():
        assert view[0] == 1
        assert memory32_grow(instance, 2, 0) == 1
        memory_fill(instance, 0, 0, 2, 65536 * 3)
        assert memory.size == 3

    check(in_child(work))
    assert view[0] == 1
    assert memory.size == 1
    """)


@pytest.mark.parametrize("backend", ["auto", "fallback"])
def test_threads_through_the_python_api(child, backend):
    """The same without native frames of our own, over either backend."""
    child(
        """
        import random, sys
        import asm_libcalls
        from in_threads import in_threads
        from asm_libcalls import *
        from asm_libcalls import Global, Instance, Memory, Table, VMExternRef, gc
        from asm_libcalls.runtime import externref_boxes
        sys.setswitchinterval(1e-5)

        class Thing: pass

        class Raises:
            def __init__(self, name): self.name = name
            def __del__(self): raise ValueError(self.name)

        def run(seed):
            source = random.Random(seed)
            instance = Instance([Memory(1, 3)], [Table("externref", 4, 50)],
                                [Global("externref", None, True)], data=[bytes([seed]) * 9],
                                elements=[("externref", [seed, None])])
            at = catch_traps(LIBCALLS["memory_fill"].address, LIBCALLS["memory_fill"].signature)
            for i in range(300):
                value = VMExternRef(Thing())
                table_fill(instance, 0, 0, value, 4)
                externref_global_set(instance, 0, value)
                externref_global_get(instance, 0)
                assert value.strong_count() == 7
                at(instance.vmctx, 0, 0, seed, 65536)
                memory_copy(instance, 0, 5, 0, 0, 1000)
                memory_init(instance, 0, 0, 0, 0, 9)
                assert memoryview(instance.memories[0])[1004] == seed
                try:
                    memory_fill(instance, 0, 65536, 1, 1)
                except HeapOutOfBounds: pass
                else: raise AssertionError
                try:
                    at(instance.vmctx, 0, 65530, 1, 7)
                except HeapOutOfBounds: pass
                else: raise AssertionError
                name = f"{seed} {i}"
                instance.tables[0][0] = Raises(name)
                try:
                    table_fill(instance, 0, 0, None, 4)
                except ValueError as error:
                    assert str(error) == name, (str(error), name)
                else: raise AssertionError
                externref_global_set(instance, 0, None)
                gc(instance)
                assert value.strong_count() == 1
                table_init(instance, 0, 0, 0, 0, 2)
                assert instance.tables[0][0] == seed
            instance.close()

        in_threads(run, range(8))
        """,
        variables={"ASM_LIBCALLS_BACKEND": backend},
    )


def test_threads_that_collect_exceptions_at_the_same_time(run):
    """Each gets its own. The hook that was there before is there at the end."""
    run("""
    from asm_libcalls.native import unraisable

    sys.setswitchinterval(1e-5)
    before = sys.unraisablehook

    class Raises:
        def __init__(self, error):
            self.error = error

        def __del__(self):
            raise self.error

    def run(number):
        for i in range(500):
            error, caught = KeyError(number, i), []
            unraisable.catch(lambda error=error: Raises(error) and None, caught)
            assert caught == [error], caught
            assert unraisable._hook.previous is not unraisable._hook

    in_threads(run, range(2))
    assert sys.unraisablehook is before
    """)


def test_a_hook_that_another_thread_has_just_installed_is_not_its_own_previous_one(monkeypatch):
    """It would call itself."""
    hook = unraisable._hook
    answers = [sys.__unraisablehook__, hook, hook]

    class System:
        @property
        def unraisablehook(self):
            return answers.pop(0)

        @unraisablehook.setter
        def unraisablehook(self, value):
            answers[:] = [value] * 3

    monkeypatch.setattr(hook, "previous", None, raising=False)
    monkeypatch.setattr(unraisable, "sys", System())
    assert unraisable.catch(lambda: 5, []) == 5
    assert hook.previous is sys.__unraisablehook__
