"""The libcalls on tables and externrefs: what runs as machine code, and what leaves for Python.

What they do is compared with the fallback in test_stateful.py, and with a model in checks/.
"""

import sys

import pytest

import asm_libcalls
from asm_libcalls import (
    LIBCALLS,
    ElementSegment,
    FuncRef,
    Global,
    Instance,
    Memory,
    Table,
    VMExternRef,
)
from asm_libcalls.runtime.activations_table import CHUNK_SIZE
from asm_libcalls.runtime.externref_boxes import strong_count

SERVED = [name for name, each in LIBCALLS.items() if each.may_leave]

pytestmark = pytest.mark.usefixtures("machine_code")


class Values:
    """An instance with all kinds of parts, and references to put into them."""

    def __init__(self, cls=Instance):
        self.refs = [VMExternRef(f"value {i}") for i in range(3)]
        self.globals = [Global("externref", self.refs[0], True), Global("i32", 5, True)]
        self.tables = [Table("externref", 20), Table("externref", 12), Table("funcref", 8)]
        self.tables.append(Table("funcref", 30))
        self.memories = [Memory(1, 9), Memory(2, 9)]
        self.owner = Instance(self.memories[:1])
        self.instance = cls(
            self.memories[1:],
            imports={"memories": self.memories[:1]},
            tables=self.tables,
            globals=self.globals,
            functions=[(16, 1), (32, 2)],
            elements=[
                ElementSegment("externref", [*self.refs, None]),
                ElementSegment("funcref", [0, None, 1]),
            ],
        )
        for table in self.tables[2:]:  # both keep the instance alive
            table[0] = self.instance.functions[0]

    def counts(self):
        return [ref.strong_count() for ref in self.refs]


GOOD = {
    "externref_global_get": lambda v: (0,),
    "externref_global_set": lambda v: (0, v.refs[1]),
    "activations_table_insert_with_gc": lambda v: (v.refs[2],),
    "elem_drop": lambda v: (0,),
    "table_fill": lambda v: (0, 3, v.refs[1], 5),
    "table_copy": lambda v: (1, 0, 2, 0, 9),
    "table_init": lambda v: (0, 0, 6, 0, 4),
    "table_grow": lambda v: (0, 3, v.refs[0]),
    "memory32_grow": lambda v: (2, 0),
    "imported_memory32_grow": lambda v: (2, 0),
}
"""Arguments after the instance with which no Python runs."""


def is_reference(argument):
    return hasattr(argument, "as_raw")


def raw(argument):
    return argument.as_raw() if is_reference(argument) else argument or 0


def at_address(name, instance, *arguments, upper=0):
    """Call at the C address; return the names of the Python functions that ran meanwhile.

    `upper` is added to each 32-bit argument.
    """
    libcall = LIBCALLS[name]
    wide = libcall.signature.replace("i32", "u64").replace("u32", "u64")
    call = asm_libcalls.catch_traps(libcall.address, wide)
    patterns = [instance.vmctx]
    for argument, value_type in zip(arguments, libcall.signature.parameters[1:], strict=True):
        patterns.append(raw(argument) + (0 if value_type.kind == "pointer" else upper))
    call.call_bits  # noqa: B018 - made before Python is watched
    ran = []
    sys.setprofile(
        lambda frame, event, _: ran.append(frame.f_code.co_filename) if event == "call" else None
    )
    try:
        call.call_bits(*patterns)
    finally:
        sys.setprofile(None)
    return [each for each in ran if "/fallback/" in each]


def test_every_libcall_here_has_arguments():
    assert set(GOOD) == set(SERVED)


NULLS = (
    *(("externref_global_set", (0, None)), ("table_fill", (0, 3, None, 5))),
    *(("table_fill", (2, 1, None, 5)), ("table_grow", (0, 3, None)), ("table_grow", (2, 3, None))),
)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [*((name, None) for name in GOOD), *NULLS],
    ids=lambda value: str(value) if value else "as usual",
)
def test_the_common_path_runs_no_python(name, arguments):
    values, function = Values(), getattr(asm_libcalls, name)
    arguments = arguments or GOOD[name](values)
    events = []
    sys.setprofile(lambda frame, event, argument: events.append(argument))
    try:
        function(values.instance, *arguments)
    finally:
        sys.setprofile(None)
    assert events == [function, function, sys.setprofile]


@pytest.mark.parametrize("name", GOOD)
def test_at_the_address_the_common_path_runs_no_python(name):
    values = Values()
    assert at_address(name, values.instance, *GOOD[name](values)) == []


@pytest.mark.parametrize("name", GOOD)
def test_the_upper_halves_of_32_bit_arguments_are_ignored(name):
    """C leaves anything there."""
    states = []
    for upper in (0, 7 << 32):
        values = Values()
        assert at_address(name, values.instance, *GOOD[name](values), upper=upper) == []
        states.append(
            (
                [list(table) for table in values.tables[:2]],
                [len(part) for part in (*values.tables, *values.memories)],
                [part.value for part in values.globals],
                values.counts(),
            )
        )
    assert states[0] == states[1]


@pytest.mark.parametrize("name", GOOD)
def test_what_is_not_common_goes_to_the_checked_call(name, slow_calls):
    class Mine(Instance):
        pass

    class Number(int):
        pass

    function = getattr(asm_libcalls, name)
    values, mine = Values(), Values(Mine)
    good = GOOD[name](values)
    function(values.instance.vmctx, *good)  # goes on with the Instance at the address
    function(values.instance, *(Number(a) if isinstance(a, int) else a for a in good))
    assert slow_calls == []
    function(mine.instance, *GOOD[name](mine))
    assert slow_calls == [name]
    if any(map(is_reference, good)):
        function(values.instance, *map(raw, good))
        assert slow_calls == [name] * 2
    indices = [
        i for i, a in enumerate(good) if "index" in LIBCALLS[name].declaration.parameters[i + 1]
    ]
    for at in indices:
        for index in (9, 2**32 - 1):
            with pytest.raises(ValueError, match=f"{index} is not in the instance"):
                function(values.instance, *good[:at], index, *good[at + 1 :])
    values.instance.close()
    with pytest.raises(ValueError, match="the Instance is closed"):
        function(values.instance, *good)


@pytest.mark.parametrize(
    "name",
    [n for n in GOOD if any(t.kind == "pointer" for t in LIBCALLS[n].signature.parameters[1:])],
)
def test_references_of_another_kind_or_dropped_are_refused(name):
    values, function = Values(), getattr(asm_libcalls, name)
    dropped = VMExternRef("dropped")
    address = dropped.as_raw()
    dropped.drop()
    good = GOOD[name](values)
    at = next(i for i, a in enumerate(good) if isinstance(a, (VMExternRef, FuncRef)))
    other = values.instance.functions[0] if isinstance(good[at], VMExternRef) else values.refs[0]
    before = values.counts()
    for bad, error in (
        (other, TypeError),
        (dropped, ValueError),
        (address, ValueError),
        ("x", TypeError),
    ):
        with pytest.raises(error):
            function(values.instance, *good[:at], bad, *good[at + 1 :])
    if isinstance(good[at], VMExternRef):
        libcall = LIBCALLS[name]
        patterns = [values.instance.vmctx, *map(raw, good[:at]), address, *map(raw, good[at + 1 :])]
        with pytest.raises(ValueError, match="no live externref"):
            asm_libcalls.catch_traps(libcall.address, libcall.signature).call_bits(*patterns)
    assert values.counts() == before


class Noting:
    """A value that leaves a note when it is destroyed."""

    def __init__(self, notes, name):
        self.notes, self.name = notes, name

    def __del__(self):
        self.notes.append(self.name)


class TestGlobals:
    def test_the_newest_entry_is_not_inserted_again(self):
        values = Values()
        for _ in range(3):
            assert asm_libcalls.externref_global_get(values.instance, 0) == values.refs[0].as_raw()
        assert len(values.instance.activations_table) == 1
        LIBCALLS["externref_global_get"].checked_call(values.instance, 0)
        assert len(values.instance.activations_table) == 1
        asm_libcalls.activations_table_insert_with_gc(values.instance, values.refs[0])
        assert len(values.instance.activations_table) == 2

    def test_a_full_chunk_is_collected(self, slow_calls):
        values = Values()
        for i in range(2 * CHUNK_SIZE):
            values.globals[0].value = values.refs[i % 2]
            asm_libcalls.externref_global_get(values.instance, 0)
        assert 1 <= len(slow_calls) <= 3
        assert len(values.instance.activations_table) <= CHUNK_SIZE

    def test_native_code_that_gets_many_collects_what_it_no_longer_has(self):
        values = Values()
        libcall = LIBCALLS["externref_global_get"]
        call = asm_libcalls.catch_traps(libcall.address, libcall.signature).call_bits
        for i in range(4 * CHUNK_SIZE):
            values.globals[0].value = f"value {i}"
            assert call(values.instance.vmctx, 0)
        assert len(values.instance.activations_table) <= CHUNK_SIZE + 1

    @pytest.mark.parametrize("by_address", [False, True])
    def test_the_last_owner_is_dropped_by_python(self, by_address):
        values, notes = Values(), []
        values.globals[0].value = Noting(notes, "old")
        if by_address:
            assert at_address("externref_global_set", values.instance, 0, values.refs[1])
        else:
            asm_libcalls.externref_global_set(values.instance, 0, values.refs[1])
        assert notes == ["old"]
        assert values.globals[0].value == "value 1"

    @pytest.mark.parametrize("by_address", [False, True])
    def test_one_of_several_and_none_of_another_type(self, by_address):
        refs = [VMExternRef(f"value {i}") for i in range(4)]
        parts = [Global("externref", refs[0], True), Global("i64", 0, True)]
        parts += [Global("externref", ref, True) for ref in refs[1:3]]
        instance = Instance(globals=parts)

        def call(name, *arguments):
            if not by_address:
                return getattr(asm_libcalls, name)(instance, *arguments)
            libcall = LIBCALLS[name]
            # As wide integers, whose upper half a C function must ignore.
            wide = libcall.signature.replace("i32", "u64").replace("u32", "u64")
            call = asm_libcalls.catch_traps(libcall.address, wide)
            upper = [(7 << 32) + arguments[0], *map(raw, arguments[1:])]
            return call.call_bits(instance.vmctx, *upper)

        for index, ref in ((0, 0), (2, 1), (3, 2)):
            assert call("externref_global_get", index) == refs[ref].as_raw()
        call("externref_global_set", 3, refs[3])
        call("externref_global_set", 0, None)
        assert [part.value for part in parts] == [None, 0, "value 1", "value 3"]
        with pytest.raises(TypeError, match="global 1 has type i64, not externref"):
            call("externref_global_get", 1)
        with pytest.raises(TypeError, match="global 1 has type i64, not externref"):
            call("externref_global_set", 1, refs[0])
        assert [part.value for part in parts] == [None, 0, "value 1", "value 3"]

    def test_python_is_asked_about_a_last_owner_alone(self):
        values = Values()
        instance, ref = values.instance, VMExternRef("value")
        address = ref.as_raw()
        asm_libcalls.externref_global_set(instance, 0, ref)
        assert ref.strong_count() == 2
        assert at_address("externref_global_set", instance, 0, values.refs[1]) == []
        assert ref.strong_count() == 1
        asm_libcalls.externref_global_set(instance, 0, ref)
        ref.drop()  # the global is the only owner now, and is set to what it has
        assert at_address("externref_global_set", instance, 0, address) == []
        assert values.globals[0].value == "value"

    def test_null_is_not_inserted(self):
        values, name = Values(), "activations_table_insert_with_gc"
        with pytest.raises(ValueError, match="'externref' must not be null"):
            asm_libcalls.activations_table_insert_with_gc(values.instance, None)
        with pytest.raises(ValueError, match="a null externref cannot be"):
            at_address(name, values.instance, None)
        assert len(values.instance.activations_table) == 0

    def test_null(self):
        values = Values()
        asm_libcalls.externref_global_set(values.instance, 0, None)
        assert values.globals[0].value is None
        assert not asm_libcalls.externref_global_get(values.instance, 0)
        assert len(values.instance.activations_table) == 0
        asm_libcalls.externref_global_set(values.instance, 0, values.refs[2])
        assert values.globals[0].value == "value 2"

    @pytest.mark.parametrize("name", ["externref_global_get", "externref_global_set"])
    def test_a_closed_one_is_refused(self, name):
        values = Values()
        values.globals[0].close()
        rest = (values.refs[0],) if name.endswith("set") else ()
        with pytest.raises(ValueError, match="is closed"):
            getattr(asm_libcalls, name)(values.instance, 0, *rest)
        libcall = LIBCALLS[name]
        call = asm_libcalls.catch_traps(libcall.address, libcall.signature)
        with pytest.raises(ValueError, match="is closed"):
            call.call_bits(values.instance.vmctx, 0, *map(raw, rest))


@pytest.mark.parametrize(
    "get", [at_address, lambda name, *rest: getattr(asm_libcalls, name)(*rest)]
)
def test_a_closed_activations_table_takes_nothing(get):
    values = Values()
    values.instance.activations_table.close()
    before = values.counts()
    with pytest.raises(ValueError, match="the Instance is closed"):
        get("externref_global_get", values.instance, 0)
    assert values.counts() == before


SHAPES = {
    "empty": "",
    "one": "a",
    "equal": "aaaaaaaaa",
    "equal then others": "aaaabaaaa.",
    "nulls": "....a...",
    "mixed": "abcabcab.bc",
    "mixed in fours": "aabbccaabbcc",
    "pairs": "aabb" * 3,
    "two and two": "abba" * 2 + "abb",
}
"""Arrays of references: letters for boxes, a point for null."""


PLACES = [(shape, at) for shape, text in SHAPES.items() for at in range(-1, len(text))]


@pytest.mark.parametrize(("shape", "at"), PLACES)
def test_an_element_segment_counts_down_each_of_its_references(shape, at):
    """With a reference whose last owner is the segment, at each place, or without one."""
    text, notes = SHAPES[shape], []
    refs = {letter: VMExternRef(letter) for letter in "abc"}
    items = [refs.get(letter) for letter in text]
    if at >= 0:
        items[at] = VMExternRef(Noting(notes, "last"))
    instance = Instance(elements=[("externref", items)])
    items = None
    assert notes == []
    ran = at_address("elem_drop", instance, 0)
    assert bool(ran) == (at >= 0)
    assert notes == ["last"] * (at >= 0)
    assert [ref.strong_count() for ref in refs.values()] == [1, 1, 1]
    assert len(instance.elements[0]) == 0


@pytest.mark.parametrize("count", range(1, 11))
def test_a_reference_that_a_segment_alone_owns_many_times_dies_once(count):
    notes = []
    ref = VMExternRef(Noting(notes, "all"))
    address = ref.as_raw()
    instance = Instance(elements=[("externref", [ref] * count)])
    ref.drop()
    assert strong_count(address) == count
    assert at_address("elem_drop", instance, 0)
    assert notes == ["all"]


def test_a_segment_of_functions_of_others_lets_them_go():
    other = Instance(functions=[(16, 1)])
    own = Instance(functions=[(32, 2)], elements=[("funcref", [0, other.functions[0]])])
    assert id(other) in own.elements[0].keepers
    assert at_address("elem_drop", own, 0)
    assert own.elements[0].keepers == {}
    own = Instance(functions=[(32, 2)], elements=[("funcref", [0, 0])])
    assert not at_address("elem_drop", own, 0)
    assert len(own.elements[0]) == 0


class TestTables:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("at", range(3))
    @pytest.mark.parametrize("libcall", ["table_fill", "table_copy", "table_init"])
    def test_counts_of_what_is_written_and_of_what_was_there(self, libcall, at, shape):
        text = SHAPES[shape]
        refs = {letter: VMExternRef(letter) for letter in "abc"}
        items = [refs.get(letter) for letter in text]
        tables = [Table("externref", len(text) + at), Table("externref", len(text))]
        instance = Instance(tables=tables, elements=[("externref", items)])
        before = [refs.get("abc."[(i * i + at) % 4]) for i in range(len(tables[0]))]
        for i, ref in enumerate(before):
            tables[0][i] = ref
        for i, ref in enumerate(items):
            tables[1][i] = ref
        value = refs["b"]
        arguments = {
            "table_fill": (0, at, value, len(text)),
            "table_copy": (0, 1, at, 0, len(text)),
            "table_init": (0, 0, at, 0, len(text)),
        }[libcall]
        assert not at_address(libcall, instance, *arguments)
        after = [value] * len(text) if libcall == "table_fill" else items
        expected = [*before[:at], *after]
        assert list(tables[0]) == [ref and ref.value for ref in expected]
        for letter, ref in refs.items():
            held = expected.count(ref) + 2 * text.count(letter)
            assert ref.strong_count() == 1 + held

    @pytest.mark.parametrize("at", range(9))
    @pytest.mark.parametrize(
        "libcall", ["table_fill", "table_fill null", "table_copy", "table_init"]
    )
    def test_a_last_owner_in_the_way_leaves_for_python(self, libcall, at):
        """The value dies when the table is whole again, and no other count is changed."""
        seen = []

        class Looks:
            def __del__(self):
                seen.append([*tables[0]])

        shared = [VMExternRef(i) for i in range(3)]
        tables = [Table("externref", 9), Table("externref", 9)]
        instance = Instance(
            tables=tables, elements=[("externref", [shared[i % 3] for i in range(9)])]
        )
        for i in range(9):
            tables[0][i] = tables[1][i] = shared[i % 3]
        tables[0][at] = Looks()
        arguments = {
            "table_fill": (0, 0, shared[0], 9),
            "table_fill null": (0, 0, None, 9),
            "table_copy": (0, 1, 0, 0, 9),
            "table_init": (0, 0, 0, 0, 9),
        }[libcall]
        assert at_address(libcall.split()[0], instance, *arguments)
        filled = {"table_fill": [0] * 9, "table_fill null": [None] * 9}
        after = filled.get(libcall, [0, 1, 2] * 3)
        assert seen == [after] == [[*tables[0]]]
        held = [after.count(i) + 3 + 3 for i in range(3)]
        assert [ref.strong_count() for ref in shared] == [1 + n for n in held]

    @pytest.mark.parametrize("kind", ["externref", "funcref"])
    @pytest.mark.parametrize("by", [-3, -1, 0, 1, 3])
    @pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 8, 17, 64, 300])
    def test_overlapping_copies(self, kind, by, size):
        table = Table(kind, size + 6)
        instance = Instance(tables=[table], functions=[(i, 0) for i in range(1, 6)])
        refs = [VMExternRef(i) for i in range(5)] if kind == "externref" else instance.functions
        for i in range(len(table)):
            table[i] = refs[i * 7 % 5]
        expected = table.raw(0, len(table))
        expected[3 + by : 3 + by + size] = expected[3 : 3 + size]
        assert not at_address("table_copy", instance, 0, 0, 3 + by, 3, size)
        assert table.raw(0, len(table)) == expected
        if kind == "externref":
            for ref in refs:
                assert ref.strong_count() == 1 + expected.count(ref.as_raw())

    @pytest.mark.parametrize("size", [*range(36), 63, 64, 65, 255, 256, 257, 511, 512, 513, 1000])
    def test_fills_of_each_length_touch_nothing_else(self, size):
        table = Table("funcref", size + 2)
        instance = Instance(tables=[table], functions=[(1, 0), (2, 0)])
        table[0] = table[size + 1] = instance.functions[1]
        one, two = (each.as_raw() for each in instance.functions)
        assert not at_address("table_fill", instance, 0, 1, instance.functions[0], size)
        assert table.raw(0, size + 2) == [two, *[one] * size, two]
        assert [each.func_ptr for each in instance.functions] == [1, 2]  # no counts are in them
        assert not at_address("table_fill", instance, 0, 1, None, size)
        assert table.raw(0, size + 2) == [two, *[0] * size, two]

    @pytest.mark.parametrize(
        ("libcall", "arguments"),
        [
            ("table_fill", (0, 20, None, 1)),
            ("table_fill", (0, 2**32 - 1, None, 2**32 - 1)),
            ("table_fill", (0, 21, None, 0)),
            ("table_copy", (0, 1, 0, 12, 1)),
            ("table_copy", (1, 0, 12, 0, 1)),
            ("table_copy", (1, 0, 1, 2**32 - 1, 1)),
            ("table_init", (0, 0, 0, 4, 1)),
            ("table_init", (0, 0, 20, 3, 1)),
        ],
    )
    def test_traps_change_nothing(self, libcall, arguments):
        values = Values()
        before = values.counts(), [table.raw(0, len(table)) for table in values.tables]
        for call in (LIBCALLS[libcall].checked_call, getattr(asm_libcalls, libcall)):
            with pytest.raises(asm_libcalls.TableOutOfBounds):
                call(values.instance, *arguments)
        with pytest.raises(asm_libcalls.TableOutOfBounds):
            at_address(libcall, values.instance, *arguments)
        assert (values.counts(), [table.raw(0, len(table)) for table in values.tables]) == before

    @pytest.mark.parametrize("libcall", ["table_fill", "table_copy", "table_init"])
    @pytest.mark.parametrize("closed", range(2))
    def test_a_closed_table_is_refused_even_where_nothing_is_touched(self, libcall, closed):
        values = Values()
        values.tables[closed].close()
        arguments = {
            "table_fill": (closed, 0, None, 0),
            "table_copy": (0, 1, 0, 0, 0),
            "table_init": (closed, 0, 0, 0, 0),
        }[libcall]
        with pytest.raises(ValueError, match="closed"):
            at_address(libcall, values.instance, *arguments)
        with pytest.raises(ValueError, match="closed"):
            getattr(asm_libcalls, libcall)(values.instance, *arguments)

    @pytest.mark.parametrize("libcall", ["table_copy", "table_init"])
    def test_kinds_that_differ(self, libcall):
        values = Values()
        arguments = (0, 2, 0, 0, 1) if libcall == "table_copy" else (0, 1, 0, 0, 1)
        with pytest.raises(TypeError, match="holds"):
            at_address(libcall, values.instance, *arguments)
        with pytest.raises(TypeError, match="holds"):
            getattr(asm_libcalls, libcall)(values.instance, *arguments)


class TestKeepers:
    """A table keeps alive the instances of all functions that were ever put in."""

    def make(self):
        others = [Instance(functions=[(i, 0), (i + 1, 0)]) for i in (16, 32)]
        tables = [Table("funcref", 6) for _ in range(3)]
        own = Instance(
            tables=tables,
            functions=[(64, 0)],
            imports={"functions": [others[0].functions[0]]},
            elements=[
                ("funcref", [0, 1, None]),
                ("funcref", [others[0].functions[1]]),
                ("funcref", [others[1].functions[0], None]),
                ("funcref", [None, None]),
            ],
        )
        return own, others, tables

    @staticmethod
    def check(tables):
        for table in tables:
            held = [i for i in (table[k] for k in range(len(table))) if i is not None]
            assert all(id(each.instance) in table.keepers() for each in held)

    def test_fill_leaves_once_for_each_instance(self):
        own, others, tables = self.make()
        functions = [own.functions[0], own.functions[1], others[1].functions[1]]
        assert [bool(at_address("table_fill", own, 0, 0, f, 1)) for f in functions] == [1, 0, 1]
        self.check(tables)
        assert not at_address("table_fill", own, 0, 1, others[1].functions[0], 3)
        assert not at_address("table_fill", own, 0, 1, None, 3)
        assert at_address("table_fill", own, 0, 1, own.functions[0], 3)  # the newest is known
        self.check(tables)

    def test_copies_leave_until_both_keep_the_same(self):
        own, others, tables = self.make()
        copies = [(0, 1), (1, 0), (0, 1)]  # to, from

        def ran():
            result = [bool(at_address("table_copy", own, *pair, 0, 0, 6)) for pair in copies]
            self.check(tables)
            return result

        assert ran() == [False, False, False]  # only nulls
        tables[1][0] = own.functions[0]
        assert ran() == [True, False, False]
        tables[0][2] = others[0].functions[0]
        assert ran() == [False, True, True]  # equal sets may have different numbers, but once
        assert ran() == [False, False, False]
        tables[1][3] = others[1].functions[0]
        tables[0][4] = others[1].functions[1]
        assert ran()[2] is False
        assert ran() == [False, False, False]

    def test_a_set_that_grew_is_another_one(self):
        own, others, tables = self.make()
        tables[0][0], tables[0][1] = own.functions[0], others[0].functions[0]
        assert at_address("table_copy", own, 1, 0, 0, 0, 6)
        assert not at_address("table_copy", own, 1, 0, 0, 0, 6)
        tables[0][2] = others[1].functions[0]
        assert at_address("table_copy", own, 1, 0, 0, 0, 6)
        self.check(tables)

    def test_init_leaves_once_for_each_set(self):
        own, _others, tables = self.make()
        order = [0, 0, 3, 1, 1, 2, 2, 0]
        ran = [bool(at_address("table_init", own, 0, i, 0, 0, 1)) for i in order]
        assert ran == [1, 0, 0, 1, 0, 1, 0, 1]
        self.check(tables)

    def test_what_is_kept_lives_on(self):
        import gc
        import weakref

        own, others, tables = self.make()
        for i in (1, 1, 2, 2):
            at_address("table_init", own, 0, i, i, 0, 1)
        at_address("table_copy", own, 1, 0, 0, 0, 6)
        at_address("table_copy", own, 1, 0, 0, 0, 6)
        table = tables[1]
        alive = [weakref.ref(each) for each in others]
        numbers = [f.func_ptr for f in table if f is not None]
        del others, own, tables
        gc.collect()
        assert all(each() is not None for each in alive)
        assert [f.func_ptr for f in table if f is not None] == numbers == [17, 32]


class TestGrowth:
    @pytest.mark.parametrize("kind", ["externref", "funcref"])
    @pytest.mark.parametrize("is_null", [False, True])
    def test_a_table_grows_over_pages(self, kind, is_null):
        table = Table(kind, 3, 3000)
        instance = Instance(tables=[table], functions=[(1, 0)])
        ref = VMExternRef("value") if kind == "externref" else instance.functions[0]
        table[0] = ref  # it keeps the instance alive
        value = None if is_null else ref
        libcall = LIBCALLS["table_grow"]
        call = asm_libcalls.catch_traps(libcall.address, libcall.signature).call_bits
        size = 3
        for delta in (0, 1, 2, 505, 1, 1, 511, 512, 513, 951):
            assert call(instance.vmctx, 0, 0, raw(value)) == size
            assert not at_address("table_grow", instance, 0, delta, value)
            size += delta
            assert len(table) == size
        address = ref.as_raw()
        assert table.raw(0, 3000) == [address, 0, 0, *[raw(value)] * 2997]
        if kind == "externref":
            assert ref.strong_count() == (2 if is_null else 2 + 2997)
        assert call(instance.vmctx, 0, 1, raw(value)) == 0xFFFFFFFF
        assert len(table) == 3000

    @pytest.mark.parametrize("name", ["memory32_grow", "imported_memory32_grow"])
    def test_a_memory_grows_to_its_maximum(self, name):
        values = Values()
        memory = values.memories[name == "memory32_grow"]
        call = getattr(asm_libcalls, name)
        size = memory.size
        for delta in (0, 1, 2):
            assert not at_address(name, values.instance, 0, 0)
            assert call(values.instance, delta, 0) == size
            size += delta
            assert memory.size == size
            view = memoryview(memory)
            assert view[-1] == 0
            view[-1] = 1
        assert at_address(name, values.instance, 9 - size + 1, 0)
        assert not at_address(name, values.instance, 9 - size, 0)
        assert memory.size == 9
        assert at_address(name, values.instance, 1, 0)
        assert at_address(name, values.instance, 2**32 - 1, 0)
        assert call(values.instance, 1, 0) == 0xFFFFFFFF
        assert memory.size == 9

    @staticmethod
    def growing(what, limiter=None, cls=None):
        if what == "memory":
            grown = (cls or Memory)(1, 9, limiter=limiter)
            return grown, Instance([grown]), ("memory32_grow", 1, 0)
        grown = (cls or Table)("externref", 1, 9, limiter=limiter)
        return grown, Instance(tables=[grown]), ("table_grow", 0, 1, None)

    @pytest.mark.parametrize("what", ["memory", "table"])
    def test_a_limiter_is_asked_from_when_it_is_set(self, what):
        asked = []
        grown, instance, (name, *arguments) = self.growing(what)
        for limiter in (lambda *sizes: asked.append(sizes), None, lambda *sizes: True, None):
            grown.limiter = limiter
            assert grown.limiter is limiter
            assert bool(at_address(name, instance, *arguments)) == (limiter is not None)
        assert asked == [(1, 2, 9)]
        assert len(grown) == (4 * 65536 if what == "memory" else 4)
        grown, instance, (name, *arguments) = self.growing(what, lambda *sizes: True)
        assert at_address(name, instance, *arguments)

    @pytest.mark.parametrize("what", ["memory", "table"])
    def test_a_users_class_is_asked(self, what):
        class Mine(Memory if what == "memory" else Table):
            pass

        _grown, instance, (name, *arguments) = self.growing(what, cls=Mine)
        assert at_address(name, instance, *arguments)

    @pytest.mark.parametrize("what", ["memory", "table"])
    def test_a_closed_one_is_refused(self, what):
        grown, instance, (name, *arguments) = self.growing(what)
        grown.close()
        with pytest.raises(ValueError, match="closed"):
            grown.limiter = None
        for delta in (0, 1):
            changed = [delta if i == (what == "table") else a for i, a in enumerate(arguments)]
            with pytest.raises(ValueError, match="closed"):
                at_address(name, instance, *changed)
            with pytest.raises(ValueError, match="closed"):
                getattr(asm_libcalls, name)(instance, *changed)

    def test_functions_of_other_instances_leave_first(self):
        other = Instance(functions=[(1, 0), (2, 0)])
        table = Table("funcref", 0)
        instance = Instance(tables=[table])
        assert at_address("table_grow", instance, 0, 1, other.functions[0])
        assert not at_address("table_grow", instance, 0, 2, other.functions[1])
        assert id(other) in table.keepers()
        assert [f.func_ptr for f in table] == [1, 2, 2]

    @pytest.mark.parametrize("name", ["memory32_grow", "table_grow"])
    def test_what_the_system_refuses(self, name, child):
        """Address space for the reservations, but none to make accessible."""
        child(REFUSED.replace("NAME", repr(name)))


REFUSED = """
import errno, seccomp
import asm_libcalls
from asm_libcalls import LIBCALLS, Instance, Memory, Table

memory, table = Memory(1, 9), Table("externref", 1, 9000)
instance = Instance([memory], [table])
name = NAME
arguments = (instance, 1, 0) if name == "memory32_grow" else (instance, 0, 1000, None)
function = getattr(asm_libcalls, name)
assert function(*arguments) == 1
try:
    seccomp.refuse(errno.ENOMEM, "mprotect")
except OSError as error:
    raise SystemExit(f"no filters of system calls: {error}")
assert function(*arguments) == 0xFFFFFFFF
call = asm_libcalls.catch_traps(LIBCALLS[name].address, LIBCALLS[name].signature)
patterns = [instance.vmctx, *(a or 0 for a in arguments[1:])]
assert call.call_bits(*patterns) == 0xFFFFFFFF
assert (memory.size, len(table)) == ((2, 1) if name == "memory32_grow" else (1, 1001))
"""
