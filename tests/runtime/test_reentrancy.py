"""Python that runs in the middle of an operation may use the same objects.

A destructor, a collection, a signal handler, a limiter or another thread may come at any point
where the interpreter lets it. Here each operation is interrupted at each such point by each
intruder, and then every count of every reference must be right, and no growth be lost.
"""

import collections
import gc
import signal
import threading

import pytest
from held_references import held_by

import asm_libcalls
from asm_libcalls import ElementSegment, Global, Instance, Memory, Table, Trap, VMExternRef
from asm_libcalls.runtime import activations_table, externref_boxes
from tests.interruptions import at_every_point


class World:
    """An instance with everything that holds references, and what it should look like."""

    def __init__(self, libcalls):
        self.libcalls = libcalls
        self.growths = [4]
        self.pages = [1]
        self.table, self.other = Table("externref", 4, 64), Table("externref", 4, 64)
        self.memory = Memory(1, 64)
        self.global_ = Global("externref", "in the global", True)
        self.instance = Instance(
            [self.memory],
            [self.table, self.other],
            [self.global_],
            elements=[ElementSegment("externref", ["a", "b", "c", "d"])],
        )
        self.segment = self.instance.elements[0]
        self.activations = self.instance.activations_table
        self.vmctx = self.instance.vmctx
        for i in range(4):
            self.table[i] = f"element {i}"
        self.other[1] = "of the other"
        self.value = VMExternRef("value")

    def libcall(self, name, *arguments):
        return self.libcalls[name].checked_call(self.instance, *arguments)  # in Python

    def grow(self, delta, value=None):
        if self.table.grow(delta, value) >= 0:
            self.growths.append(delta)

    def grow_by_libcall(self, delta):
        if self.libcall("table_grow", 0, delta, self.value) != 0xFFFFFFFF:
            self.growths.append(delta)

    def grow_memory(self, delta):
        if self.memory.grow(delta) >= 0:
            self.pages.append(delta)

    def grow_memory_by_libcall(self, delta):
        if self.libcall("memory32_grow", delta, 0) != 0xFFFFFFFF:
            self.pages.append(delta)

    def insert(self):
        self.libcall("activations_table_insert_with_gc", self.value)

    def fill_chunk(self):
        while self.activations._filled() < CHUNK_SIZE:
            assert self.activations.insert(self.value.as_raw())

    def get_all(self):
        return list(self.table), self.global_.value, list(self.other)

    def in_an_instance(self):
        table = Table("externref", 2)
        table[0] = "adopted"
        return Instance([Memory(1)], [table], [Global("externref", "adopted", True)])

    def check(self):
        """Compare the counts of all references with the places that hold them."""
        held = collections.Counter([self.value.as_raw()])
        for table in (self.table, self.other):
            if not table.closed:
                held.update(table.raw(0, len(table)))
        held.update(self.segment._cells[: len(self.segment)])
        if not self.global_.closed:
            held[self.global_.bits] += 1
        held.update(held_by(self.activations))
        del held[0]
        counts = {address: externref_boxes.strong_count(address) for address in held}
        assert counts == dict(held)
        assert self.table.current_size() == (0 if self.table.closed else sum(self.growths))
        assert self.memory.current_size() == (0 if self.memory.closed else sum(self.pages))
        at = self.table._reservation
        if at is not None:
            behind = externref_cells(at.address, 64)[len(self.table) :]
            assert not any(behind)

    def end(self):
        for each in (self.instance, self.table, self.other, self.memory, self.global_, self.value):
            each.close()


CHUNK_SIZE = 8


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Let a collection be short: every point in it is tried."""
    monkeypatch.setattr(activations_table, "CHUNK_SIZE", CHUNK_SIZE)


def externref_cells(address, count):
    import ctypes

    return (ctypes.c_size_t * count).from_address(address)


OPERATIONS = {
    "table.set": lambda w: w.table.__setitem__(1, "new"),
    "table.get": lambda w: w.get_all(),
    "table.grow": lambda w: w.grow(3, "grown"),
    "table.grow null": lambda w: w.grow(3),
    "table_grow": lambda w: w.grow_by_libcall(5),
    "table_fill": lambda w: w.libcall("table_fill", 0, 1, w.value, 3),
    "table_copy": lambda w: w.libcall("table_copy", 1, 0, 0, 1, 3),
    "table_copy within": lambda w: w.libcall("table_copy", 0, 0, 0, 1, 3),
    "table_init": lambda w: w.libcall("table_init", 0, 0, 1, 1, 3),
    "elem_drop": lambda w: w.libcall("elem_drop", 0),
    "memory.grow": lambda w: w.grow_memory(2),
    "memory32_grow": lambda w: w.grow_memory_by_libcall(2),
    "memory_fill": lambda w: w.libcall("memory_fill", 0, 0, 1, 65536),
    "global.set": lambda w: setattr(w.global_, "value", "new"),
    "externref_global_get": lambda w: w.libcall("externref_global_get", 0),
    "externref_global_set": lambda w: w.libcall("externref_global_set", 0, w.value),
    "insert": lambda w: w.insert(),
    "insert into a full chunk": lambda w: w.insert(),
    "gc": lambda w: asm_libcalls.gc(w.instance),
    "table.close": lambda w: w.table.close(),
    "memory.close": lambda w: w.memory.close(),
    "global.close": lambda w: w.global_.close(),
    "instance.close": lambda w: w.instance.close(),
    "clone": lambda w: w.value.clone().drop(),
}

INTRUDERS = {
    "grows the table": lambda w: w.table.closed or w.grow(7, "intruder"),
    "grows the memory": lambda w: w.memory.closed or w.grow_memory(3),
    "sets": lambda w: w.table.closed or w.table.__setitem__(1, "intruder"),
    "sets all": lambda w: [
        table.__setitem__(i, None)
        for table in (w.table, w.other)
        if not table.closed
        for i in range(4)
    ],
    "sets the global": lambda w: w.global_.closed or setattr(w.global_, "value", None),
    "drops the segment": lambda w: w.segment.drop(),
    "inserts": lambda w: w.instance.closed or w.insert(),
    "collects": lambda w: w.instance.closed or asm_libcalls.gc(w.instance),
    "closes the table": lambda w: w.table.close(),
    "closes the memory": lambda w: w.memory.close(),
    "closes the global": lambda w: w.global_.close(),
    "closes the instance": lambda w: w.instance.close(),
}


@pytest.mark.parametrize("intruder", INTRUDERS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_whole_whatever_comes_in_between(operation, intruder):
    gc.collect()
    boxes = externref_boxes.live_count()
    world = None

    def scene():
        nonlocal world
        world = World(asm_libcalls.LIBCALLS)
        intruding = world
        if operation == "insert into a full chunk":
            world.fill_chunk()
        return (
            lambda: OPERATIONS[operation](intruding),
            lambda: INTRUDERS[intruder](intruding),
        )

    def check(outcome, number):
        if isinstance(outcome, Exception):
            assert isinstance(outcome, (Trap, ValueError)), (number, repr(outcome))
            if isinstance(outcome, ValueError):
                words = ("closed", "no live instance")
                assert any(each in str(outcome) for each in words), (number, repr(outcome))
        world.check()
        world.end()
        assert externref_boxes.live_count() == boxes, number

    assert at_every_point(scene, check) > 1


@pytest.mark.parametrize("closes", [False, True])
def test_an_instance_adopts_what_grows_meanwhile(closes):
    """A definition that is moved into a VMContext takes growths along."""
    parts = []

    def scene():
        parts[:] = [Table("externref", 1), Memory(1), Global("externref", "first", True)]
        table, memory, global_ = parts

        def intrude():
            if closes:
                table.close()
                return
            assert table.grow(2, "grown") == 1
            assert memory.grow(3) == 1
            global_.value = "second"

        return lambda: Instance([memory], [table], [global_]), intrude

    def check(outcome, number):
        table, memory, global_ = parts
        if closes:
            assert isinstance(outcome, Instance) or "closed" in str(outcome)
            return
        assert isinstance(outcome, Instance), repr(outcome)
        assert list(table) == [None, "grown", "grown"]
        assert (memory.size, global_.value) == (4, "second")
        assert outcome.tables[0] is table

    assert at_every_point(scene, check) > 10


@pytest.mark.parametrize("kind", ["table", "memory"])
def test_growing_while_a_collection_grows(kind):
    """Until 3.11 a collection begins in the middle of an allocation, wherever that is."""
    table, memory = Table("externref", 100), Memory(1)
    table[99] = "kept"
    sizes = {"table": 100, "memory": 1}
    step = {"table": 20_000, "memory": 2}[kind]
    grow = {"table": table.grow, "memory": memory.grow}[kind]

    class Grower:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            if grow(step) >= 0:
                sizes[kind] += step

    threshold = gc.get_threshold()
    try:
        for allocations in range(1, 60):
            gc.collect()
            Grower()
            gc.set_threshold(allocations, 1000, 1000)
            grown = grow(1) >= 0
            gc.set_threshold(0)
            sizes[kind] += grown
            assert (len(table), memory.size) == (sizes["table"], sizes["memory"])
    finally:
        gc.set_threshold(*threshold)
        gc.collect()
    assert table[99] == "kept"
    assert list(table)[100:] == [None] * (len(table) - 100)


@pytest.mark.parametrize("kind", ["table", "memory"])
def test_threads_that_grow_lose_no_growth(kind):
    table, memory = Table("externref", 0), Memory(0)
    grow, size = {
        "table": (lambda: table.grow(1, "new"), lambda: len(table)),
        "memory": (lambda: memory.grow(1), lambda: memory.size),
    }[kind]
    grown = []

    def work():
        for _ in range(500):
            grown.append(grow())  # noqa: PERF401 - another thread appends meanwhile

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(grown) == list(range(2000))
    assert size() == 2000


def test_a_signal_handler_that_stores_into_the_table_being_read():
    table = Table("externref", 1)
    table[0] = "first"
    count = 0

    def handler(number, frame):
        nonlocal count
        table[0] = f"by the handler {count}"
        count += 1

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while count < 300:
            assert isinstance(table[0], str)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
