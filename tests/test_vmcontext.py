"""The layout of the VMContext: Wasmtime 0.22's numbers, sums made by hand, and real memory."""

from __future__ import annotations

import ctypes
import random

import pytest

from asm_libcalls import Global, HostFunction, Instance, Memory, Table, vmcontext
from asm_libcalls.binding import Binding
from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.vmcontext import InstanceHeader, VMDataSegment, VMOffsets

# What Wasmtime 0.22 says for x86-64 in vmcontext.rs and checks against vmoffsets.rs: the fields
# that compiled code knows, and the size where it steps over whole structures.
STRUCTURES = {
    "VMFunctionImport": ({"body": 0, "vmctx": 8}, 16),
    "VMTableImport": ({"from_": 0, "vmctx": 8}, 16),
    "VMMemoryImport": ({"from_": 0, "vmctx": 8}, 16),
    "VMGlobalImport": ({"from_": 0}, 8),
    "VMTableDefinition": ({"base": 0, "current_elements": 8}, 16),
    "VMMemoryDefinition": ({"base": 0, "current_length": 8}, 16),
    "VMGlobalDefinition": ({"storage": 0}, 16),
    "VMCallerCheckedAnyfunc": ({"func_ptr": 0, "type_index": 8, "vmctx": 16}, 24),
    "VMInterrupts": ({"stack_limit": 0}, None),
    "VMExternData": ({"ref_count": 0}, None),
}

FIELD_SIZES = {"type_index": 4, "current_elements": 4, "storage": 16}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_wasmtimes(name):
    fields, size = STRUCTURES[name]
    structure = getattr(vmcontext, name)
    for field, offset in fields.items():
        assert getattr(structure, field).offset == offset
        assert getattr(structure, field).size == FIELD_SIZES.get(field, 8)
    if size is not None:
        assert ctypes.sizeof(structure) == size


@pytest.mark.parametrize("name", STRUCTURES)
def test_offsets_of_a_structure_are_those_of_its_c_definition(name):
    offsets = VMOffsets()
    snake = {
        "VMFunctionImport": "vmfunction_import",
        "VMTableImport": "vmtable_import",
        "VMMemoryImport": "vmmemory_import",
        "VMGlobalImport": "vmglobal_import",
        "VMTableDefinition": "vmtable_definition",
        "VMMemoryDefinition": "vmmemory_definition",
        "VMGlobalDefinition": "vmglobal_definition",
        "VMCallerCheckedAnyfunc": "vmcaller_checked_anyfunc",
        "VMInterrupts": "vminterrupts",
        "VMExternData": "vm_extern_data",
    }[name]
    fields, size = STRUCTURES[name]
    for field, offset in fields.items():
        if field != "storage":
            assert getattr(offsets, f"{snake}_{field.strip('_')}")() == offset
    if size is not None:
        assert getattr(offsets, f"size_of_{snake}")() == size


def test_activations_table_begins_as_wasmtimes():
    offsets = VMOffsets()
    assert offsets.vm_extern_ref_activation_table_next() == 0
    assert offsets.vm_extern_ref_activation_table_end() == 8
    assert offsets.size_of_vmshared_signature_index() == 4


# Each row: what a module declares, and where things are, added up by hand from the order in the
# module's documentation.
LAYOUTS = [
    (
        {},
        {
            "interrupts": 0,
            "externref_activations_table": 8,
            "stack_map_registry": 16,
            "signature_ids_begin": 24,
            "imported_functions_begin": 24,
            "tables_begin": 24,
            "memories_begin": 24,
            "globals_begin": 32,  # 24, to a multiple of 16
            "anyfuncs_begin": 32,
            "builtin_functions_begin": 32,
        },
        192,
    ),
    (
        {"num_defined_memories": 1},
        {"memories_begin": 24, "globals_begin": 48, "builtin_functions_begin": 48},
        208,
    ),
    (
        # Three signature ids are 12 bytes: every pointer up to the globals is then misaligned.
        {
            "num_signature_ids": 3,
            "num_imported_functions": 2,
            "num_imported_tables": 1,
            "num_imported_memories": 1,
            "num_imported_globals": 3,
            "num_defined_functions": 4,
            "num_defined_tables": 2,
            "num_defined_memories": 1,
            "num_defined_globals": 2,
        },
        {
            "signature_ids_begin": 24,
            "imported_functions_begin": 36,
            "imported_tables_begin": 68,
            "imported_memories_begin": 84,
            "imported_globals_begin": 100,
            "tables_begin": 124,
            "memories_begin": 156,
            "globals_begin": 176,  # 172, to a multiple of 16
            "anyfuncs_begin": 208,
            "builtin_functions_begin": 352,
        },
        512,
    ),
    (
        {"num_signature_ids": 1, "num_imported_globals": 1, "num_defined_globals": 1},
        {
            "imported_globals_begin": 28,
            "tables_begin": 36,
            "globals_begin": 48,
            "anyfuncs_begin": 64,
            "builtin_functions_begin": 64,
        },
        224,
    ),
    (
        {"num_signature_ids": 5, "num_defined_functions": 1, "num_defined_tables": 1},
        {"tables_begin": 44, "memories_begin": 60, "globals_begin": 64, "anyfuncs_begin": 64},
        64 + 24 + 160,
    ),
]


@pytest.mark.parametrize(("declared", "begins", "size"), LAYOUTS)
def test_layout_by_hand(declared, begins, size):
    offsets = VMOffsets(**declared)
    found = {name: getattr(offsets, f"vmctx_{name}")() for name in begins}
    assert found == begins
    assert offsets.size_of_vmctx() == size


def test_layout_of_32_bit_pointers():
    offsets = VMOffsets(
        num_signature_ids=1,
        num_imported_functions=1,
        num_imported_globals=1,
        num_defined_tables=1,
        num_defined_memories=1,
        num_defined_globals=1,
        pointer_size=4,
    )
    assert offsets.vmctx_signature_ids_begin() == 12
    assert offsets.vmctx_imported_functions_begin() == 16
    assert offsets.vmctx_imported_globals_begin() == 24
    assert offsets.vmctx_tables_begin() == 28
    assert offsets.vmctx_memories_begin() == 36
    assert offsets.vmctx_globals_begin() == 48
    assert offsets.vmctx_anyfuncs_begin() == 64
    assert offsets.vmctx_builtin_functions_begin() == 76
    assert offsets.size_of_vmctx() == 156


# What an index addresses, with how many bytes one of them takes.
INDEXED = {
    "vmshared_signature_id": ("signature_ids", 4, {}),
    "vmfunction_import": ("imported_functions", 16, {"body": 0, "vmctx": 8}),
    "vmtable_import": ("imported_tables", 16, {"from": 0}),
    "vmmemory_import": ("imported_memories", 16, {"from": 0, "vmctx": 8}),
    "vmglobal_import": ("imported_globals", 8, {"from": 0}),
    "vmtable_definition": ("tables", 16, {"base": 0, "current_elements": 8}),
    "vmmemory_definition": ("memories", 16, {"base": 0, "current_length": 8}),
    "vmglobal_definition": ("globals", 16, {}),
    "anyfunc": ("anyfuncs", 24, {}),
    "builtin_function": ("builtin_functions", 8, {}),
}


@pytest.mark.parametrize("name", INDEXED)
def test_index_steps_by_the_size_and_fields_by_their_offset(name):
    begin, step, fields = INDEXED[name]
    offsets = VMOffsets(**{name: 7 for name in VMOffsets.__slots__ if name.startswith("num_")})
    start = getattr(offsets, f"vmctx_{begin}_begin")()
    for index in (0, 1, 6):
        assert getattr(offsets, f"vmctx_{name}")(index) == start + index * step
        for field, offset in fields.items():
            assert getattr(offsets, f"vmctx_{name}_{field}")(index) == start + index * step + offset


@pytest.mark.parametrize("name", INDEXED)
def test_an_index_of_no_part_is_refused(name):
    offsets = VMOffsets(num_signature_ids=1, num_imported_functions=1, num_defined_memories=1)
    fields = ["", *(f"_{field}" for field in INDEXED[name][2])]
    for method in (getattr(offsets, f"vmctx_{name}{field}") for field in fields):
        for wrong, error in ((-1, ValueError), (99, ValueError), (0.5, TypeError), ("", TypeError)):
            with pytest.raises(error, match=r"^VMOffsets: the index of one of \d+ parts must be "):
                method(wrong)


@pytest.mark.parametrize("name", VMOffsets.__slots__)
def test_a_number_of_parts_is_an_integer(name):
    for wrong, error in ((-1, ValueError), (10**5000, ValueError), (1.0, TypeError)):
        with pytest.raises(error, match=rf"^VMOffsets\(\): {name} must be "):
            VMOffsets(**{name: wrong})


def test_nothing_overlaps_whatever_is_declared(random_cases: random.Random):
    counts = [name for name in VMOffsets.__slots__ if name.startswith("num_")]
    for _ in range(200):
        declared = {name: random_cases.randrange(5) for name in counts}
        offsets = VMOffsets(**declared)
        spans = [(0, 8), (8, 8), (16, 8)]
        for name, count in (
            ("vmshared_signature_id", declared["num_signature_ids"]),
            ("vmfunction_import", declared["num_imported_functions"]),
            ("vmtable_import", declared["num_imported_tables"]),
            ("vmmemory_import", declared["num_imported_memories"]),
            ("vmglobal_import", declared["num_imported_globals"]),
            ("vmtable_definition", declared["num_defined_tables"]),
            ("vmmemory_definition", declared["num_defined_memories"]),
            ("vmglobal_definition", declared["num_defined_globals"]),
            ("anyfunc", declared["num_imported_functions"] + declared["num_defined_functions"]),
            ("builtin_function", len(BUILTIN_ARRAY)),
        ):
            size = INDEXED[name][1]
            spans += [(getattr(offsets, f"vmctx_{name}")(i), size) for i in range(count)]
        end = 0
        gaps = 0
        for start, size in spans:  # in the order of the documentation, so they only go up
            gaps += start - end
            assert start >= end
            end = start + size
        assert end == offsets.size_of_vmctx()
        assert gaps == offsets.vmctx_globals_begin() - offsets.vmctx_vmmemory_definition(
            declared["num_defined_memories"]
        )
        assert gaps < 16
        assert offsets.vmctx_globals_begin() % 16 == 0


# The real thing: what an Instance writes where VMOffsets says.


def u64(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def u32(address: int) -> int:
    return ctypes.c_uint32.from_address(address).value


class World:
    """An instance that defines one of everything and more, and one that imports from it."""

    def __init__(self, binding: Binding) -> None:
        self.host = HostFunction(lambda: None, "(vmctx)")
        self.owner = Instance(
            memories=[Memory(1, 4), Memory(0, 2)],
            tables=[Table("funcref", 3), Table("externref", 5, 9)],
            globals=[Global("i32", 7), Global("f64", 2.5, True), Global("externref", "x", True)],
            functions=[(self.host.address, 11), (0x1234, 12)],
            data=[b"abc", b""],
            signature_ids=[100, 200, 0xFFFFFFFF],
            binding=binding,
        )
        owner = self.owner
        self.user = Instance(
            memories=[Memory(2)],
            tables=[Table("externref", 1)],
            globals=[Global("i64", -1)],
            functions=[(0x5678, 13)],
            data=[b"xyz"],
            imports={
                "functions": [owner.functions[1]],
                "tables": [owner.tables[1], owner.tables[0]],
                "memories": [owner.memories[1]],
                "globals": [owner.globals[2], owner.globals[0]],
            },
            signature_ids=[5],
            binding=binding,
        )


@pytest.fixture
def world(binding):
    return World(binding)


@pytest.mark.parametrize("which", ["owner", "user"])
def test_vmctx_is_aligned_and_starts_with_what_the_instance_has(world, which):
    instance = getattr(world, which)
    vmctx, offsets = instance.vmctx, instance.offsets
    assert vmctx % 16 == 0
    interrupts = u64(vmctx + offsets.vmctx_interrupts())
    assert interrupts == ctypes.addressof(instance.interrupts)
    assert u64(interrupts + offsets.vminterrupts_stack_limit()) == 0
    table = u64(vmctx + offsets.vmctx_externref_activations_table())
    assert table == instance.activations_table.address
    next_, end = (
        u64(table + offsets.vm_extern_ref_activation_table_next()),
        u64(table + offsets.vm_extern_ref_activation_table_end()),
    )
    assert end - next_ == 512 * 8
    assert next_ % 8 == 0
    assert (
        u64(vmctx + offsets.vmctx_stack_map_registry()) == instance.stack_map_registry.address != 0
    )


def test_signature_ids(world):
    vmctx, offsets = world.owner.vmctx, world.owner.offsets
    read = [u32(vmctx + offsets.vmctx_vmshared_signature_id(i)) for i in range(3)]
    assert read == [100, 200, 0xFFFFFFFF]
    assert u32(world.user.vmctx + world.user.offsets.vmctx_vmshared_signature_id(0)) == 5


def test_defined_memories_tables_and_globals(world):
    owner = world.owner
    vmctx, offsets = owner.vmctx, owner.offsets
    for i, memory in enumerate(owner.memories):
        assert u64(vmctx + offsets.vmctx_vmmemory_definition_base(i)) == memory.base
        assert u64(vmctx + offsets.vmctx_vmmemory_definition_current_length(i)) == len(memory)
        assert memory.definition_address == vmctx + offsets.vmctx_vmmemory_definition(i)
        assert memory.owner_vmctx == vmctx
    for i, table in enumerate(owner.tables):
        assert u64(vmctx + offsets.vmctx_vmtable_definition_base(i)) != 0
        assert u32(vmctx + offsets.vmctx_vmtable_definition_current_elements(i)) == len(table)
    assert u32(vmctx + offsets.vmctx_vmglobal_definition(0)) == 7
    assert ctypes.c_double.from_address(vmctx + offsets.vmctx_vmglobal_definition(1)).value == 2.5
    assert u64(vmctx + offsets.vmctx_vmglobal_definition(2)) == owner.globals[2].bits != 0
    assert all((vmctx + offsets.vmctx_vmglobal_definition(i)) % 16 == 0 for i in range(3))


def test_definitions_follow_what_python_does(world):
    owner = world.owner
    vmctx, offsets = owner.vmctx, owner.offsets
    base = u64(vmctx + offsets.vmctx_vmmemory_definition_base(0))
    assert owner.memories[0].grow(2) == 1
    assert u64(vmctx + offsets.vmctx_vmmemory_definition_current_length(0)) == 3 * 65536
    assert u64(vmctx + offsets.vmctx_vmmemory_definition_base(0)) == base
    value = object()
    owner.tables[1][4] = value
    elements = u64(vmctx + offsets.vmctx_vmtable_definition_base(1))
    assert u64(u64(elements + 4 * 8) + 8) == id(value)  # VMExternData.value
    assert owner.tables[1].grow(2, value) == 5
    elements = u64(vmctx + offsets.vmctx_vmtable_definition_base(1))
    assert u32(vmctx + offsets.vmctx_vmtable_definition_current_elements(1)) == 7
    assert [bool(u64(elements + 8 * i)) for i in range(7)] == [False] * 4 + [True] * 3
    owner.globals[1].value = -0.0
    assert u64(vmctx + offsets.vmctx_vmglobal_definition(1)) == 1 << 63
    # And the other way round: Python reads what native code writes.
    ctypes.c_uint64.from_address(vmctx + offsets.vmctx_vmglobal_definition(1)).value = 0x3FF << 52
    assert owner.globals[1].value == 1.0
    ctypes.c_uint8.from_address(base + 65536).value = 77
    assert memoryview(owner.memories[0])[65536] == 77


def test_imports_point_into_the_owner(world):
    owner, user = world.owner, world.user
    vmctx, offsets = user.vmctx, user.offsets
    theirs = owner.offsets
    for i, (table, index) in enumerate(((owner.tables[1], 1), (owner.tables[0], 0))):
        assert user.tables[i] is table
        assert u64(
            vmctx + offsets.vmctx_vmtable_import_from(i)
        ) == owner.vmctx + theirs.vmctx_vmtable_definition(index)
        assert u64(vmctx + offsets.vmctx_vmtable_import(i) + 8) == owner.vmctx
    assert u64(
        vmctx + offsets.vmctx_vmmemory_import_from(0)
    ) == owner.vmctx + theirs.vmctx_vmmemory_definition(1)
    assert u64(vmctx + offsets.vmctx_vmmemory_import_vmctx(0)) == owner.vmctx
    for i, index in enumerate((2, 0)):
        assert u64(
            vmctx + offsets.vmctx_vmglobal_import_from(i)
        ) == owner.vmctx + theirs.vmctx_vmglobal_definition(index)
    # What grows there is seen here.
    length = u64(vmctx + offsets.vmctx_vmmemory_import_from(0)) + 8
    assert u64(length) == 0
    assert owner.memories[1].grow(1) == 0
    assert u64(length) == 65536
    # What is defined here comes after what is imported, and is its own.
    assert len(user.memories) == 2
    assert u64(vmctx + offsets.vmctx_vmmemory_definition_base(0)) == user.memories[1].base


def test_anyfuncs_and_function_imports(world):
    owner, user = world.owner, world.user

    def anyfunc(instance, index):
        at = instance.vmctx + instance.offsets.vmctx_anyfunc(index)
        assert instance.functions[index].as_raw() == at
        return u64(at), u32(at + 8), u64(at + 16)

    assert anyfunc(owner, 0) == (world.host.address, 11, owner.vmctx)
    assert anyfunc(owner, 1) == (0x1234, 12, owner.vmctx)
    assert anyfunc(user, 0) == (0x1234, 12, owner.vmctx)  # the import
    assert anyfunc(user, 1) == (0x5678, 13, user.vmctx)
    at = user.vmctx + user.offsets.vmctx_vmfunction_import(0)
    assert (u64(at), u64(at + 8)) == (0x1234, owner.vmctx)


@pytest.mark.parametrize("which", ["owner", "user"])
def test_builtin_array_holds_the_libcalls(world, which, binding):
    instance = getattr(world, which)
    read = [
        u64(instance.vmctx + instance.offsets.vmctx_builtin_function(i))
        for i in range(len(BUILTIN_ARRAY))
    ]
    assert read == [binding.libcalls[name].address for name in BUILTIN_ARRAY]
    assert all(read)
    assert len(set(read)) == 18  # 20 slots: growing and filling a table has two each


def test_header_before_the_vmctx(world):
    for instance in (world.owner, world.user):
        imported = instance.offsets.num_imported_memories

        def field(name, instance=instance):
            return u64(instance.vmctx + InstanceHeader.offset_from_vmctx(name))

        assert field("magic") == InstanceHeader.MAGIC
        memories = [u64(field("memories") + 8 * i) for i in range(len(instance.memories))]
        assert memories == [memory.definition_address for memory in instance.memories]
        assert field("defined_memories") == field("memories") + 8 * imported
        for i, data in enumerate(instance.data):
            at = field("data_segments") + i * ctypes.sizeof(VMDataSegment)
            assert ctypes.string_at(u64(at), u64(at + 8)) == data
        vmctx = instance.vmctx
        instance.close()
        assert u64(vmctx + InstanceHeader.offset_from_vmctx("magic")) == 0


def test_header_offsets_are_negative_and_dense():
    names = [name for name, _ in InstanceHeader._fields_]
    expected = [8 * i for i in range(-len(names), 0)]
    assert [InstanceHeader.offset_from_vmctx(name) for name in names] == expected
