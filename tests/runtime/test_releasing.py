"""What closed objects and garbage own is released once no native code may use it."""

import gc
import threading
import weakref
from types import SimpleNamespace

import pytest
from jit_modules import EXTERNREFS, Function, instantiate

from asm_libcalls.runtime import externref_boxes as boxes
from asm_libcalls.runtime import releasing


class Marker:
    """An object that weak references may refer to."""


@pytest.fixture(autouse=True)
def unwatched():
    """No earlier test has had collections watched."""
    gc.collect()
    assert not releasing._later
    if releasing._on_collection in gc.callbacks:
        gc.callbacks.remove(releasing._on_collection)


@pytest.mark.usefixtures("machine_code")
class TestClosedByAHostFunction:
    """The function gets element 3 of a table, passes it on or drops it, and calls ``h``."""

    def run(self, body, result, h):
        function = Function(f"-> {result}", f"i32.const 03 table.get 00 {body} call 00")
        exports = [bytes([1, ord("t"), 1, 0])]
        instance = instantiate(
            {"f": function}, {"h": "->"}, {"h": h}, exports=exports, **EXTERNREFS
        )
        instance.exports["t"][3] = thing = Marker()
        self.instance, self.reference = instance, weakref.ref(thing)
        del thing
        return instance.exports["f"]()

    def close(self):
        self.instance.exports["t"][3] = None
        assert self.reference() is not None
        self.instance.close()

    def test_what_a_frame_holds_is_kept_until_a_collection(self):
        result = self.run("", "externref", self.close)
        assert result is self.reference()
        del result
        assert releasing._on_collection in gc.callbacks
        gc.collect()
        assert self.reference() is None

    def test_what_no_frame_holds_is_dropped_at_once(self):
        seen = []

        def close():
            self.close()
            seen.append(self.reference())

        self.run("drop", "", close)
        assert seen == [None]


class TestUsed:
    """Something tells that another thread may use the part."""

    @pytest.fixture(params=["user_finders", "_borrowed"])
    def part(self, request, monkeypatch):
        self.used, part = True, Marker()
        if request.param == "_borrowed":
            table = SimpleNamespace(closed=False, holds_what_is_in_transit=lambda: True)
            row = releasing.Borrowed(table, None, lambda: self.used, [], [part])
            monkeypatch.setattr(releasing, "_borrowed", [row])
        else:
            monkeypatch.setattr(
                releasing,
                "user_finders",
                [lambda each: (lambda: self.used) if each is part else None],
            )
        return part

    def test_a_release_waits(self, part):
        done = []
        releasing.release_when_unused(Marker(), lambda: done.append("another"))
        assert done == ["another"]
        releasing.release_when_unused(part, lambda: done.append("part"))
        gc.collect()
        assert done == ["another"]
        self.used = False
        gc.collect()
        assert done == ["another", "part"]
        gc.collect()
        assert done == ["another", "part"]

    def test_one_that_raises_is_done_again_and_the_others_all_the_same(self, part):
        done = []

        def raises():
            done.append("raises")
            if len(done) < 3:
                raise KeyError("first")

        for release in (lambda: done.append("before"), raises, lambda: done.append("after")):
            releasing.release_when_unused(part, release)
        self.used = False
        with pytest.raises(KeyError, match="first"):
            releasing.drop_unused_references()
        assert sorted(done) == ["after", "before", "raises"]
        releasing.drop_unused_references()
        assert sorted(done) == ["after", "before", "raises", "raises"]
        releasing.drop_unused_references()
        assert len(done) == 4


class TestCountsOfAnotherThread:
    @pytest.fixture(autouse=True)
    def record(self, monkeypatch):
        self.record = SimpleNamespace(innermost=0)
        finders = [lambda thread: self.record if thread == 1234 else None]
        monkeypatch.setattr(releasing, "record_finders", finders)

    @pytest.mark.parametrize("owners", [1, 2, 3])
    @pytest.mark.parametrize("given", [1, 2])
    def test_they_are_given_back_when_it_has_left_native_code(self, owners, given):
        thing = Marker()
        reference, counts = weakref.ref(thing), boxes.new_box(thing)
        del thing
        (address,) = counts
        for _ in range(max(owners, given) - 1):
            boxes.retain(address)
        counts += [address] * (given - 1)
        left = max(owners, given) - given
        self.record.innermost = 1
        releasing.give_back_outside(1234, counts)
        gc.collect()
        assert boxes.strong_count(address) == left + given
        self.record.innermost = 0
        gc.collect()
        assert not releasing._later
        assert (reference() is None) == (left == 0)
        if left:
            assert boxes.strong_count(address) == left
            boxes.Counts([address] * left).give_back()
        assert reference() is None

    @pytest.mark.parametrize("thread", [1234, 5678])
    def test_at_once_if_it_runs_none(self, thread):
        """Another thread, of which nothing is known, counts in no native code."""
        self.record.innermost = int(thread != 1234)
        thing = Marker()
        reference, counts = weakref.ref(thing), boxes.new_box(thing)
        del thing
        releasing.give_back_outside(thread, counts)
        assert reference() is None
        assert not releasing._later

    def test_dead_boxes_are_refused(self):
        counts = boxes.new_box(Marker())
        (address,) = counts
        counts.give_back()
        dead = boxes.Counts([address])
        with pytest.raises(ValueError, match="empty"):
            releasing._count_down(dead, self.record)
        dead.clear()


class Closes:
    """A table or segment that can be closed, and may raise then."""

    def __init__(self, error=None):
        self.closed, self.error = False, error

    def holds_what_is_in_transit(self):
        return False

    def close(self):
        if self.error is not None:
            raise self.error
        self.closed = True


class TestInstanceThatAThreadClosed:
    @pytest.fixture(autouse=True)
    def rows(self, monkeypatch):
        self.rows = []
        monkeypatch.setattr(releasing, "_borrowed", self.rows)

    def add(self, owner=None, error=None):
        segment, table = Closes(error), Closes()
        row = releasing.Borrowed(table, None, None, [segment], [])
        if owner is not None:
            row.owner = owner
        self.rows.append(row)
        return segment, table

    def test_it_is_released_in_that_thread(self):
        parts = [*self.add(), *self.add()]
        releasing.drop_unused_references()
        assert all(part.closed for part in parts)
        assert self.rows == []

    def test_it_is_released_in_another_one_when_that_has_ended(self):
        begun, ends = threading.Event(), threading.Event()
        thread = threading.Thread(target=lambda: (begun.set(), ends.wait()))
        thread.start()
        begun.wait()
        segment, table = self.add(thread.ident)
        own = self.add()
        releasing.drop_unused_references()
        assert all(part.closed for part in own)
        assert not segment.closed
        assert not table.closed
        assert len(self.rows) == 1
        ends.set()
        thread.join()
        releasing.drop_unused_references()
        assert segment.closed
        assert table.closed
        assert self.rows == []

    def test_an_error_keeps_it_and_releases_the_others(self):
        segment, table = self.add(error=KeyError("first"))
        other = self.add()
        with pytest.raises(KeyError, match="first"):
            releasing.drop_unused_references()
        assert all(part.closed for part in other)
        assert not table.closed
        assert len(self.rows) == 1
        segment.error = None
        releasing.drop_unused_references()
        assert table.closed
        assert self.rows == []
