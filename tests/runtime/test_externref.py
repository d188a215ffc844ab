"""VMExternRef: exact counts, identity, dangling pointers, re-entrant destructors, no leak."""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import pickle
import random
import sys
import threading
import weakref

import pytest
from in_threads import in_threads, switching_every

import asm_libcalls
from asm_libcalls import Global, Instance, Table, VMExternRef
from asm_libcalls.runtime import externref_boxes


class Thing:
    """Something with a weakref."""


def u64(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


class TestCounts:
    def test_new_clone_drop(self):
        value = Thing()
        first = VMExternRef(value)
        address = first.as_raw()
        assert first.strong_count() == 1 == u64(address)
        second = first.clone()
        third = VMExternRef.clone_from_raw(address)
        assert [r.strong_count() for r in (first, second, third)] == [3, 3, 3]
        assert u64(address) == 3
        assert u64(address + 8) == id(value)
        second.drop()
        second.drop()
        assert first.strong_count() == 2
        del third
        assert first.strong_count() == 1
        with first.clone() as fourth:
            assert fourth.strong_count() == 2
        assert first.strong_count() == 1

    def test_the_last_one_drops_the_value(self):
        value = Thing()
        ref = weakref.ref(value)
        first = VMExternRef(value)
        second = first.clone()
        del value
        first.drop()
        assert ref() is second.value
        second.drop()
        assert ref() is None

    def test_the_value_counts_once_in_python(self):
        value = Thing()
        before = sys.getrefcount(value)
        first = VMExternRef(value)
        clones = [first.clone() for _ in range(10)]
        assert sys.getrefcount(value) == before + 1
        del first, clones
        assert sys.getrefcount(value) == before

    def test_any_value(self):
        for value in (None, 0, "", [], Ellipsis, VMExternRef, Thing(), VMExternRef(1)):
            assert VMExternRef(value).value is value

    def test_native_code_counts_too(self):
        """Compiled code counts up and down by itself: it adds to the first word of the box."""
        ref = VMExternRef(Thing())
        count = ctypes.c_uint64.from_address(ref.as_raw())
        count.value += 5
        assert ref.strong_count() == 6
        clone = ref.clone()
        count.value -= 4
        assert ref.strong_count() == 3
        clone.drop()
        count.value -= 1
        assert ref.strong_count() == 1

    def test_native_code_drops_the_last(self, binding):
        value = Thing()
        gone = weakref.ref(value)
        ref = VMExternRef(value)
        del value
        address = ref.as_raw()
        externref_boxes.retain(address)
        ref.drop()  # the test owns the only count now, as compiled code may
        count = ctypes.c_uint64.from_address(address)
        assert count.value == 1
        with pytest.raises(ValueError, match=f"the externref at {address:#x} still has 1 owner"):
            binding.libcalls["drop_externref"](address)
        count.value -= 1
        binding.libcalls["drop_externref"](address)
        assert gone() is None
        assert not externref_boxes.is_live(address)
        with pytest.raises(ValueError, match=f"no live externref at address {address:#x}"):
            binding.libcalls["drop_externref"](address)

    def test_counts_against_a_model(self, random_cases: random.Random):
        """Random operations of all owners, compared with a dictionary."""
        values = [Thing() for _ in range(5)]
        owners: list[tuple[int, VMExternRef]] = [(i, VMExternRef(v)) for i, v in enumerate(values)]
        boxes = {i: ref.as_raw() for i, ref in owners}
        table, global_ = Table("externref", 4), Global("externref", None, True)
        in_table: list[int | None] = [None] * 4
        in_global: int | None = None
        for _ in range(3000):
            chosen = random_cases.randrange(len(owners))
            which, ref = owners[chosen]
            action = random_cases.randrange(5)
            if action == 0:
                owners.append((which, ref.clone()))
            elif action == 1 and sum(w == which for w, _ in owners) > 1:
                del owners[chosen]
                ref.drop()
            elif action == 2:
                at = random_cases.randrange(4)
                table[at], in_table[at] = ref, which
            elif action == 3:
                at = random_cases.randrange(4)
                table[at], in_table[at] = None, None
            elif action == 4:
                global_.value, in_global = ref, which
            for i, address in boxes.items():
                expected = sum(w == i for w, _ in owners)
                expected += in_table.count(i) + (in_global == i)
                assert u64(address) == expected


class TestIdentity:
    def test_equal_by_the_box_not_the_value(self):
        first, other = VMExternRef("same"), VMExternRef("same")
        assert first == first.clone()
        assert first != other
        assert first != "same"
        assert len({first, first.clone(), other}) == 2

    def test_a_dropped_one_equals_itself_alone(self):
        first, second = VMExternRef(1), VMExternRef(2)
        kept = {first: "first"}
        before = hash(first)
        first.drop()
        second.drop()
        assert first != second
        assert first == first
        assert hash(first) == before
        assert kept[first] == "first"
        new = [VMExternRef(3) for _ in range(600)]  # some box of these was the first one's
        assert first not in new

    def test_dropped(self):
        ref = VMExternRef(1)
        ref.drop()
        assert repr(ref) == "<VMExternRef dropped>"
        for use in (lambda: ref.value, ref.clone, ref.as_raw, ref.strong_count):
            with pytest.raises(ValueError, match="the VMExternRef was dropped"):
                use()
        for use in (
            lambda: Table("externref", 1).__setitem__(0, ref),
            lambda: Global("externref", ref),
            lambda: Instance(elements=[("externref", [ref])]),
        ):
            with pytest.raises(ValueError, match="the VMExternRef was dropped"):
                use()

    def test_repr(self):
        ref = VMExternRef("x")
        assert repr(ref) == "<VMExternRef to 'x', 1 owner>"

    @pytest.mark.parametrize("make_copy", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_is_not_copied(self, make_copy):
        ref = VMExternRef("x")
        with pytest.raises(TypeError, match="VMExternRef objects cannot be copied"):
            make_copy(ref)
        assert ref.strong_count() == 1


class TestCloneFromRaw:
    def test_of_the_dead(self):
        ref = VMExternRef(1)
        address = ref.as_raw()
        ref.drop()
        with pytest.raises(ValueError, match=f"no live externref at address {address:#x}"):
            VMExternRef.clone_from_raw(address)

    @pytest.mark.parametrize("address", [0, 1, -1, 8, 1 << 47, 1 << 64, 1 << 5000])
    def test_of_garbage(self, address):
        with pytest.raises(ValueError, match="no live externref at address"):
            VMExternRef.clone_from_raw(address)

    @pytest.mark.parametrize("address", [None, "x", 1.0, b"12345678", object()])
    def test_of_no_address(self, address):
        with pytest.raises(TypeError, match=r"clone_from_raw\(\): address must be an int, got"):
            VMExternRef.clone_from_raw(address)

    def test_of_the_inside_of_a_box(self):
        ref = VMExternRef(1)
        for offset in (1, 4, 8, 15):
            with pytest.raises(ValueError, match="no live externref"):
                VMExternRef.clone_from_raw(ref.as_raw() + offset)
        assert ref.strong_count() == 1

    def test_a_box_is_used_again_with_a_new_value(self):
        seen = set()
        for i in range(2000):
            ref = VMExternRef(i)
            assert ref.strong_count() == 1
            assert ref.value == i
            seen.add(ref.as_raw())
            ref.drop()
        assert len(seen) <= 256

    def test_boxes_are_aligned_and_apart(self):
        refs = [VMExternRef(i) for i in range(1000)]
        addresses = sorted(ref.as_raw() for ref in refs)
        assert all(address % 8 == 0 for address in addresses)
        assert all(b - a >= 16 for a, b in itertools.pairwise(addresses))
        assert [ref.value for ref in refs] == list(range(1000))


class TestDestructors:
    @pytest.mark.parametrize(
        "error", [ValueError("no"), KeyboardInterrupt(), MemoryError(), SystemExit(3)]
    )
    def test_what_they_raise_arrives_unchanged(self, error, capfd):
        class Raises:
            def __del__(self):
                raise error

        ref = VMExternRef(Raises())
        hook = sys.unraisablehook
        with pytest.raises(type(error)) as caught:
            ref.drop()
        assert caught.value is error
        assert sys.unraisablehook is hook
        assert capfd.readouterr() == ("", "")
        ref.drop()

    def test_weakref_callbacks_too(self):
        error = ValueError("in a callback")

        def callback(ref):
            raise error

        thing = Thing()
        watch = weakref.ref(thing, callback)
        ref = VMExternRef(thing)
        del thing
        with pytest.raises(ValueError, match="in a callback") as caught:
            ref.drop()
        assert caught.value is error
        assert watch() is None

    def test_re_enter(self):
        """A destructor drops the next one, which drops the next one, ..."""
        gone = []

        class Link:
            def __init__(self, number, following):
                self.number, self.following = number, following

            def __del__(self):
                gone.append(self.number)
                if self.following is not None:
                    self.following.drop()

        ref = None
        for number in range(50):
            ref = VMExternRef(Link(number, ref))
        ref.drop()
        assert gone == list(reversed(range(50)))

    def test_re_enter_and_raise(self):
        """The inner error belongs to its own drop, whose caller gets it, and may go on."""
        heard = []

        class Inner:
            def __del__(self):
                raise ValueError("inner")

        class Outer:
            def __init__(self):
                self.inner = VMExternRef(Inner())

            def __del__(self):
                try:
                    self.inner.drop()
                except ValueError as error:
                    heard.append(str(error))
                raise OSError("outer")

        ref = VMExternRef(Outer())
        with pytest.raises(OSError, match="outer"):
            ref.drop()
        assert heard == ["inner"]

    def test_make_new_references(self):
        made = []

        class Makes:
            def __del__(self):
                made.append(VMExternRef("new"))
                made.append(made[0].clone())

        ref = VMExternRef(Makes())
        ref.drop()
        assert [r.value for r in made] == ["new", "new"]
        assert made[0].strong_count() == 2

    def test_resurrect_the_value(self):
        kept = []

        class Survives:
            def __del__(self):
                kept.append(self)

        ref = VMExternRef(Survives())
        address = ref.as_raw()
        ref.drop()
        assert len(kept) == 1
        assert not externref_boxes.is_live(address)
        again = VMExternRef(kept[0])
        assert again.value is kept[0]

    def test_other_unraisable_exceptions_go_where_they_went(self, monkeypatch):
        """While a destructor runs here, unraisable exceptions of other threads stay theirs."""
        theirs = []
        monkeypatch.setattr(sys, "unraisablehook", lambda args: theirs.append(args.exc_value))
        inside, done = threading.Event(), threading.Event()

        class Waits:
            def __del__(self):
                inside.set()
                done.wait(60)
                raise ValueError("ours")

        class Raises:
            def __del__(self):
                raise OSError("theirs")

        def other():
            inside.wait(60)
            Raises()
            done.set()

        thread = threading.Thread(target=other)
        thread.start()
        ref = VMExternRef(Waits())
        with pytest.raises(ValueError, match="ours"):
            ref.drop()
        thread.join()
        assert [str(error) for error in theirs] == ["theirs"]
        Raises()
        assert [str(error) for error in theirs] == ["theirs", "theirs"]
        theirs.clear()

    def test_a_hook_of_the_user_s_stays(self, monkeypatch):
        """A hook that a destructor sets stays."""
        mine = lambda args: None  # noqa: E731

        class Sets:
            def __del__(self):
                sys.unraisablehook = mine

        monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
        VMExternRef(Sets()).drop()
        assert sys.unraisablehook is mine

    def test_of_a_dead_reference_are_printed_as_python_does(self, monkeypatch):
        """``__del__`` of the VMExternRef itself cannot raise."""
        printed = []
        monkeypatch.setattr(sys, "unraisablehook", lambda args: printed.append(args.exc_value))
        error = ValueError("no")

        class Raises:
            def __del__(self):
                raise error

        ref = VMExternRef(Raises())
        del ref
        assert printed == [error]
        printed.clear()


class TestNoLeak:
    def test_everything_dies_with_the_last_reference(self):
        things = [Thing() for _ in range(2000)]
        refs = [weakref.ref(thing) for thing in things]
        externs = [VMExternRef(thing) for thing in things]
        clones = [each.clone() for each in externs] + [
            VMExternRef.clone_from_raw(each.as_raw()) for each in externs
        ]
        addresses = [each.as_raw() for each in externs]
        del things, externs
        gc.collect()
        assert all(ref() for ref in refs)
        del clones
        assert not any(ref() for ref in refs)
        assert not any(map(externref_boxes.is_live, addresses))

    @pytest.mark.parametrize("how", ["clone", "clone_from_raw", "new"])
    def test_a_cycle_gives_back_each_count_once(self, how):
        make = {
            "clone": VMExternRef.clone,
            "clone_from_raw": lambda each: VMExternRef.clone_from_raw(each.as_raw()),
            "new": lambda each: VMExternRef(each.value),
        }[how]
        kept = [VMExternRef(i) for i in range(100)]
        thing = Thing()
        thing.itself, thing.owns = thing, [make(each) for each in kept]
        watch = weakref.ref(thing)
        del thing
        gc.collect()
        assert watch() is None
        assert [each.strong_count() for each in kept] == [1] * 100

    def test_an_error_keeps_nothing(self):
        class Raises:
            def __del__(self):
                raise ValueError("no")

        refs = []
        for _ in range(100):
            value = Raises()
            refs.append(weakref.ref(value))
            ref = VMExternRef(value)
            del value
            with pytest.raises(ValueError, match="no"):
                ref.drop()
        gc.collect()
        assert not any(ref() for ref in refs)

    def test_at_exit_with_live_things(self, child):
        done = child(
            """
            import atexit, sys, threading
            from asm_libcalls import *
            from asm_libcalls import (Global, HostFunction, Instance, Memory, Table, VMExternRef,
                                      LIBCALLS, catch_traps)

            class Speaks:
                def __init__(self, name):
                    self.name = name
                def __del__(self):
                    print("gone", self.name, flush=True)

            held = VMExternRef(Speaks("held"))
            class Holder:
                ref = VMExternRef(Speaks("class attribute"))
            cycle = [VMExternRef(Speaks("cycle"))]
            cycle.append(cycle)
            table = Table("externref", 2)
            table[0] = Speaks("element")
            host = HostFunction(lambda: 5, "() -> i32")
            memory = Memory(1)
            view = memoryview(memory)
            import numpy
            array = numpy.frombuffer(memory, "u1")
            instance = Instance([memory], [table], [Global("externref", Speaks("global"), True)],
                                functions=[(host.address, 1)],
                                elements=[("externref", [Speaks("segment")])])
            externref_global_get(instance, 0)
            call = catch_traps(host.address, host.signature)
            assert call() == 5
            atexit.register(lambda: print("exit", call(), flush=True))
            def body():
                threading.local().ref = VMExternRef(Speaks("thread"))
            thread = threading.Thread(target=body); thread.start(); thread.join()
            sys.modules["keeps"] = instance
            """,
        )
        assert done.stderr == ""
        assert "exit 5" in done.stdout
        assert "gone thread" in done.stdout

    def test_at_exit_destructor_raises(self, child):
        done = child(
            """
            from asm_libcalls import VMExternRef
            class Raises:
                def __del__(self):
                    raise ValueError("at exit")
            ref = VMExternRef(Raises())
            other = VMExternRef(Raises())
            """
        )
        assert done.returncode == 0


class TestThreads:
    @pytest.fixture(autouse=True)
    def _switch_often(self):
        with switching_every(1e-6):
            yield

    def test_each_with_its_own(self):
        def work(seed: int) -> None:
            source = random.Random(seed)
            for _ in range(300):
                value = Thing()
                gone = weakref.ref(value)
                refs = [VMExternRef(value)]
                del value
                for _ in range(source.randrange(6)):
                    refs.append(source.choice(refs).clone())
                assert refs[0].strong_count() == len(refs)
                source.shuffle(refs)
                while refs:
                    assert gone() is refs[0].value
                    refs.pop().drop()
                assert gone() is None

        in_threads(work, range(8))

    def test_errors_of_destructors_reach_the_thread_that_drops(self):
        class Raises:
            def __init__(self, name):
                self.name = name

            def __del__(self):
                raise ValueError(self.name)

        def work(name: str) -> None:
            for i in range(200):
                ref = VMExternRef(Raises(f"{name} {i}"))
                with pytest.raises(ValueError, match=f"^{name} {i}$"):
                    ref.drop()

        hook = sys.unraisablehook
        in_threads(work, [f"thread{i}" for i in range(8)])
        assert sys.unraisablehook is hook


def test_garbage_collected_while_something_is_dropped():
    """Python's collector runs destructors in the middle of anything, also of another drop."""

    class Cyclic:
        def __init__(self):
            self.own = self
            self.ref = VMExternRef(Thing())

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for _ in range(300):
            Cyclic()
            VMExternRef(Thing()).drop()
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()


def test_libcalls_take_references_and_addresses():
    ref = VMExternRef(Thing())
    instance = Instance(globals=[Global("externref", None, True)])
    asm_libcalls.externref_global_set(instance, 0, ref)
    asm_libcalls.externref_global_set(instance.vmctx, 0, ref.as_raw())
    assert ref.strong_count() == 2
    asm_libcalls.activations_table_insert_with_gc(instance, ref)
    assert ref.strong_count() == 3
    assert len(instance.activations_table) == 1


def test_many_lost_counts_are_given_back():
    """In time proportional to their number: each was quadratic, so an element segment was too."""
    reference = VMExternRef("x")
    for _ in range(200_000):
        externref_boxes.hold(reference.as_raw())
    VMExternRef(None).drop()
    assert reference.strong_count() == 1
    nulls = asm_libcalls.ElementSegment("externref", [None] * 200_000)
    Instance(elements=[nulls]).close()
    assert not externref_boxes._lost


@pytest.mark.parametrize(
    "use",
    [
        lambda reference: reference.value,
        lambda reference: reference.clone(),
        lambda reference: Table("externref", 1).__setitem__(0, reference),
    ],
    ids=["value", "clone", "table"],
)
def test_a_reference_that_another_thread_drops_meanwhile_is_never_another_one(use, monkeypatch):
    reference = VMExternRef("dropped")
    others = []
    as_raw = VMExternRef.as_raw

    def interrupted(self):
        address = as_raw(self)
        monkeypatch.undo()
        reference.drop()
        others.append(VMExternRef("another one"))
        assert as_raw(others[0]) == address  # the box is used again
        return address

    monkeypatch.setattr(VMExternRef, "as_raw", interrupted)
    with pytest.raises(ValueError, match="dropped"):
        use(reference)
    assert others[0].strong_count() == 1
