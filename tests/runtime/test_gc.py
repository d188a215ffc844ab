"""The GC of externrefs: the walk finds exactly the references in native frames.

The frames are real: machine code with frame pointers and stack maps, entered and left as a JIT's
would be.
"""

from __future__ import annotations

import ctypes
import gc as python_gc
import itertools
import threading
import weakref

import pytest
from gc_frames import HOLD, HOLD_MAPS, Thing, borrowed, call_host, hold_body
from native_code import (
    ADD, CALL_SLOT, DEC, INC, JNZ, LABEL, MOV, Label, NativeCode, call, frame, qword, r12, r13, r14,
    rax, rbp, rdi, rdx, rsi, slot_at,
)  # fmt: skip
from peachpy.x86_64 import CMP, JE, JMP, RET

import asm_libcalls
from asm_libcalls import (
    HostFunction,
    Instance,
    StackMapRegistry,
    Trap,
    TrapCode,
    VMExternRef,
    catch_traps,
    gc,
)
from asm_libcalls.native.stack_walker import stack_frames
from asm_libcalls.runtime.activations_table import CHUNK_SIZE

pytestmark = pytest.mark.usefixtures("machine_code")


class TestFramesHold:
    def test_what_the_stack_map_names_until_it_names_it_no_more(self, instance, host, hold):
        a, a_ref = borrowed(instance, Thing())
        b, b_ref = borrowed(instance, Thing())
        c, c_ref = borrowed(instance, Thing())
        seen = []

        def collect():
            gc(instance)
            seen.append((a_ref() is not None, b_ref() is not None, c_ref() is not None))

        host.do = collect
        assert catch_traps(hold["hold"], HOLD)(instance.vmctx, a, b) == a
        assert seen == [(True, True, False), (True, False, False)]
        assert a_ref() is not None  # the last collection saw it
        gc(instance)
        assert a_ref() is None
        assert len(instance.activations_table) == 0
        with pytest.raises(ValueError, match="no live externref"):
            VMExternRef.clone_from_raw(c)

    def test_counts_afterwards_are_one_for_the_table(self, instance, host, hold):
        value = VMExternRef(Thing())
        for _ in range(100):
            asm_libcalls.activations_table_insert_with_gc(instance, value)
        assert value.strong_count() == 101
        counts = []

        def collect():
            gc(instance)
            counts.append(value.strong_count())

        host.do = collect
        raw = value.as_raw()
        catch_traps(hold["hold"], HOLD)(instance.vmctx, raw, raw)
        assert counts == [2, 2]
        gc(instance)
        assert value.strong_count() == 1

    def test_null_slots_are_nothing(self, instance, host, hold):
        host.do = lambda: gc(instance)
        assert catch_traps(hold["hold"], HOLD)(instance.vmctx, 0, 0) == 0

    def test_a_call_site_without_a_map_holds_nothing(self, instance, host):
        code = NativeCode({"hold": hold_body}, {"host": host.address})
        a, a_ref = borrowed(instance, Thing())
        seen = []
        host.do = lambda: (gc(instance), seen.append(a_ref()))
        catch_traps(code["hold"], HOLD)(instance.vmctx, a, 0)
        assert seen == [None, None]

    def test_unregistered_maps_hold_nothing(self, instance, host, hold, registry):
        a, a_ref = borrowed(instance, Thing())
        b, b_ref = borrowed(instance, Thing())
        seen = []

        def collect():
            gc(instance)
            seen.append((a_ref() is None, b_ref() is None))
            if len(seen) == 1:
                registry.unregister(hold["hold"])

        host.do = collect
        catch_traps(hold["hold"], HOLD)(instance.vmctx, a, b)
        assert seen == [(False, False), (True, True)]

    def test_not_what_another_thread_s_frames_hold(self, instance, host, hold):
        """As a Wasmtime Store, an instance is for one thread: only its frames count."""
        a, a_ref = borrowed(instance, Thing())
        inside, go_on = threading.Event(), threading.Event()
        host.do = lambda: (inside.set(), go_on.wait(60))

        def native():
            catch_traps(hold["hold"], HOLD)(instance.vmctx, a, 0)

        thread = threading.Thread(target=native)
        thread.start()
        assert inside.wait(60)
        gc(instance)
        assert a_ref() is None
        go_on.set()
        thread.join()

    def test_after_a_trap_nothing_is_held(self, instance, host, hold):
        a, a_ref = borrowed(instance, Thing())

        def trap():
            gc(instance)
            assert a_ref() is not None
            raise Trap(TrapCode.UNREACHABLE_CODE_REACHED)

        host.do = trap
        with pytest.raises(asm_libcalls.UnreachableCodeReached):
            catch_traps(hold["hold"], HOLD)(instance.vmctx, a, a)
        assert a_ref() is not None
        gc(instance)
        assert a_ref() is None


class TestNesting:
    def test_frames_of_all_activations_count(self, instance, host, hold):
        """Native code, host, native code, host: a collection inside sees both."""
        outer, outer_ref = borrowed(instance, Thing())
        inner, inner_ref = borrowed(instance, Thing())
        seen = []
        function = catch_traps(hold["hold"], HOLD)

        def in_inner():
            gc(instance)
            seen.append(("inner", outer_ref() is not None, inner_ref() is not None))

        def in_outer():
            host.do = in_inner
            if not seen:
                function(instance.vmctx, inner, 0)
            host.do = in_outer
            gc(instance)
            seen.append(("outer", outer_ref() is not None, inner_ref() is not None))

        host.do = in_outer
        function(instance.vmctx, outer, 0)
        assert seen == [
            ("inner", True, True),
            ("inner", True, True),
            ("outer", True, False),
            ("outer", True, False),
        ]

    def test_frames_of_code_that_another_registry_knows(self, instance, host, hold):
        """Instances that call each other may have a registry each."""
        other = Instance(stack_map_registry=StackMapRegistry())
        pointer, ref = borrowed(other, Thing())
        alive = []

        def collect():
            gc(other)
            alive.append(ref() is not None)

        host.do = collect
        catch_traps(hold["hold"], HOLD)(instance.vmctx, pointer, 0)
        assert set(alive) == {True}
        gc(other)
        assert ref() is None

    def test_a_hundred_deep(self, instance, host, hold):
        function = catch_traps(hold["hold"], HOLD)
        refs = []
        depth = 0
        collected = []

        def nest():
            nonlocal depth
            depth += 1
            if depth <= 100:
                pointer, ref = borrowed(instance, Thing())
                refs.append(ref)
                function(instance.vmctx, pointer, 0)
            elif depth == 101:
                gc(instance)
                collected.append(sum(ref() is not None for ref in refs))
                frames = list(stack_frames())
                collected.append(len(frames))
                raise Trap(TrapCode.INTERRUPT)

        host.do = nest
        with pytest.raises(asm_libcalls.Interrupt):
            nest()
        assert collected == [100, 100]
        gc(instance)
        assert not any(ref() for ref in refs)

    def test_native_to_native_frames_count_one_by_one(self, instance, host, registry):
        """Three functions that call each other, each holding something of its own."""

        def outermost() -> None:  # (vmctx, array of three references)
            with frame(1):
                MOV(rax, [rsi])
                MOV([rbp + slot_at(0)], rax)
                CALL_SLOT("middle")
                LABEL(Label("site"))

        def middle() -> None:
            with frame(3):
                MOV(rax, [rsi + 8])
                MOV([rbp + slot_at(2)], rax)
                CALL_SLOT("innermost")
                LABEL(Label("site"))

        def innermost() -> None:
            with frame(2):
                MOV(rax, [rsi + 16])
                MOV([rbp + slot_at(1)], rax)
                CALL_SLOT("host")
                LABEL(Label("site"))

        code = NativeCode(
            {"outermost": outermost, "middle": middle, "innermost": innermost},
            {"host": host.address, "middle": 0, "innermost": 0},
        )
        for name in ("middle", "innermost"):
            code.loaded.set_slot(name, code[name])
        for name, slot in (("outermost", 0), ("middle", 2), ("innermost", 1)):
            code.register(registry, name, {"site": [slot]})
        pairs = [borrowed(instance, Thing()) for _ in range(4)]
        pointers = (ctypes.c_uint64 * 3)(*(pointer for pointer, _ in pairs[:3]))
        seen = []

        def collect():
            frames = list(stack_frames())
            assert len(frames) == 3
            assert all(frame < caller for (_, frame), (_, caller) in itertools.pairwise(frames))
            gc(instance)
            seen.append([ref() is not None for _, ref in pairs])

        host.do = collect
        catch_traps(code["outermost"], "(vmctx, pointer)")(
            instance.vmctx, ctypes.addressof(pointers)
        )
        assert seen == [[True, True, True, False]]


class TestBumpChunk:
    """The table that native code fills inline, until it is full."""

    @staticmethod
    def insert_inline() -> None:
        """(table, reference, count): insert as compiled code does, until the chunk is full."""
        loop = Label("loop")
        LABEL(loop)
        MOV(rax, [rdi])
        MOV([rax], rsi)
        INC(qword[rsi])
        ADD(qword[rdi], 8)
        DEC(rdx)
        JNZ(loop)
        RET()

    @staticmethod
    def insert_all() -> None:
        """(vmctx, array, count): insert each reference, inline or by the libcall; hold the last."""
        loop, full, inserted, done = (Label(n) for n in ("loop", "full", "inserted", "done"))
        with frame(2):
            MOV([rbp + slot_at(1)], rdi)
            MOV(r12, rsi)
            MOV(r13, rdx)
            LABEL(loop)
            MOV(rsi, [r12])
            MOV([rbp + slot_at(0)], rsi)
            MOV(rdi, [rbp + slot_at(1)])
            MOV(r14, [rdi + 8])
            MOV(rax, [r14])
            CMP(rax, [r14 + 8])
            JE(full)
            MOV([rax], rsi)
            INC(qword[rsi])
            ADD(qword[r14], 8)
            LABEL(inserted)
            ADD(r12, 8)
            DEC(r13)
            JNZ(loop)
            MOV(rax, [rbp + slot_at(0)])
            JMP(done)
            LABEL(full)
            CALL_SLOT("insert")
            LABEL(Label("site"))
            JMP(inserted)
            LABEL(done)

    @pytest.fixture
    def code(self, registry):
        insert = asm_libcalls.LIBCALLS["activations_table_insert_with_gc"].address
        code = NativeCode(
            {"inline": self.insert_inline, "all": self.insert_all}, {"insert": insert}
        )
        code.register(registry, "all", {"site": [0]})
        return code

    def test_native_code_fills_it(self, instance, code):
        value = VMExternRef(Thing())
        table = instance.activations_table
        inline = catch_traps(code["inline"], "(pointer, pointer, u64)")
        inline(table.address, value.as_raw(), CHUNK_SIZE)
        assert len(table) == CHUNK_SIZE
        assert value.strong_count() == 1 + CHUNK_SIZE
        words = (ctypes.c_uint64 * 2).from_address(table.address)
        assert words[0] == words[1]  # full
        gc(instance)
        assert value.strong_count() == 1
        assert len(table) == 0
        assert words[1] - words[0] == 8 * CHUNK_SIZE

    def test_full_means_gc_first(self, instance, code):
        value = VMExternRef(Thing())
        table = instance.activations_table
        catch_traps(code["inline"], "(pointer, pointer, u64)")(
            table.address, value.as_raw(), CHUNK_SIZE
        )
        other = VMExternRef(Thing())
        asm_libcalls.activations_table_insert_with_gc(instance, other)
        # The collection dropped what no frame held, and kept what was to be inserted.
        assert value.strong_count() == 1
        assert other.strong_count() == 2
        assert len(table) == 1
        asm_libcalls.activations_table_insert_with_gc(instance, other)
        assert other.strong_count() == 3
        gc(instance)
        assert other.strong_count() == 1

    @pytest.mark.parametrize("count", [1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 7])
    def test_a_native_loop_inserts_by_itself_and_by_the_libcall(self, instance, code, count):
        things = [Thing() for _ in range(count)]
        gone = [weakref.ref(thing) for thing in things]
        refs = [VMExternRef(thing) for thing in things]
        array = (ctypes.c_uint64 * count)(*(ref.as_raw() for ref in refs))
        del things
        insert_all = catch_traps(code["all"], "(vmctx, pointer, u64) -> pointer")
        last = insert_all(instance.vmctx, ctypes.addressof(array), count)
        assert last == array[count - 1]
        refs.clear()
        alive = [ref() is not None for ref in gone]
        assert alive[-1]
        assert sum(alive) == len(instance.activations_table) <= CHUNK_SIZE + 1
        gc(instance)
        assert not any(ref() for ref in gone)

    def test_what_a_frame_holds_survives_many_collections(self, instance, code, host, hold):
        kept, kept_ref = borrowed(instance, Thing())
        count = 10 * CHUNK_SIZE
        insert_all = catch_traps(code["all"], "(vmctx, pointer, u64) -> pointer")

        def churn():
            refs = [VMExternRef(Thing()) for _ in range(count)]
            array = (ctypes.c_uint64 * count)(*(ref.as_raw() for ref in refs))
            insert_all(instance.vmctx, ctypes.addressof(array), count)
            assert kept_ref() is not None
            assert VMExternRef.clone_from_raw(kept).value is kept_ref()

        host.do = churn
        catch_traps(hold["hold"], HOLD)(instance.vmctx, kept, 0)
        gc(instance)
        assert kept_ref() is None

    def test_where_nothing_can_be_collected_the_set_takes_all(self, instance, code):
        """Inside a plain ctypes callback no walk is possible: the table grows without a limit."""
        count = 3 * CHUNK_SIZE
        refs = [VMExternRef(Thing()) for _ in range(count)]

        def body():
            for ref in refs:
                asm_libcalls.activations_table_insert_with_gc(instance, ref)
            for ref in refs[:100]:  # again: the set has them already
                asm_libcalls.activations_table_insert_with_gc(instance, ref)

        callback = ctypes.CFUNCTYPE(None)(body)
        call_it = NativeCode(
            {"call": lambda: call_host("callback")},
            {"callback": ctypes.cast(callback, ctypes.c_void_p).value},
        )
        catch_traps(call_it["call"], "()")()
        assert all(ref.strong_count() >= 2 for ref in refs)
        assert len(instance.activations_table) >= count
        gc(instance)
        assert [ref.strong_count() for ref in refs] == [1] * count

    def test_reading_a_global_keeps_its_value_for_the_frame(self, instance, registry, host):
        """global.get, then the global is overwritten: the frame's borrowed pointer stays good."""

        def body() -> None:
            with frame(1):
                MOV(r12, rdi)
                MOV(rsi, 0)
                CALL_SLOT("get")
                MOV([rbp + slot_at(0)], rax)
                call("host", "site")
                MOV(rax, [rbp + slot_at(0)])

        get = asm_libcalls.LIBCALLS["externref_global_get"].address
        code = NativeCode({"body": body}, {"get": get, "host": host.address})
        code.register(registry, "body", {"site": [0]})
        thing = Thing()
        ref = weakref.ref(thing)
        instance.globals[0].value = thing
        del thing
        alive = []

        def overwrite():
            asm_libcalls.externref_global_set(instance, 0, None)
            gc(instance)
            alive.append(ref() is not None)

        host.do = overwrite
        catch_traps(code["body"], "(vmctx) -> pointer")(instance.vmctx)
        assert alive == [True]
        gc(instance)
        assert ref() is None


class TestDestructors:
    def test_that_collects_again(self, instance):
        entered = []

        class Collects:
            def __del__(self):
                entered.append(len(instance.activations_table))
                gc(instance)
                entered.append(len(instance.activations_table))

        for _ in range(3):
            borrowed(instance, Collects())
        gc(instance)
        assert entered == [0] * 6

    def test_that_inserts(self, instance):
        inner = []

        class Inserts:
            def __del__(self):
                inner.append(borrowed(instance, Thing())[1])

        borrowed(instance, Inserts())
        gc(instance)
        assert [ref() is not None for ref in inner] == [True]
        assert len(instance.activations_table) == 1
        gc(instance)
        assert inner[0]() is None

    def test_that_fills_the_chunk_while_a_collection_runs(self, instance):
        """The inner collection does nothing, so the set takes what does not fit; none is lost."""
        refs = []

        class Floods:
            def __del__(self):
                refs.extend(borrowed(instance, Thing())[1] for _ in range(2 * CHUNK_SIZE))

        borrowed(instance, Floods())
        gc(instance)
        assert all(ref() for ref in refs)
        assert len(refs) == 2 * CHUNK_SIZE
        gc(instance)
        assert not any(ref() for ref in refs)

    def test_that_raises_is_heard_and_all_are_dropped(self, instance):
        error = ValueError("from a destructor")
        dropped = []

        class Raises:
            def __del__(self):
                dropped.append(self)
                raise error

        for _ in range(5):
            borrowed(instance, Raises())
        last = borrowed(instance, Thing())[1]
        with pytest.raises(ValueError, match="from a destructor") as caught:
            gc(instance)
        assert caught.value is error
        assert len(dropped) == 5
        assert last() is None
        assert len(instance.activations_table) == 0
        gc(instance)

    def test_that_raises_under_native_frames_unwinds_them(self, instance, host, hold):
        """An insertion by native code collects, and a destructor raises: the caller gets it."""
        error = KeyboardInterrupt()

        class Raises:
            def __del__(self):
                raise error

        kept, kept_ref = borrowed(instance, Thing())
        for _ in range(CHUNK_SIZE - 1):
            asm_libcalls.activations_table_insert_with_gc(instance, kept)
        borrowed_last = VMExternRef(Raises())
        table = instance.activations_table
        # The last free slot is the raising one's; the next insertion finds the chunk full.
        words = (ctypes.c_uint64 * 2).from_address(table.address)
        assert words[0] == words[1]
        new = VMExternRef(Thing())

        def body() -> None:
            with frame(1):
                MOV([rbp + slot_at(0)], rdx)
                CALL_SLOT("insert")
                LABEL(Label("site"))
                CALL_SLOT("unreachable")

        def never():
            raise AssertionError("native code went on after the exception")

        unreachable = HostFunction(never, "()")
        insert = asm_libcalls.LIBCALLS["activations_table_insert_with_gc"].address
        code = NativeCode({"body": body}, {"insert": insert, "unreachable": unreachable.address})
        code.register(instance.stack_map_registry, "body", {"site": [0]})
        # Make the raising object one of the full chunk: in exchange for the first entry.
        chunk = (ctypes.c_uint64 * CHUNK_SIZE).from_address(words[1] - 8 * CHUNK_SIZE)
        raising = borrowed_last.clone()
        externref_address, chunk[0] = chunk[0], raising.as_raw()
        raising._counts.clear()  # its count went into the chunk
        raising._address = 0
        asm_libcalls.runtime.externref_boxes.release(externref_address)
        borrowed_last.drop()
        with pytest.raises(KeyboardInterrupt) as caught:
            catch_traps(code["body"], "(vmctx, pointer, pointer)")(
                instance.vmctx, new.as_raw(), kept
            )
        assert caught.value is error
        assert new.strong_count() == 2  # what was to be inserted is not lost
        assert kept_ref() is not None  # the frame held it when the collection ran
        gc(instance)
        assert new.strong_count() == 1
        assert kept_ref() is None

    def test_that_enters_native_code(self, instance, host, hold):
        """A destructor under native frames enters native code again, and collects there."""
        outer, outer_ref = borrowed(instance, Thing())
        function = catch_traps(hold["hold"], HOLD)
        inner_alive = []

        class Enters:
            def __del__(self):
                pointer, ref = borrowed(instance, Thing())

                def collect():
                    gc(instance)  # does nothing: a collection runs
                    inner_alive.append(ref() is not None)

                host.do = collect
                function(instance.vmctx, pointer, 0)

        borrowed(instance, Enters())
        host.do = lambda: gc(instance)
        function(instance.vmctx, outer, 0)
        assert inner_alive[:2] == [True, True]
        assert outer_ref() is not None
        gc(instance)
        assert outer_ref() is None


class TestBadStackMaps:
    def test_a_slot_that_holds_no_reference_is_an_error_and_nothing_is_dropped(
        self, instance, host, registry
    ):
        code = NativeCode({"hold": hold_body}, {"host": host.address})
        code.register(registry, "hold", HOLD_MAPS)
        value, ref = borrowed(instance, Thing())
        hold = catch_traps(code["hold"], HOLD)
        host.do = lambda: gc(instance)
        for a, b in ((0x1234, 0), (value, 0x1234), (value + 8, value)):
            with pytest.raises(ValueError, match=r"holds 0x[0-9a-f]+: no live externref"):
                hold(instance.vmctx, a, b)
            assert ref() is not None
        gc(instance)
        assert ref() is None


def test_where_no_native_code_runs_the_walk_is_empty():
    assert list(stack_frames()) == []


def test_python_collector_inside_a_collection(instance, host, hold):
    """Cyclic garbage with references in it dies in the middle of a walk and a sweep."""
    kept, kept_ref = borrowed(instance, Thing())

    class Cyclic:
        def __init__(self):
            self.own = self
            self.ref = VMExternRef(Thing())
            asm_libcalls.activations_table_insert_with_gc(instance, self.ref)

    def collect():
        for _ in range(50):
            Cyclic()
        gc(instance)

    host.do = collect
    thresholds = python_gc.get_threshold()
    python_gc.set_threshold(5, 2, 2)
    try:
        for _ in range(20):
            catch_traps(hold["hold"], HOLD)(instance.vmctx, kept, 0)
            assert kept_ref() is not None
    finally:
        python_gc.set_threshold(*thresholds)
    python_gc.collect()
    gc(instance)
    assert kept_ref() is None
