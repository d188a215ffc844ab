"""Tables in Python and under the libcalls: values, counts, bounds, destructors, growth."""

import copy
import ctypes
import gc
import tracemalloc
import weakref

import pytest

from asm_libcalls import Instance, Table, TableOutOfBounds, VMExternRef, table_copy
from asm_libcalls.runtime import externref_arrays
from asm_libcalls.runtime.externref_boxes import strong_count
from asm_libcalls.runtime.reservation import Reservation
from asm_libcalls.runtime.table import MAXIMUM_ELEMENTS

REFUSED = 0xFFFFFFFF


class Thing:
    """Something with a weakref."""


@pytest.fixture(params=["served", "fallback", "address", "fallback address"])
def run(request, accelerated, fallback):
    """Calls a libcall from Python, or at the C address with traps caught."""
    binding = fallback if request.param.startswith("fallback") else accelerated

    def call(name, instance, *arguments):
        libcall = binding.libcalls[name]
        if not request.param.endswith("address"):
            return libcall(instance, *arguments)
        raw = [a.as_raw() if hasattr(a, "as_raw") else (0 if a is None else a) for a in arguments]
        pattern = binding.entry.call(libcall.address, libcall.signature, [instance.vmctx, *raw])
        return None if libcall.signature.result is None else pattern

    return call


def tables_of_an_instance(*sizes, element_type="externref", **options):
    tables = [Table(element_type, size, **options) for size in sizes]
    return tables, Instance(tables=tables)


class TestInPython:
    def test_values_of_externref_are_any_objects(self):
        table = Table("externref", 4)
        value = Thing()
        table[0], table[1], table[2] = value, 0, [1, 2]
        assert table[0] is value
        assert list(table) == [value, 0, [1, 2], None]
        assert len(table) == 4
        table[0] = None
        assert table[0] is None
        ref = VMExternRef("boxed")
        table[3] = ref
        assert table[3] == "boxed"
        assert ref.strong_count() == 2
        table[3] = table[3]  # the value, not the reference: a new box
        assert ref.strong_count() == 1

    def test_values_of_funcref_are_functions(self):
        table = Table("funcref", 2)
        instance = Instance(functions=[(1, 2)])
        table[1] = instance.functions[0]
        assert list(table) == [None, instance.functions[0]]
        for bad in ("x", 5, VMExternRef(1)):
            with pytest.raises(TypeError, match="table element must be a FuncRef or None"):
                table[0] = bad
        assert table[0] is None

    @pytest.mark.parametrize("index", [4, -1, 1 << 40])
    def test_index_out_of_range(self, index):
        table = Table("externref", 4)
        with pytest.raises(IndexError, match=rf"table index {index} is not in 0 \.\. 3"):
            table[index]
        with pytest.raises(IndexError):
            table[index] = 1

    def test_index_that_is_none(self):
        table = Table("externref", 4)
        for bad in ("1", 1.0, None, slice(0, 1)):
            with pytest.raises(TypeError, match="a table index must be an int"):
                table[bad]

    def test_a_value_that_does_not_go_in_is_not_kept(self):
        table = Table("externref", 1)
        value = Thing()
        ref = weakref.ref(value)
        with pytest.raises(IndexError):
            table[1] = value
        del value
        gc.collect()
        assert ref() is None

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            (("i32", 1), ValueError, "element_type must be one of funcref, externref, got 'i32'"),
            ((5, 1), ValueError, "element_type must be"),
            (("funcref", -1), ValueError, r"minimum must be in 0 \.\. 2\*\*32-1 elements, got -1"),
            (("funcref", 1.5), TypeError, "minimum must be a number of elements"),
            (("funcref", 3, 2), ValueError, "minimum must not be above maximum, got 3 > 2"),
            (("funcref", 1, 1 << 32), ValueError, "maximum must be in 0"),
            (("funcref", MAXIMUM_ELEMENTS + 1), MemoryError, "at most 10000000"),
        ],
    )
    def test_refuses(self, arguments, error, message):
        with pytest.raises(error, match=message):
            Table(*arguments)
        with pytest.raises(TypeError, match="limiter must be callable"):
            Table("funcref", 1, limiter="x")

    def test_grow(self):
        table = Table("externref", 1, 5)
        value = Thing()
        ref = VMExternRef(value)
        assert table.grow(2, ref) == 1
        assert ref.strong_count() == 3
        assert table.grow(0) == 3
        assert table.grow(2, "x") == 3
        assert list(table) == [None, value, value, "x", "x"]
        assert table.grow(1) == -1
        with pytest.raises(ValueError, match=r"Table\.grow\(\): delta must be in 0"):
            table.grow(-1)
        assert ref.strong_count() == 3

    def test_a_refused_grow_does_not_keep_the_value(self):
        table = Table("externref", 0, 1)
        value = VMExternRef(Thing())
        assert table.grow(2, value) == -1
        assert value.strong_count() == 1
        thing = Thing()
        ref = weakref.ref(thing)
        assert table.grow(2, thing) == -1
        del thing
        assert ref() is None

    def test_close_needs_no_memory(self):
        table = Table("externref", 200_000, 200_000)
        tracemalloc.start()
        try:
            table.close()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 100_000

    def test_close(self):
        table = Table("externref", 2)
        value = Thing()
        ref = weakref.ref(value)
        table[0] = value
        del value
        table.close()
        assert ref() is None
        table.close()
        assert table.closed
        assert repr(table) == "<Table closed>"
        for use in (
            lambda: table[0],
            lambda: table.__setitem__(0, 1),
            lambda: table.grow(1),
            lambda: table.raw(0, 0),
            lambda: table.store(0, []),
            lambda: table.definition_address,
        ):
            with pytest.raises(ValueError, match="the Table is closed"):
                use()

    def test_repr(self):
        assert repr(Table("funcref", 3, 9)) == "<Table of 3 funcref, maximum 9>"

    @pytest.mark.parametrize("way", ["store", "grow", "copy"])
    def test_functions_keep_their_instance(self, way):
        table = Table("funcref", 1)
        instance = Instance(functions=[(1, 2)])
        if way == "store":
            table[0] = instance.functions[0]
        elif way == "grow":
            table.grow(1, instance.functions[0])
        else:
            source = Table("funcref", 1)
            source[0] = instance.functions[0]
            both = Instance(tables=[source, table])
            table_copy(both, 1, 0, 0, 0, 1)
            del source, both
        alive = weakref.ref(instance)
        del instance
        gc.collect()
        assert alive() is not None
        table.close()
        gc.collect()
        assert alive() is None

    def test_raw_pointers_past_the_end(self):
        table = Table("externref", 2)
        value = VMExternRef(Thing())
        table[1] = value
        assert table.raw(0, 2) == [0, value.as_raw()]
        for start, count in ((0, 3), (2, 1), (3, 0)):
            with pytest.raises(TableOutOfBounds):
                table.raw(start, count)
        # What is not stored is given up all the same.
        counted = externref_arrays.hold_range([value.as_raw()] * 2, 0, 2)
        with pytest.raises(TableOutOfBounds):
            table.store(1, counted)
        assert value.strong_count() == 2
        assert table[0] is None

    def test_a_dead_table_drops_its_elements(self):
        value = VMExternRef(Thing())
        table = Table("externref", 3)
        for i in range(3):
            table[i] = value
        assert value.strong_count() == 4
        del table
        assert value.strong_count() == 1

    def test_is_not_copied(self):
        for make_copy in (copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="Table objects cannot be copied"):
                make_copy(Table("externref", 1))


class TestCopyAndFill:
    def test_counts_are_exact_within_a_table(self, run):
        (table,), instance = tables_of_an_instance(6)
        values = [VMExternRef(Thing()) for _ in range(3)]
        for i, value in enumerate(values):
            table[i] = value
        run("table_copy", instance, 0, 0, 2, 0, 3)  # overlaps, upwards
        assert [v.strong_count() for v in values] == [3, 3, 2]
        assert list(table) == [values[i].value for i in (0, 1, 0, 1, 2)] + [None]
        run("table_copy", instance, 0, 0, 1, 2, 4)  # overlaps, downwards
        assert list(table) == [values[i].value for i in (0, 0, 1, 2)] + [None, None]
        assert [v.strong_count() for v in values] == [3, 2, 2]
        run("table_copy", instance, 0, 0, 0, 0, 6)  # onto itself
        assert [v.strong_count() for v in values] == [3, 2, 2]
        run("table_fill", instance, 0, 0, None, 6)
        assert [v.strong_count() for v in values] == [1, 1, 1]

    def test_overlapping_copies_against_lists(self, run, random_cases):
        (table, other), instance = tables_of_an_instance(12, 9)
        model = [list(range(12)), list(range(100, 109))]
        for each, start in ((table, 0), (other, 100)):
            for i in range(len(each)):
                each[i] = start + i
        for _ in range(60):
            dst_table, src_table = random_cases.randrange(2), random_cases.randrange(2)
            count = random_cases.randrange(9)
            dst = random_cases.randrange(len(model[dst_table]) - count + 1)
            src = random_cases.randrange(len(model[src_table]) - count + 1)
            run("table_copy", instance, dst_table, src_table, dst, src, count)
            model[dst_table][dst : dst + count] = list(model[src_table][src : src + count])
            assert [list(table), list(other)] == model

    @pytest.mark.parametrize(
        ("dst", "count", "traps"),
        [
            (0, 5, False), (5, 0, False), (6, 0, True), (5, 1, True), (0, 6, True), (4, 1, False),
            (0xFFFFFFFF, 1, True), (1, 0xFFFFFFFF, True), (0xFFFFFFFF, 0xFFFFFFFF, True),
        ],
    )  # fmt: skip
    def test_bounds(self, run, dst, count, traps):
        (table, source), instance = tables_of_an_instance(5, 5)
        segment_instance = Instance(
            tables=[Table("externref", 5)], elements=[("externref", range(5))]
        )
        value = VMExternRef(Thing())
        calls = [
            ("table_fill", instance, 0, dst, value, count),
            ("table_copy", instance, 0, 1, dst, 0, count),
            ("table_copy", instance, 1, 0, 0, dst, count),
            ("table_init", segment_instance, 0, 0, dst, 0, count),
            ("table_init", segment_instance, 0, 0, 0, dst, count),
        ]
        for name, *arguments in calls:
            if traps:
                with pytest.raises(TableOutOfBounds):
                    run(name, *arguments)
                assert list(table) == list(source) == [None] * 5
                assert list(segment_instance.tables[0]) == [None] * 5
            else:
                run(name, *arguments)
        assert value.strong_count() == (1 if traps else 1 + list(table).count(value.value))

    def test_between_instances(self, run):
        owner = Instance(tables=[Table("externref", 2)])
        owner.tables[0][1] = "theirs"
        user = Instance(tables=[Table("externref", 2)], imports={"tables": owner.tables})
        run("table_copy", user, 1, 0, 0, 0, 2)
        assert list(user.tables[1]) == [None, "theirs"]

    def test_between_reference_types(self, run):
        tables = [Table("externref", 1), Table("funcref", 1)]
        instance = Instance(tables=tables, elements=[("funcref", [None])])
        with pytest.raises(TypeError, match="table 0 holds externref, table 1 funcref"):
            run("table_copy", instance, 0, 1, 0, 0, 1)
        with pytest.raises(TypeError, match="element segment 0 holds funcref, table 0 externref"):
            run("table_init", instance, 0, 0, 0, 0, 1)

    def test_init_and_drop(self, run):
        values = [VMExternRef(Thing()) for _ in range(3)]
        instance = Instance(tables=[Table("externref", 4)], elements=[("externref", values)])
        run("table_init", instance, 0, 0, 1, 0, 3)
        run("table_init", instance, 0, 0, 0, 2, 1)
        assert [v.strong_count() for v in values] == [3, 3, 4]
        run("elem_drop", instance, 0)
        assert [v.strong_count() for v in values] == [2, 2, 3]
        run("elem_drop", instance, 0)
        run("table_init", instance, 0, 0, 4, 0, 0)
        with pytest.raises(TableOutOfBounds):
            run("table_init", instance, 0, 0, 0, 0, 1)
        with pytest.raises(TableOutOfBounds):
            run("table_init", instance, 0, 0, 0, 1, 0)
        assert [v.strong_count() for v in values] == [2, 2, 3]

    def test_overwritten_elements_are_dropped_when_the_table_is_whole(self, run):
        (table,), instance = tables_of_an_instance(3)
        seen = []

        class Looks:
            def __del__(self):
                seen.append(list(table))

        for i in range(3):
            table[i] = Looks()
        new = VMExternRef("new")
        run("table_fill", instance, 0, 0, new, 3)
        assert seen == [["new"] * 3] * 3

    def test_destructor_changes_the_same_table(self, run):
        (table,), instance = tables_of_an_instance(3)

        class Writes:
            def __del__(self):
                table[0] = "written by the destructor"
                table.grow(1, "grown")

        table[1] = Writes()
        run("table_fill", instance, 0, 0, VMExternRef("new"), 3)
        assert list(table) == ["written by the destructor", "new", "new", "grown"]

    def test_destructor_closes_the_table(self, run):
        (table,), instance = tables_of_an_instance(2)

        class Closes:
            def __del__(self):
                table.close()

        table[0] = Closes()
        value = VMExternRef(Thing())
        run("table_fill", instance, 0, 0, value, 2)
        assert table.closed
        assert value.strong_count() == 1

    def test_destructor_raises_after_all_are_dropped(self, run):
        (table,), instance = tables_of_an_instance(3)
        error = ValueError("from a destructor")

        class Raises:
            def __del__(self):
                raise error

        last = Thing()
        ref = weakref.ref(last)
        table[0], table[1], table[2] = Raises(), Raises(), last
        del last
        with pytest.raises(ValueError, match="from a destructor") as caught:
            run("table_fill", instance, 0, 0, None, 3)
        assert caught.value is error
        assert list(table) == [None] * 3
        assert ref() is None


class TestGrow:
    def test_with_each_reference(self, run):
        (table,), instance = tables_of_an_instance(1)
        value = VMExternRef(Thing())
        assert run("table_grow", instance, 0, 3, value) == 1
        assert value.strong_count() == 4
        assert run("table_grow", instance, 0, 1, None) == 4
        assert list(table) == [None, *[value.value] * 3, None]
        functions = Table("funcref", 0)
        other = Instance(tables=[functions], functions=[(1, 1)])
        assert run("table_grow", other, 0, 2, other.functions[0]) == 0
        assert list(functions) == [other.functions[0]] * 2

    @pytest.mark.parametrize(
        ("minimum", "maximum", "delta", "result"),
        [
            (0, 0, 0, 0), (0, 0, 1, REFUSED), (2, 5, 3, 2), (2, 5, 4, REFUSED),
            (1, None, 0xFFFFFFFF, REFUSED), (1, REFUSED, REFUSED, REFUSED),
            (0, None, MAXIMUM_ELEMENTS + 1, REFUSED), (3, 3, 0, 3),
        ],
    )  # fmt: skip
    def test_limits(self, run, minimum, maximum, delta, result):
        (table,), instance = tables_of_an_instance(minimum, maximum=maximum)
        value = VMExternRef(Thing())
        assert run("table_grow", instance, 0, delta, value) == result
        assert len(table) == (minimum if result == REFUSED else minimum + delta)
        assert value.strong_count() == 1 + len(table) - minimum

    def test_to_the_most(self):
        table = Table("funcref", 0)
        assert table.grow(MAXIMUM_ELEMENTS) == 0
        assert table.grow(1) == -1
        assert len(table) == MAXIMUM_ELEMENTS
        assert len(Table("funcref", MAXIMUM_ELEMENTS)) == MAXIMUM_ELEMENTS

    def test_old_elements_stay(self, run):
        (table,), instance = tables_of_an_instance(50)
        for i in range(50):
            table[i] = i
        for _ in range(20):
            run("table_grow", instance, 0, 37, None)
        assert list(table)[:50] == list(range(50))
        at = table.definition_address
        base, count = ctypes.c_uint64.from_address(at), ctypes.c_uint32.from_address(at + 8)
        assert count.value == len(table) == 50 + 20 * 37
        elements = (ctypes.c_uint64 * count.value).from_address(base.value)
        assert [strong_count(address) for address in elements[:50]] == [1] * 50
        assert not any(elements[50:])

    @pytest.mark.parametrize("error", [OSError("no"), KeyboardInterrupt(), MemoryError()])
    def test_limiter_raises(self, run, error):
        def limiter(*sizes):
            raise error

        (table,), instance = tables_of_an_instance(1, maximum=5, limiter=limiter)
        value = VMExternRef(Thing())
        with pytest.raises(type(error)) as caught:
            run("table_grow", instance, 0, 1, value)
        assert caught.value is error
        assert len(table) == 1
        assert value.strong_count() == 1

    def test_limiter_refuses_and_re_enters(self, run):
        asked = []

        def limiter(current, desired, maximum):
            asked.append((current, desired, maximum))
            if len(asked) == 1:
                table.grow(2, "inner")
            return desired < 5

        (table,), instance = tables_of_an_instance(1, maximum=9, limiter=limiter)
        value = VMExternRef("outer")
        assert run("table_grow", instance, 0, 1, value) == 3
        assert asked == [(1, 2, 9), (1, 3, 9), (3, 4, 9)]
        assert list(table) == [None, "inner", "inner", "outer"]
        assert run("table_grow", instance, 0, 1, value) == REFUSED
        assert value.strong_count() == 2

    def test_limiter_closes_the_table(self, run):
        (table,), instance = tables_of_an_instance(1, limiter=lambda *sizes: table.close() or True)
        value = VMExternRef("x")
        with pytest.raises(ValueError, match="the Table is closed"):
            run("table_grow", instance, 0, 1, value)
        assert value.strong_count() == 1

    @pytest.mark.parametrize("refusal", [OSError, MemoryError])
    def test_no_memory_is_refused_without_a_trace(self, run, monkeypatch, refusal):
        (table,), instance = tables_of_an_instance(
            1, limiter=lambda *_: True
        )  # so that Python asks the system
        value = VMExternRef("x")

        def make_accessible(reservation, size):
            if refusal is MemoryError:
                raise MemoryError
            return False

        monkeypatch.setattr(Reservation, "make_accessible", make_accessible)
        assert run("table_grow", instance, 0, 5, value) == REFUSED
        assert value.strong_count() == 1
        assert len(table) == 1
