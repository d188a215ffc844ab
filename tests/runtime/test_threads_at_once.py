"""Threads that use the same objects at once: nothing is lost, and every count is right."""

import gc

import pytest
from in_threads import in_threads, switching_every

import asm_libcalls
from asm_libcalls import Global, Instance, Memory, StackMapRegistry, Table, VMExternRef
from asm_libcalls.runtime import externref_boxes, stack_maps
from asm_libcalls.toy_jit.runtime.collector_hook import collect_with_python

THREADS = range(8)
ROUNDS = 300


@pytest.fixture(autouse=True)
def _switch_often():
    with switching_every(1e-6):
        yield


@pytest.fixture
def counted():
    """Check that as many boxes are there afterwards as before."""
    gc.collect()
    before = externref_boxes.live_count()
    yield
    gc.collect()
    assert externref_boxes.live_count() == before


@pytest.mark.usefixtures("counted")
def test_one_reference_is_cloned_and_dropped():
    with VMExternRef(object()) as reference:

        def work(_):
            for _ in range(ROUNDS):
                clones = [reference.clone() for _ in range(4)]
                assert {clone.value for clone in clones} == {reference.value}
                for clone in clones:
                    clone.drop()

        in_threads(work, THREADS)
        assert reference.strong_count() == 1


@pytest.mark.usefixtures("counted")
def test_one_table_grows_and_is_written():
    values = [object() for _ in THREADS]
    with Table("externref", 4, 4 + 3 * len(THREADS) * ROUNDS) as table:
        grown = []

        def work(number):
            for i in range(ROUNDS):
                grown.append(table.grow(3, values[number]))
                table[i % 4] = values[number]
                assert table[i % 4] in [*values, None]  # another thread may just have cleared it
                if i % 7 == 0:
                    table[i % 4] = None

        def check(number):
            for i in range(ROUNDS):
                table[i % 4] = values[number]
                assert table[i % 4] in values

        in_threads(work, THREADS)
        in_threads(check, THREADS)
        assert len(table) == 4 + 3 * len(THREADS) * ROUNDS
        assert sorted(grown) == list(range(4, len(table), 3))
        for number in THREADS:
            own = [table[i] for i in range(4, len(table))].count(values[number])
            assert own == 3 * ROUNDS


@pytest.mark.usefixtures("counted")
def test_libcalls_on_one_table(accelerated):
    del accelerated
    table = Table("externref", 8, 8 + len(THREADS) * ROUNDS)
    with Instance(tables=[table]) as instance, VMExternRef(object()) as reference:

        def work(number):
            for _ in range(ROUNDS):
                asm_libcalls.table_fill(instance, 0, number, reference, 1)
                asm_libcalls.table_copy(instance, 0, 0, (number + 1) % 8, number, 1)
                assert asm_libcalls.table_grow(instance, 0, 1, reference) >= 8

        in_threads(work, THREADS)
        assert len(table) == 8 + len(THREADS) * ROUNDS
        full = sum(value is not None for value in table)
        assert full == len(table)
        assert reference.strong_count() == 1 + full
    table.close()


@pytest.mark.usefixtures("counted")
def test_one_global_is_exchanged():
    variable = Global("externref", None, mutable=True)
    values = [object() for _ in THREADS]

    def work(number):
        for _ in range(ROUNDS):
            variable.value = values[number]
            assert variable.value in values

    in_threads(work, THREADS)
    variable.close()


@pytest.mark.usefixtures("counted")
def test_one_instance_takes_references_of_all():
    with Instance() as instance:

        def work(_):
            for _ in range(ROUNDS):
                reference = VMExternRef(object())
                asm_libcalls.activations_table_insert_with_gc(instance, reference.clone())
                reference.drop()

        in_threads(work, THREADS)
        asm_libcalls.gc(instance)


def test_one_memory_grows():
    with Memory(1, 1 + len(THREADS) * 20) as memory, Instance(memories=[memory]) as instance:
        grown = []

        def work(_):
            for _ in range(10):
                grown.append(memory.grow(1))
                grown.append(asm_libcalls.memory32_grow(instance, 1, 0))

        in_threads(work, THREADS)
        assert sorted(grown) == list(range(1, 1 + len(THREADS) * 20))


@pytest.mark.usefixtures("counted")
def test_a_table_is_closed_meanwhile():
    for _ in range(30):
        table = Table("externref", 16, 4000)

        def work(number, table=table):
            try:
                for i in range(40):
                    table[i % 16] = number
                    table.grow(1, number)
                    if number == 0 and i == 20:
                        table.close()
            except ValueError as error:
                assert "closed" in str(error)  # noqa: PT017 - in a thread

        in_threads(work, THREADS)
        assert table.closed


def test_functions_are_made_at_once(child):
    """Objects that are made lazily are made once, by whichever thread is first."""
    child(
        """
        import threading
        import asm_libcalls
        from in_threads import in_threads

        start = threading.Barrier(8)

        def work(number):
            start.wait()
            assert asm_libcalls.f64_ceil(number + 0.5) == number + 1
            assert asm_libcalls.i64_srem(-7, 2) == -1
            assert asm_libcalls.LIBCALLS["i64_udiv"](7, 2) == 3
            return asm_libcalls.f64_ceil

        assert len(set(map(id, in_threads(work, range(8))))) == 1
        """
    )


def _drop_tables(_):
    for _ in range(ROUNDS):
        Table("externref", 1)


def _look_up_stack_maps(_):
    for _ in range(ROUNDS):
        assert stack_maps.stack_map(16, StackMapRegistry()) == ()


def _collect_beside_new_instances(_):
    for _ in range(ROUNDS // 10):
        instance = Instance()
        collect_with_python(instance)
        gc.collect(2)


@pytest.mark.parametrize("work", [_drop_tables, _look_up_stack_maps, _collect_beside_new_instances])
def test_what_the_process_lists_may_change_while_it_is_read(work, monkeypatch):
    raised = []
    monkeypatch.setattr("sys.unraisablehook", lambda it: raised.append(it.exc_value))
    in_threads(work, THREADS)
    gc.collect()
    assert raised == []
