"""An Instance: its parts, its errors, and the lifetime of all of it."""

import ctypes
import gc
import weakref

import pytest

import asm_libcalls
from asm_libcalls import (
    ElementSegment,
    Global,
    HostFunction,
    Instance,
    Memory,
    StackMapRegistry,
    Table,
    VMExternRef,
)
from asm_libcalls.runtime.instance import instance_of


class Thing:
    """Something with a weakref."""


def test_empty_instance():
    instance = Instance()
    assert instance.memories == instance.tables == instance.globals == instance.functions == []
    assert instance_of(instance.vmctx) is instance
    assert "0 memories" in repr(instance)


def test_index_spaces_put_imports_first():
    memory, table, global_ = Memory(1), Table("funcref", 1), Global("i32", 1)
    owner = Instance([memory], [table], [global_], functions=[(1, 0)])
    own_memory, own_table, own_global = Memory(0), Table("externref", 0), Global("f32")
    instance = Instance(
        [own_memory],
        [own_table],
        [own_global],
        functions=[(2, 0), (3, 0)],
        imports={
            "memories": [memory],
            "tables": [table],
            "globals": [global_],
            "functions": owner.functions,
        },
    )
    assert instance.memories == [memory, own_memory]
    assert instance.tables == [table, own_table]
    assert instance.globals == [global_, own_global]
    assert [f.func_ptr for f in instance.functions] == [1, 2, 3]
    assert instance.functions[0].vmctx == owner.vmctx
    assert instance.functions[1].vmctx == instance.vmctx
    # Libcalls count the same way.
    assert asm_libcalls.imported_memory32_size(instance, 0) == 1
    assert asm_libcalls.memory32_size(instance, 0) == 0


def test_what_no_instance_defines_can_be_imported_by_many():
    memory, table, global_ = Memory(1), Table("externref", 2), Global("i64", 5, True)
    imports = {"memories": [memory], "tables": [table], "globals": [global_]}
    first, second = Instance(imports=imports), Instance(imports=imports)
    assert asm_libcalls.imported_memory32_grow(first, 2, 0) == 1
    assert asm_libcalls.imported_memory32_size(second, 0) == 3 == memory.size
    asm_libcalls.table_fill(second, 0, 0, VMExternRef("here"), 2)
    assert list(table) == ["here", "here"]
    # No other instance can define it: importers point to its present place.
    for arguments in ({"memories": [memory]}, {"tables": [table]}, {"globals": [global_]}):
        with pytest.raises(ValueError, match="can be defined once, so import it"):
            Instance(**arguments)


BAD_PARTS = {
    "a memory that is none": ({"memories": [1]}, TypeError, r"memories\[0\] must be a Memory"),
    "a table for a memory": (
        {"memories": [Table("funcref", 0)]},
        TypeError,
        r"memories\[0\] must be a Memory, got Table",
    ),
    "a global that is none": ({"globals": [0, 1]}, TypeError, r"globals\[0\] must be a Global"),
    "a table that is none": ({"tables": ["x"]}, TypeError, r"tables\[0\] must be a Table, got str"),
    "a function that is none": (
        {"functions": [(1, 2), 3]},
        TypeError,
        r"functions\[1\] must be \(address, type index\), got 3",
    ),
    "an address that is none": (
        {"functions": [("a", 2)]},
        TypeError,
        r"functions\[0\]: the address must be a bit pattern \(int of 64 bits\), got str 'a'",
    ),
    "an address beyond 64 bits": ({"functions": [(1 << 64, 2)]}, OverflowError, "the address"),
    "a type index beyond 32 bits": ({"functions": [(1, 1 << 32)]}, OverflowError, "type index"),
    "a negative type index": ({"functions": [(1, -1)]}, OverflowError, "type index"),
    "a signature id that is none": (
        {"signature_ids": [1, "x"]},
        TypeError,
        r"signature_ids\[1\] must be a bit pattern",
    ),
    "a signature id beyond 32 bits": (
        {"signature_ids": [1 << 32]},
        OverflowError,
        r"signature_ids\[0\]",
    ),
    "data that is text": ({"data": [b"", "x"]}, TypeError, r"data\[1\] must be .* got str"),
    "an element segment that is none": (
        {"elements": [5]},
        TypeError,
        r"elements\[0\] must be an ElementSegment",
    ),
    "elements of no reference type": ({"elements": [("i32", [])]}, ValueError, "'i32'"),
    "a function index that is not there": (
        {"elements": [("funcref", [0])]},
        ValueError,
        r"elements\[0\]\[0\]: function index 0 is not in the instance \(there are none\)",
    ),
    "a function index behind the last": (
        {"elements": [("funcref", [0, None, 2])], "functions": [(1, 0), (2, 0)]},
        ValueError,
        r"elements\[0\]\[2\]: function index 2 is not in the instance \(0 .. 1\)",
    ),
    "an object among functions": (
        {"elements": [("funcref", ["x"])]},
        TypeError,
        r"elements\[0\]\[0\] must be a function index, a FuncRef or None \(funcref\), got str",
    ),
    "imports that are no mapping": ({"imports": [1]}, TypeError, "imports must be a mapping"),
    "imports of an unknown kind": (
        {"imports": {"memory": []}},
        ValueError,
        "imports has 'memory', expected functions, tables, memories, globals",
    ),
    "an import of the wrong kind": (
        {"imports": {"tables": [Memory(0)]}},
        TypeError,
        r"imports\['tables'\]\[0\] must be a Table, got Memory",
    ),
    "an import that is no function": (
        {"imports": {"functions": [(1, 2)]}},
        TypeError,
        r"imports\['functions'\]\[0\] must be a FuncRef, got tuple",
    ),
    "a registry that is none": (
        {"stack_map_registry": {}},
        TypeError,
        "stack_map_registry must be a StackMapRegistry, got dict",
    ),
}


@pytest.mark.parametrize("what", BAD_PARTS)
def test_refuses(what):
    arguments, error, message = BAD_PARTS[what]
    memory, table, global_ = Memory(1), Table("externref", 1), Global("i32")
    value = VMExternRef(Thing())
    segment = ElementSegment("externref", [value])
    good = {
        "memories": [memory],
        "tables": [table],
        "globals": [global_],
        "elements": [segment],
    }
    if next(iter(arguments)) in good:
        kind = next(iter(arguments))
        arguments = {**arguments, kind: [*arguments[kind]]}
        del good[kind]
    with pytest.raises(error, match=f"^Instance\\(\\).*{message}|{message}"):
        Instance(**{**good, **arguments})
    # Nothing was changed: the good parts can still be used.
    instance = Instance([memory], [table], [global_], elements=[segment])
    asm_libcalls.table_init(instance, 0, 0, 0, 0, 1)
    assert table[0] is value.value
    assert value.strong_count() == 3


@pytest.mark.parametrize("kind", ["memories", "tables", "globals", "elements"])
def test_refuses_the_same_part_twice(kind):
    make = {
        "memories": lambda: Memory(1),
        "tables": lambda: Table("funcref", 1),
        "globals": lambda: Global("i32"),
        "elements": lambda: ElementSegment("externref", ["x"]),
    }[kind]
    part = make()
    with pytest.raises(ValueError, match=rf"{kind}\[1\] is given twice"):
        Instance(**{kind: [part, part]})
    Instance(**{kind: [part, make()]})
    with pytest.raises(ValueError, match="another instance"):
        Instance(**{kind: [part]})


def test_what_it_refuses_leaves_the_other_parts_free():
    taken, dropped = Memory(1), VMExternRef("x")
    owner = Instance([taken])
    segment = ElementSegment("externref", [dropped])
    dropped.drop()
    for memories, elements, message in (
        ([taken], [], "another instance"),
        ([], [segment], "dropped"),
    ):
        memory, table = Memory(1), Table("funcref", 1)
        with pytest.raises(ValueError, match=message):
            Instance([memory, *memories], [table], elements=elements)
        Instance([memory], [table]).close()
    owner.close()


@pytest.mark.parametrize("kind", ["memories", "tables", "globals"])
def test_refuses_a_closed_part(kind):
    part = {"memories": Memory, "tables": lambda n: Table("funcref", n),
            "globals": lambda n: Global("i32", n)}[kind](1)  # fmt: skip
    part.close()
    with pytest.raises(ValueError, match=rf"{kind}\[0\] is closed"):
        Instance(**{kind: [part]})
    with pytest.raises(ValueError, match=rf"imports\['{kind}'\]\[0\] is closed"):
        Instance(imports={kind: [part]})


def test_refuses_a_function_of_a_closed_instance():
    owner = Instance(functions=[(1, 0)])
    function = owner.functions[0]
    owner.close()
    with pytest.raises(ValueError, match=r"imports\['functions'\]\[0\] is of a closed Instance"):
        Instance(imports={"functions": [function]})


def test_data_is_copied_from_any_buffer():
    source = bytearray(b"abcd")
    array = (ctypes.c_uint32 * 2)(1, 2)
    instance = Instance([Memory(1)], data=[source, array, memoryview(b"xyz")[1:], b""])
    source[:] = b"____"
    array[0] = 9
    assert instance.data == [b"abcd", bytes([1, 0, 0, 0, 2, 0, 0, 0]), b"yz", b""]
    asm_libcalls.memory_init(instance, 0, 0, 10, 0, 4)
    asm_libcalls.memory_init(instance, 0, 2, 14, 0, 2)
    asm_libcalls.memory_init(instance, 0, 3, 65536, 0, 0)
    assert bytes(memoryview(instance.memories[0])[9:17]) == b"\0abcdyz\0"


def test_elements_of_both_types():
    host = HostFunction(lambda: 0, "()")
    owner = Instance(functions=[(host.address, 3)])
    shared = VMExternRef("shared")
    tables = [Table("funcref", 4), Table("externref", 4)]
    instance = Instance(
        tables=tables,
        functions=[(1, 1), (2, 2)],
        elements=[
            ("funcref", [1, None, owner.functions[0], 0]),
            ElementSegment("externref", [shared, None, 5, "x"]),
        ],
    )
    asm_libcalls.table_init(instance, 0, 0, 0, 0, 4)
    functions = instance.functions
    assert list(instance.tables[0]) == [functions[1], None, owner.functions[0], functions[0]]
    asm_libcalls.table_init(instance, 1, 1, 0, 0, 4)
    assert list(instance.tables[1]) == ["shared", None, 5, "x"]
    assert shared.strong_count() == 3
    instance.close()
    assert shared.strong_count() == 2  # the table lives on, the segment does not


def test_close_releases_what_only_it_held():
    things = [Thing() for _ in range(3)]
    segment_ref, table_ref, global_ref = map(weakref.ref, things)
    table, global_ = Table("externref", 1), Global("externref", things[2], True)
    table[0] = things[1]
    instance = Instance(
        tables=[table], globals=[global_], elements=[("externref", [things.pop(0)])]
    )
    things.clear()
    vmctx = instance.vmctx
    instance.close()
    assert segment_ref() is None
    assert instance.closed
    assert repr(instance) == "<Instance closed>"
    with pytest.raises(ValueError, match="the Instance is closed"):
        _ = instance.vmctx
    with pytest.raises(ValueError, match=f"no live instance at vmctx {vmctx:#x}"):
        instance_of(vmctx)
    instance.close()
    # What it defined is whole, where others have it.
    assert table_ref() is table[0]
    assert global_ref() is global_.value
    del table, global_
    gc.collect()
    assert table_ref() is None
    assert global_ref() is None


def test_what_it_defined_lives_on_in_the_importer():
    owner = Instance([Memory(1, 5)], [Table("externref", 1)], [Global("i32", 3, True)])
    user = Instance(
        imports={
            "memories": owner.memories,
            "tables": owner.tables,
            "globals": owner.globals,
        }
    )
    memoryview(owner.memories[0])[5] = 9
    owner.tables[0][0] = "kept"
    owner.close()
    del owner
    gc.collect()
    junk = [bytes(1000) for _ in range(1000)]  # memory that was freed would be used again here
    assert asm_libcalls.imported_memory32_grow(user, 2, 0) == 1
    asm_libcalls.memory_copy(user, 0, 100, 0, 5, 1)
    assert memoryview(user.memories[0])[100] == 9
    assert user.tables[0][0] == "kept"
    user.globals[0].value = 4
    assert user.globals[0].value == 4
    del junk


def test_close_in_a_with_block_and_in_any_order():
    with Memory(1) as memory, Table("externref", 1) as table, Global("i32") as global_:
        with Instance([memory], [table], [global_]) as instance:
            assert not instance.closed
        assert instance.closed
    assert memory.closed
    assert table.closed
    assert global_.closed
    memory, table, global_ = Memory(1), Table("externref", 1), Global("i32")
    instance = Instance([memory], [table], [global_])
    for part in (memory, table, global_, instance):
        part.close()
        part.close()


def test_destructor_that_raises_in_close_is_heard_and_the_rest_is_closed():
    error = ValueError("in __del__")

    class Raising:
        def __del__(self):
            raise error

    thing = Thing()
    last = weakref.ref(thing)
    instance = Instance(elements=[("externref", [Raising()]), ("externref", [thing])])
    del thing
    with pytest.raises(ValueError, match="in __del__") as caught:
        instance.close()
    assert caught.value is error
    assert instance.closed
    assert last() is None


def test_dead_instances_are_collected_and_leave_nothing():
    """An instance and its functions refer to each other: Python's own collector frees them."""
    refs = []
    for _ in range(50):
        value = Thing()
        instance = Instance(
            [Memory(1)],
            [Table("externref", 2), Table("funcref", 2)],
            [Global("externref", value)],
            functions=[(1, 2)],
            elements=[("externref", [value])],
        )
        instance.tables[0][0] = value
        instance.tables[1][0] = instance.functions[0]
        asm_libcalls.externref_global_get(instance, 0)
        refs += [weakref.ref(value), weakref.ref(instance), weakref.ref(instance.memories[0])]
    del instance, value
    gc.collect()
    assert not any(ref() for ref in refs)


def test_function_references():
    instance = Instance(functions=[(0x10, 7), (0x20, 8)])
    first, second = instance.functions
    assert first != second
    assert first != 5
    assert first == asm_libcalls.FuncRef.from_raw(first.as_raw())
    assert len({first, second, asm_libcalls.FuncRef.from_raw(first.as_raw())}) == 2
    assert (second.func_ptr, second.type_index, second.index) == (0x20, 8, 1)
    assert second.instance is instance
    assert "function 1 of <Instance" in repr(second)
    with pytest.raises(ValueError, match="no live function reference at address 0x1"):
        asm_libcalls.FuncRef.from_raw(1)


def test_a_table_keeps_the_instance_of_its_functions():
    table = Table("funcref", 1)
    instance = Instance(functions=[(0x10, 7)])
    ref = weakref.ref(instance)
    table[0] = instance.functions[0]
    del instance
    gc.collect()
    assert ref() is not None
    assert table[0].func_ptr == 0x10
    table.close()
    gc.collect()
    assert ref() is None


def test_functions_are_kept_by_copies_too():
    source, copy = Table("funcref", 1), Table("funcref", 1)
    function = Instance(functions=[(0x10, 7)]).functions[0]
    source[0] = function
    del function
    instance = Instance(tables=[source, copy])
    asm_libcalls.table_copy(instance, 1, 0, 0, 0, 1)
    source.close()
    gc.collect()
    assert copy[0].func_ptr == 0x10


def test_functions_are_kept_where_a_segment_put_them():
    table = Table("funcref", 1)
    other = Instance(functions=[(0x10, 7)])
    instance = Instance(tables=[table], elements=[("funcref", [other.functions[0]])])
    del other
    asm_libcalls.table_init(instance, 0, 0, 0, 0, 1)
    asm_libcalls.elem_drop(instance, 0)
    gc.collect()
    assert table[0].func_ptr == 0x10


def test_registries_are_shared_unless_given():
    registry = StackMapRegistry()
    first, second = Instance(), Instance()
    assert first.stack_map_registry is second.stack_map_registry
    assert Instance(stack_map_registry=registry).stack_map_registry is registry


def test_data_drop_and_elem_drop_leave_the_instance_attributes_readable():
    instance = Instance([Memory(1)], data=[b"abc"], elements=[("externref", ["x"])])
    asm_libcalls.data_drop(instance, 0)
    asm_libcalls.elem_drop(instance, 0)
    assert instance.data_segment(0)[1] == 0
    assert len(instance.elements[0]) == 0
    asm_libcalls.data_drop(instance, 0)
    asm_libcalls.elem_drop(instance, 0)


def test_gc_checks_its_argument():
    with pytest.raises(TypeError, match=r"gc\(\): instance must be an asm_libcalls\.Instance"):
        asm_libcalls.gc(5)
    instance = Instance()
    instance.close()
    with pytest.raises(ValueError, match=r"gc\(\): the Instance is closed"):
        asm_libcalls.gc(instance)


@pytest.mark.parametrize("address", [8, 0, -1, 2**64, None, "x", [], True])
def test_references_to_functions_are_made_by_instances_only(address):
    """Any other address would be read as an anyfunc, and called."""
    instance = Instance(functions=[(16, 0)])
    own = instance.functions[0].as_raw()
    for cls in (asm_libcalls.FuncRef, asm_libcalls.toy_jit.Func):
        for given in (address, own):
            with pytest.raises(TypeError, match=r"Func(Ref)?\(\) is called by instances only"):
                cls(instance, 0, given)
