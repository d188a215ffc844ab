"""The suite of stores: its workers, its work, and what it reports."""

import threading
from contextlib import closing

import pytest
from free_threading import WITHOUT_GIL

from asm_libcalls.benchmark import stores
from asm_libcalls.benchmark.peers import Peers
from asm_libcalls.benchmark.timing import OURS


@pytest.mark.usefixtures("machine_code")
@pytest.mark.parametrize("name", stores.WORK)
def test_each_work_can_be_repeated(name):
    work = stores.WORK[name]()
    work()
    work()


def test_workers_work_at_the_same_time():
    """All have begun before any goes on, and each does the work as often as it is told."""
    together, done = threading.Barrier(3), []

    def work():
        together.wait(60)
        done.append(threading.get_ident())

    with closing(stores._Workers()) as workers:
        for _ in range(3):
            workers.add_thread([lambda: None, work])
        sample = workers.sample(1, 5)
    assert sorted(map(done.count, {*done})) == [5] * 3
    assert sample.wall > 0
    assert sample.processor > 0


def test_stores(machine_code):
    peers, told = Peers(), []
    measured = stores.measure(peers, True, told.append, "memory_fill, 16")
    if not WITHOUT_GIL:
        assert measured == told == []
        assert any("suite stores is left out" in note for note in peers.notes)
        return
    name = "memory_fill, 16 bytes"
    assert {case.name: list(case.figures) for case in measured} == {
        f"{name}, {what}{suffix}": [OURS, peer]
        for what, peer in (
            ("2 stores", stores.PROCESSES),
            ("2 threads in one store", stores.ALONE),
        )
        for suffix in ("", ": processor time")
    }
    for case in measured:
        assert case.figures[OURS].ratio == (1, 1, 1)
        assert all(figure.nanoseconds.low > 0 for figure in case.figures.values())
    assert told == [f"stores: {name} 2", f"stores: {name} 2, one store"]
