"""THE TABLE: all that derives from each row, and what serves it."""

import ctypes
import json
import re
import sys
from pathlib import Path

import edge_tables
import pytest
from process_maps import mapping_of

import asm_libcalls
from asm_libcalls.libcalls import (
    BUILTIN_ARRAY,
    BUILTIN_SLOTS,
    DECLARATIONS,
    PARAMETER_KINDS,
    SYMBOL_PREFIX,
    Declaration,
)
from asm_libcalls.signatures import VALUE_TYPES, Signature
from asm_libcalls.trap_codes import TrapCode

FAMILIES = {"rounding": 8, "integers": 7, "memories": 9, "tables": 5, "externrefs": 4}
NUMERIC = [name for name, row in DECLARATIONS.items() if row.family in ("rounding", "integers")]

# Prototypes written by hand from the C ABI of Wasmtime 0.22, one of each shape.
PROTOTYPES = [
    "float wasmtime_f32_nearest(float x);",
    "double wasmtime_f64_ceil(double x);",
    "int64_t wasmtime_i64_ishl(int64_t x, int64_t count);",
    "int64_t wasmtime_i64_sdiv(int64_t dividend, int64_t divisor);",
    "uint64_t wasmtime_i64_urem(uint64_t dividend, uint64_t divisor);",
    "uint32_t wasmtime_memory32_grow(VMContext *vmctx, uint32_t delta, "
    "uint32_t defined_memory_index);",
    "void wasmtime_memory_copy(VMContext *vmctx, uint32_t dst_memory_index, uint32_t dst, "
    "uint32_t src_memory_index, uint32_t src, uint32_t len);",
    "void wasmtime_data_drop(VMContext *vmctx, uint32_t data_index);",
    "uint32_t wasmtime_table_grow(VMContext *vmctx, uint32_t table_index, uint32_t delta, "
    "void *init_value);",
    "void wasmtime_drop_externref(VMExternData *externref);",
    "VMExternData *wasmtime_externref_global_get(VMContext *vmctx, uint32_t global_index);",
]


@pytest.fixture(params=DECLARATIONS)
def row(request):
    return DECLARATIONS[request.param]


def test_33_rows_by_family():
    assert len(DECLARATIONS) == 33
    counts = {}
    for row in DECLARATIONS.values():
        counts[row.family] = counts.get(row.family, 0) + 1
    assert counts == FAMILIES


def test_row_is_whole(row):
    assert DECLARATIONS[row.name] is row
    assert re.fullmatch(r"[a-z][a-z0-9_]*", row.name)
    assert row.symbol == SYMBOL_PREFIX + row.name == f"wasmtime_{row.name}"
    assert type(row.signature) is Signature
    assert len(row.parameters) == len(row.signature.parameters)
    assert len(set(row.parameters)) == len(row.parameters)
    assert all(name.isidentifier() for name in row.parameters)
    assert row.instruction
    assert len(row.doc) > 10
    assert row.doc.endswith(".")
    assert all(type(code) is TrapCode for code in row.traps)
    assert len(set(row.traps)) == len(row.traps)


def test_the_instance_comes_first_where_there_is_state(row):
    stateless = row.family in ("rounding", "integers") or row.name == "drop_externref"
    assert (row.parameters[0] == "vmctx") != stateless
    assert (row.signature.parameters[0] is VALUE_TYPES["vmctx"]) != stateless


def test_c_declaration_matches_signature(row):
    result, symbol, parameters = re.fullmatch(
        r"(\w+ \*?)(\w+)\((.*)\);", row.c_declaration
    ).groups()
    assert symbol == row.symbol
    c_types = {"i32": "int32_t", "u32": "uint32_t", "i64": "int64_t", "u64": "uint64_t",
               "f32": "float", "f64": "double", "vmctx": "VMContext *", "reference": "void *",
               "externref": "VMExternData *"}  # fmt: skip
    expected = row.signature.result
    assert result.strip() == ("void" if expected is None else c_types[expected.name])
    declared = [
        re.fullmatch(r"(\w+ \*|\w+(?= )) ?(\w+)", p).groups() for p in parameters.split(", ")
    ]
    assert declared == [
        (c_types[t.name], name)
        for t, name in zip(row.signature.parameters, row.parameters, strict=True)
    ]


# By hand from the C ABI: what the indices and references of a libcall choose from.
KINDS = {
    "memory32_grow": ("", "", "defined_memory"),
    "imported_memory32_grow": ("", "", "imported_memory"),
    "memory32_size": ("", "defined_memory"),
    "imported_memory32_size": ("", "imported_memory"),
    "memory_copy": ("", "memory", "", "memory", "", ""),
    "memory_fill": ("", "defined_memory", "", "", ""),
    "imported_memory_fill": ("", "imported_memory", "", "", ""),
    "memory_init": ("", "memory", "data", "", "", ""),
    "data_drop": ("", "data"),
    "table_grow": ("", "table", "", ""),
    "table_fill": ("", "table", "", "", ""),
    "table_copy": ("", "table", "table", "", "", ""),
    "table_init": ("", "table", "element", "", "", ""),
    "elem_drop": ("", "element"),
    "drop_externref": ("unowned",),
    "activations_table_insert_with_gc": ("", ""),
    "externref_global_get": ("", "externref_global"),
    "externref_global_set": ("", "externref_global", "nullable"),
}


def test_what_parameters_mean(row):
    assert row.parameter_kinds == KINDS.get(row.name, ("",) * len(row.parameters))
    assert set(row.parameter_kinds) <= {"", *PARAMETER_KINDS}
    assert row.takes_instance == (row.name in KINDS)


def test_an_unknown_kind_of_parameter_is_refused():
    with pytest.raises(ValueError, match=r"^odd: unknown parameter kind 'heap', expected one of "):
        Declaration("memories", "odd", "(vmctx, u32)", "vmctx index:heap", "none", "Odd.")


@pytest.mark.parametrize(
    ("signature", "takes"),
    [
        ("(i64, f32) -> f64", False),
        ("(pointer, u32)", False),
        ("()", False),
        ("(vmctx)", True),
        ("(u32, reference)", True),
        ("(anyfunc)", True),
        ("() -> externref", True),
    ],
)
def test_the_signature_says_whether_an_instance_is_taken(signature, takes):
    assert Declaration("any", "any", signature, "", "none", "Any.").takes_instance == takes


@pytest.mark.parametrize("prototype", PROTOTYPES)
def test_prototype(prototype):
    assert prototype in {row.c_declaration for row in DECLARATIONS.values()}


def test_builtin_array_holds_libcalls_with_state():
    stateful = {n for n, row in DECLARATIONS.items() if row.takes_instance}
    assert {name for name in BUILTIN_ARRAY if name not in DECLARATIONS} == set()
    # Wasmtime 0.22's array has a slot for each reference type where a table grows or is filled, and
    # calls what is not in it by its symbol: an imported or a plain name, never none.
    twice = {name for name in BUILTIN_ARRAY if BUILTIN_ARRAY.count(name) > 1}
    assert twice == {"table_grow", "table_fill"}
    assert len(BUILTIN_ARRAY) == len(set(BUILTIN_ARRAY)) + 2 == 20
    assert set(BUILTIN_ARRAY) == stateful


def test_builtin_slots():
    assert [slot.index for slot in BUILTIN_SLOTS] == list(range(20))
    assert tuple(slot.libcall for slot in BUILTIN_SLOTS) == BUILTIN_ARRAY
    assert len({slot.name for slot in BUILTIN_SLOTS}) == 20
    # Wasmtime 0.22's order: funcref first where a table grows, and second where it is filled.
    typed = [(s.index, s.name, s.reference_type) for s in BUILTIN_SLOTS if s.reference_type]
    assert typed == [
        (12, "table_grow_funcref", "funcref"),
        (13, "table_grow_externref", "externref"),
        (14, "table_fill_externref", "externref"),
        (15, "table_fill_funcref", "funcref"),
    ]
    assert all(slot.name == slot.libcall for slot in BUILTIN_SLOTS if not slot.reference_type)


@pytest.mark.parametrize("name", NUMERIC)
def test_numeric_row_has_edge_cases(name):
    assert sum(row.libcall == name for row in edge_tables.all_rows()) >= 50


def test_libcall_is_what_its_row_says(row, binding):
    libcall = binding.libcalls[row.name]
    assert libcall.declaration is row
    assert (libcall.name, libcall.symbol) == (row.name, row.symbol)
    assert (libcall.signature, libcall.doc) == (row.signature, row.doc)
    assert row.name in repr(libcall)
    assert libcall.backend in ("x86_64", "fallback")
    assert libcall.reason


def test_row_has_a_body_in_python(row, binding):
    body = binding.fallback_of(row)
    assert body.__name__ in (row.name, "round_pattern")
    assert binding.libcalls[row.name].fallback.backend == "fallback"


def test_machine_code_serves_what_it_says(row, accelerated, machine_code):
    """A libcall is served by x86_64 exactly if its address is in our executable pages."""
    libcall = accelerated.libcalls[row.name]
    loaded = machine_code.loaded
    our_pages = range(loaded.address, loaded.address + len(loaded.image.code))
    assert (libcall.address in our_pages) == (libcall.backend == "x86_64")
    if libcall.backend == "x86_64":
        served = machine_code.routine_of(row.name)
        assert libcall.address == loaded.routine(served)
        assert loaded.image.routines[served][1] > 0
        assert mapping_of(libcall.address).permissions == "r-xp"
        assert loaded.code(served) == ctypes.string_at(libcall.address, len(loaded.code(served)))
        assert machine_code.families[row.family] == ""
    else:
        assert machine_code.families.get(row.family, "") in ("", libcall.reason)


def test_numeric_libcalls_are_machine_code_where_the_cpu_can(accelerated, machine_code):
    expected = {
        name: "x86_64"
        if DECLARATIONS[name].family == "integers" or "sse4_1" in machine_code.cpu.features
        else "fallback"
        for name in NUMERIC
    }
    assert {name: accelerated.libcalls[name].backend for name in NUMERIC} == expected


@pytest.mark.parametrize("name", NUMERIC)
def test_fallback_serves_what_it_says(name, fallback):
    """A call of the address runs the body in fallback/FAMILY.py."""
    libcall = fallback.libcalls[name]
    assert libcall.backend == "fallback"
    address = libcall.address
    assert address == libcall.address
    ran = set()

    def profile(frame, event, argument):
        if event == "call":
            ran.add(Path(frame.f_code.co_filename).parts[-2:])

    sys.setprofile(profile)
    try:
        fallback.entry.call(address, libcall.signature, [1] * len(libcall.signature.parameters))
    finally:
        sys.setprofile(None)
    assert ("fallback", f"{libcall.declaration.family}.py") in ran


def test_symbols_are_the_addresses(binding):
    symbols = binding.symbols()
    assert symbols == {c.symbol: c.address for c in binding.libcalls.values()}
    assert list(symbols) == [SYMBOL_PREFIX + name for name in DECLARATIONS]
    assert all(address > 0 for address in symbols.values())
    assert len(set(symbols.values())) == len(symbols)


def test_public_names():
    assert len(set(asm_libcalls.__all__)) == len(asm_libcalls.__all__)
    for name in asm_libcalls.__all__:
        assert hasattr(asm_libcalls, name), name
    for name, libcall in asm_libcalls.LIBCALLS.items():
        function = getattr(asm_libcalls, name)
        assert (function.__name__, function.__doc__) == (name, libcall.doc)
        assert name in asm_libcalls.__all__
    namespace = {}
    exec("from asm_libcalls import *", namespace)
    assert set(asm_libcalls.__all__) <= set(namespace)


def test_report_says_the_same():
    report = asm_libcalls.backend_report()
    assert json.loads(json.dumps(report)) == report
    assert report["machine"].endswith(f"{sys.byteorder}-endian")
    assert list(report["libcalls"]) == list(DECLARATIONS)
    text = str(report)
    for name, libcall in asm_libcalls.LIBCALLS.items():
        assert report["libcalls"][name] == {"backend": libcall.backend, "reason": libcall.reason}
        assert re.search(rf"^ +{name} +{libcall.backend} +{re.escape(libcall.reason)}$",
                         text, re.MULTILINE), name  # fmt: skip
