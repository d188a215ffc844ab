"""Without the GIL, one thread at a time is inside an instance and all that it is linked to."""

import gc
import itertools
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from counting import counting, word
from free_threading import WITHOUT_GIL
from in_threads import in_threads
from jit_modules import Function, build, instantiate

import asm_libcalls
from asm_libcalls import Global, Instance, Memory, Table, VMExternRef, toy_jit
from asm_libcalls.runtime import externref_boxes
from asm_libcalls.runtime import store as stores
from asm_libcalls.runtime.store import link
from asm_libcalls.traps import Interrupt, Trap

pytestmark = [
    pytest.mark.usefixtures("machine_code"),
    pytest.mark.skipif(not WITHOUT_GIL, reason="there are no stores with the GIL"),
]

THREADS = range(8)
ROUNDS = 200
LOOP = 25


def store_of(thing):
    if isinstance(thing, toy_jit.Instance):
        thing = thing.runtime
    return thing._in_store


def is_free(thing):
    lock = store_of(thing).lock
    return lock.depth == 0 and lock.owner == 0


def waiting_instance(*linked):
    """Return an instance, the thread that waits in its host function, and what it waits for."""
    begun, finish = threading.Event(), threading.Event()

    def host():
        begun.set()
        assert finish.wait(60)

    instance = counting(host)
    link([instance.runtime, *linked])
    thread = threading.Thread(target=instance.exports["host"])
    thread.start()
    assert begun.wait(60)
    return instance, thread, finish


def test_eight_threads_in_one_store_lose_nothing():
    instance = counting()
    memory = instance.memory

    def work(number):
        for _ in range(ROUNDS):
            instance.exports["once"]()
            instance.exports["often"](LOOP)
            instance.exports["host"]()
            instance.exports["two"]()
            with pytest.raises(Trap):
                instance.exports["trap"]()
            asm_libcalls.memory_fill(instance.runtime, 0, 100 + number, number, 1)

    in_threads(work, THREADS)
    assert word(instance) == len(THREADS) * ROUNDS * (LOOP + 4)
    assert bytes(memoryview(memory))[100:108] == bytes(THREADS)
    assert is_free(instance)


def test_a_host_function_runs_inside_the_store_of_its_caller():
    inside = []

    def host():
        inside.append(1)
        assert len(inside) == 1
        time.sleep(0.0001)
        instance.exports["once"]()  # the thread may enter again
        inside.pop()

    instance = counting(host)

    def work(number):
        for _ in range(20):
            instance.exports["host"]()

    in_threads(work, THREADS)
    assert is_free(instance)


def test_threads_take_turns():
    """A thread that calls long functions without a pause does not keep another one out."""
    instance = counting()
    stop, others = threading.Event(), []

    def long():
        while not stop.is_set():
            instance.exports["often"](100_000)

    def short():
        for i in range(20):
            instance.exports["once"]()
            others.append(i)

    threads = [threading.Thread(target=each) for each in (long, long)]
    for thread in threads:
        thread.start()
    short()
    stop.set()
    for thread in threads:
        thread.join()
    assert others == list(range(20))


def test_stores_that_are_not_linked_are_independent():
    other = counting()
    waiting, thread, finish = waiting_instance()
    other.exports["once"]()
    asm_libcalls.memory_fill(other.runtime, 0, 5, 6, 7)
    finish.set()
    thread.join()
    assert store_of(other) is not store_of(waiting)


@pytest.mark.parametrize("what", ["memory", "table", "global", "function"])
def test_imports_link(what):
    make = {
        "memory": lambda: Memory(1),
        "table": lambda: Table("externref", 1),
        "global": lambda: Global("i32", 1),
    }
    spaces = {"memory": "memories", "table": "tables", "global": "globals"}
    if what == "function":
        owner = counting()
        part, kind = owner.exports["once"], "functions"
        before = store_of(owner)
    else:
        part, kind = make[what](), spaces[what]
        owner = Instance(**{kind: [part]})
        before = store_of(part)
    first, second = (Instance(imports={kind: [part]}) for _ in range(2))
    assert store_of(owner) is store_of(first) is store_of(second) is before


@pytest.mark.parametrize("where", ["table", "global", "argument", "grow"])
def test_function_references_link(where):
    owner, table = counting(), Table("funcref", 2)
    user = Instance(tables=[table])
    taker = instantiate({"take": Function("funcref ->", "")})
    func = owner.exports["once"]
    assert store_of(owner) is not store_of(user)
    if where == "table":
        table[1] = func
    elif where == "grow":
        table.grow(1, func)
    elif where == "global":
        variable = Global("funcref", None, mutable=True)
        user = Instance(globals=[variable])
        variable.value = func
    else:
        taker.exports["take"](func)
        user = taker
    assert store_of(owner) is store_of(user)


def test_stores_merge_while_threads_use_them():
    instances = [counting() for _ in THREADS]
    start = threading.Barrier(len(THREADS) + 1)

    def link_all():
        start.wait(60)
        for one, other in itertools.pairwise(instances):
            link([one.runtime, other.runtime])

    def work(number):
        start.wait(60)
        for i in range(ROUNDS):
            for instance in (instances[number], instances[(number + i) % len(THREADS)]):
                instance.exports["once"]()
                instance.exports["often"](5)
                asm_libcalls.memory_fill(instance.runtime, 0, 100, 1, 1)

    threads = [threading.Thread(target=link_all)]
    threads += [threading.Thread(target=work, args=(number,)) for number in THREADS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(word, instances)) == len(THREADS) * ROUNDS * 2 * 6
    assert len({id(store_of(instance)) for instance in instances}) == 1
    assert is_free(instances[0])


def put_into_a_global(instance, func):
    variable = Global("funcref", None, mutable=True)
    link([variable, instance.runtime])
    variable.value = func


def put_into_a_table(instance, func):
    table = Table("funcref", 1)
    link([table, instance.runtime])
    table[0] = func


def grow_a_table(instance, func):
    table = Table("funcref", 1)
    link([table, instance.runtime])
    table.grow(1, func)


@pytest.mark.parametrize(
    "use",
    [
        lambda instance, func: link([instance.runtime, func.instance]),
        put_into_a_global,
        put_into_a_table,
        grow_a_table,
    ],
    ids=["link", "global", "table", "grow"],
)
def test_a_thread_that_waits_to_link_is_inside_no_other_store(use):
    """Whichever of the two has the lower address."""
    for _ in range(8):
        stays = counting()
        busy, thread, finish = waiting_instance()
        linking = threading.Thread(target=use, args=(stays, busy.exports["once"]))
        linking.start()
        until = time.monotonic() + 60
        while not any(store is store_of(busy) for store in [*stores._waiting.values()]):
            assert time.monotonic() < until
            time.sleep(0.001)
        assert is_free(stays)
        stays.exports["once"]()
        finish.set()
        linking.join()
        thread.join()
        assert store_of(stays) is store_of(busy)
        assert is_free(stays)


def test_two_threads_that_link_the_same_stores_are_not_in_each_others_way():
    rounds = [[counting(), counting()] for _ in range(300)]
    begin = threading.Barrier(2)

    def work(number):
        for pair in rounds:
            mine, other = pair if number else reversed(pair)
            begin.wait(60)
            put_into_a_table(mine, other.exports["once"])

    in_threads(work, range(2))
    assert all(store_of(one) is store_of(other) for one, other in rounds)


@pytest.mark.parametrize("was_free", [True, False])
def test_closing_enters_the_store_that_another_thread_has_just_moved_the_object_to(
    was_free, monkeypatch
):
    table = Table("externref", 1)
    table[0] = thing = VMExternRef(object())
    before = store_of(table)
    begun, merge, merged, finish = (threading.Event() for _ in range(4))

    def host():
        begun.set()
        assert merge.wait(60)
        link([instance.runtime, table])
        merged.set()
        assert finish.wait(60)

    def take(address, has_waited):
        if address == before.address and not merge.is_set():
            merge.set()
            assert merged.wait(60)
            if not was_free:
                return 1  # as if it had been asked during the merge
        return routines.take(address, has_waited)

    instance = counting(host)
    thread = threading.Thread(target=instance.exports["host"])
    thread.start()
    assert begun.wait(60)
    routines = stores.routines
    patched = SimpleNamespace(take=take, leave=routines.leave, depth=routines.depth)
    monkeypatch.setattr("asm_libcalls.runtime.store_entries.routines", patched)
    table.close()
    monkeypatch.undo()
    assert merged.is_set()
    assert thing.strong_count() == 2  # until the other thread has left
    finish.set()
    thread.join()
    Table("externref", 1)[0] = None  # any store is used
    assert thing.strong_count() == 1


def test_a_merge_inside_both_stores_keeps_others_out():
    """The inner call ends before the outer one; until then no thread enters the merged store."""
    seen = []

    def outer_host():
        inner.exports["host"]()
        # The inner store has been left; the two are one, and this thread is inside it.
        thread.start()
        time.sleep(0.05)
        seen.append("outer")

    def inner_host():
        link([outer.runtime, inner.runtime])

    outer, inner = counting(outer_host), counting(inner_host)
    thread = threading.Thread(target=lambda: (inner.exports["once"](), seen.append("other")))
    outer.exports["host"]()
    thread.join()
    assert seen == ["outer", "other"]
    assert is_free(outer)


def test_instances_come_and_go_beside_one_that_stays():
    with Memory(1) as shared:
        stays = Instance(memories=[shared])
        store = store_of(stays)
        for _ in range(2000):
            Instance(imports={"memories": [shared]}).close()
        assert store_of(stays) is store
        assert store.size() < 1000


@pytest.mark.parametrize("how", ["an export", "results in memory", "a libcall", "a table"])
def test_time_limits_and_signals_end_the_waiting(how, child):
    child(
        f"""
        import os, signal, threading, time
        import asm_libcalls, pytest
        from asm_libcalls import Table, toy_jit
        from counting import counting

        begun, finish = threading.Event(), threading.Event()

        def host():
            begun.set()
            assert finish.wait(60)

        table = Table("externref", 1)
        instance = counting(host)
        asm_libcalls.runtime.store.link([instance.runtime, table])
        thread = threading.Thread(target=instance.exports["host"])
        thread.start()
        assert begun.wait(60)
        use = {{
            "an export": instance.exports["once"],
            "results in memory": instance.exports["two"],
            "a libcall": lambda: asm_libcalls.memory_fill(instance.runtime, 0, 1, 2, 3),
            "a table": lambda: table[0],
        }}[{how!r}]
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            use()
        timer.join()
        if {how!r} != "a table":
            with pytest.raises(asm_libcalls.Interrupt), instance.time_limit(0.1):
                use()
        finish.set()
        thread.join()
        use()
        lock = instance.runtime._in_store.lock
        assert lock.depth == lock.owner == 0, (lock.depth, lock.owner)
        """
    )


def test_closing_does_not_wait():
    table = Table("externref", 1)
    table[0] = thing = VMExternRef(object())
    instance, thread, finish = waiting_instance(table)
    instance.close()
    table.close()
    with pytest.raises(ValueError, match="closed"):
        instance.exports["once"]()
    with pytest.raises(ValueError, match="closed"):
        asm_libcalls.memory_fill(instance.runtime, 0, 1, 2, 3)
    assert thing.strong_count() == 2  # until the other thread has left
    finish.set()
    thread.join()
    with pytest.raises(ValueError, match="closed"):
        table[0]
    assert thing.strong_count() == 1


def test_what_was_closed_while_a_thread_was_inside_is_released_without_its_store():
    table, other = Table("externref", 1), Table("externref", 1)
    table[0] = thing = VMExternRef(object())
    other[0] = None
    _, thread, finish = waiting_instance(table)
    table.close()
    assert other[0] is None
    assert thing.strong_count() == 2
    finish.set()
    thread.join()
    assert other[0] is None  # of another store: nobody uses that of the closed table again
    assert thing.strong_count() == 1


def test_the_destructor_of_what_is_released_later_uses_another_store():
    table, other = Table("externref", 2), Table("externref", 1)
    other[0] = "unchanged"
    seen = []

    class Uses:
        def __del__(self):
            seen.append(other[0])

    table[0], table[1] = Uses(), Uses()
    _, thread, finish = waiting_instance(table)
    table.close()
    finish.set()
    thread.join()
    assert not seen
    assert other[0] == "unchanged"
    assert seen == ["unchanged"] * 2


def test_an_interrupted_release_is_done_again():
    class Other(Table):
        releases = 0

        def _release(self):
            Other.releases += 1
            super()._release()

    class Bad:
        def __del__(self):
            raise KeyboardInterrupt

    table = Other("externref", 3)
    things = [VMExternRef(object()) for _ in range(2)]
    table[0], table[1], table[2] = things[0], Bad(), things[1]
    instance, thread, finish = waiting_instance(table)
    table.close()
    finish.set()
    heard = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda it: heard.append(it.exc_type)
    try:
        thread.join()
        store_of(instance).catch_up()
    finally:
        sys.unraisablehook = hook
    assert heard == [KeyboardInterrupt]
    assert [each.strong_count() for each in things] == [1, 1]


def test_a_step_does_not_keep_others_out_while_it_waits_for_a_store(child):
    """A signal handler or finalizer that runs where a step begins may use a store."""
    child(
        """
        import threading
        from asm_libcalls import Table, VMExternRef
        from asm_libcalls.runtime.store import link
        from asm_libcalls import steps
        from asm_libcalls.steps import step
        from counting import counting

        def depth():
            return steps._shared[0].depth()

        begun, finish = threading.Event(), threading.Event()

        def host():
            begun.set()
            assert finish.wait(60)
            for i in range(100):
                VMExternRef(i).drop()  # steps

        table = Table("externref", 1)
        instance = counting(host)
        link([instance.runtime, table])
        thread = threading.Thread(target=instance.exports["host"])
        thread.start()
        assert begun.wait(60)

        @step
        def outer():
            inner()
            assert depth() == 1

        @step
        def inner():
            finish.set()
            assert table[0] is None
            assert depth() == 2

        outer()
        thread.join()
        assert depth() == 0
        """
    )


def test_two_stores_that_call_each_other_do_not_hang():
    """Of two threads that wait for each other, one is told; linked instances are one store."""
    both = threading.Barrier(2)
    outcomes = []

    def call(other):
        both.wait(60)
        other.exports["once"]()

    one = counting(lambda: call(other))
    other = counting(lambda: call(one))

    def work(instance):
        try:
            instance.exports["host"]()
            outcomes.append("done")
        except RuntimeError as error:
            assert "wait for each other" in str(error)  # noqa: PT017 - in a thread
            outcomes.append("told")

    threads = [threading.Thread(target=work, args=(each,)) for each in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "told" in outcomes
    assert is_free(one)
    assert is_free(other)


def test_references_of_all_threads_are_counted():
    gc.collect()  # what tests before have left
    boxes = externref_boxes.live_count()
    table = Table("externref", 8, 8 + len(THREADS) * ROUNDS)
    variable = Global("externref", None, mutable=True)
    instance = Instance(tables=[table], globals=[variable])
    reference = VMExternRef(object())

    def work(number):
        for i in range(ROUNDS):
            asm_libcalls.table_fill(instance, 0, number, reference, 1)
            asm_libcalls.table_copy(instance, 0, 0, (number + i) % 8, number, 1)
            asm_libcalls.externref_global_set(instance, 0, reference)
            asm_libcalls.externref_global_get(instance, 0)
            variable.value = table[number]
            assert asm_libcalls.table_grow(instance, 0, 1, reference) >= 8

    in_threads(work, THREADS)
    variable.value = None
    asm_libcalls.gc(instance)
    full = sum(value is not None for value in table)
    assert full == len(table) == 8 + len(THREADS) * ROUNDS
    assert reference.strong_count() == 1 + full
    table.close()
    assert reference.strong_count() == 1
    reference.drop()
    assert externref_boxes.live_count() == boxes


def test_references_cross_stores():
    """Boxes are in no store: eight stores share them."""
    values = [VMExternRef(object()) for _ in THREADS]
    echo = {
        "swap": Function(
            "externref -> externref",
            "i32.const 00 table.get 00 i32.const 00 local.get 00 table.set 00",
        )
    }
    module = toy_jit.Module(build(echo, tables=[b"\x6f\x00\x08"]))
    instances = [toy_jit.Instance(module) for _ in THREADS]

    def work(number):
        swap = instances[number].exports["swap"]
        for i in range(ROUNDS):
            swap(values[(number + i) % 8])
        swap(None)

    in_threads(work, THREADS)
    for instance in instances:
        instance.gc()
    assert [value.strong_count() for value in values] == [1] * 8


def test_a_fork_while_threads_are_inside_leaves_a_child_that_works(child):
    child(
        """
        import os, threading, warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
        import asm_libcalls
        from counting import counting, word

        instances = [counting() for _ in range(4)]
        stop = threading.Event()

        def run(instance):
            while not stop.is_set():
                instance.exports["often"](10_000)

        for instance in instances:
            instance.exports["often"](1)
            asm_libcalls.memory_fill(instance.runtime, 0, 8, 1, 1)
        threads = [threading.Thread(target=run, args=(each,)) for each in instances]
        for thread in threads:
            thread.start()
        for _ in range(20):
            process = os.fork()
            if not process:
                try:
                    for instance in instances:
                        before = word(instance)
                        instance.exports["once"]()
                        instance.exports["often"](5)
                        asm_libcalls.memory_fill(instance.runtime, 0, 8, 1, 1)
                        assert word(instance) == before + 6
                    thread = threading.Thread(target=instances[0].exports["once"])
                    thread.start()
                    thread.join()
                except BaseException:
                    import traceback
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(process, 0)[1] == 0
        stop.set()
        for thread in threads:
            thread.join()
        """
    )


def test_wasm_that_waits_traps_when_its_time_is_over():
    instance, thread, finish = waiting_instance()
    with pytest.raises(Interrupt), instance.time_limit(0.05):
        instance.exports["once"]()
    finish.set()
    thread.join()
    instance.exports["once"]()
