"""Arguments that no function takes: each error names the argument, whatever the value prints."""

import ctypes
import itertools
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest
from jit_modules import Function, instantiate

import asm_libcalls
from asm_libcalls import (
    Code,
    ElementSegment,
    Global,
    HostFunction,
    Instance,
    Memory,
    StackMapRegistry,
    Table,
    Trap,
    VMExternRef,
    catch_traps,
    load_code,
    native_function,
    toy_jit,
)
from asm_libcalls.signatures import arguments
from asm_libcalls.signatures.arguments import bytes_of, counted, describe, integer, items_of, shown
from asm_libcalls.toy_jit import wasi

HUGE = 10**5000
"""Python refuses to print it."""

ADDRESS = asm_libcalls.LIBCALLS["f64_floor"].address


class Unprintable:
    def __repr__(self):
        raise RuntimeError


def test_any_value_is_shown_shortly():
    class Liar(Unprintable):
        __class__ = int

    for value in (HUGE, -HUGE, [HUGE], "x" * 5000, Unprintable(), Liar(), 5, None):
        assert 0 < len(shown(value)) < 70
        assert describe(value).startswith((f"{type(value).__name__} ", "an "))
    assert shown(-HUGE) == "an integer of 16610 bits"
    assert describe("a") == "str 'a'"
    assert describe(PurePosixPath("a")) == "PurePosixPath('a')"  # it names the type itself


def test_numbers_with_their_noun():
    assert [counted(n, "memory") for n in (0, 1, 2)] == ["0 memories", "1 memory", "2 memories"]
    assert [counted(n, "page") for n in (0, 1, 2)] == ["0 pages", "1 page", "2 pages"]


def test_conversions():
    assert integer(True, "x") == 1
    assert items_of(iter("ab"), "x", "y") == ["a", "b"]
    assert bytes_of(memoryview(b"abcd")[::2], "x") == b"ac"


OF_INTEGERS = {
    "HostFunction(): function": lambda v: HostFunction(v, "()"),
    "Memory(): minimum": Memory,
    "Memory(): maximum": lambda v: Memory(0, v),
    "Memory.read(): offset": lambda v: Memory(1).read(v, 1),
    "Memory.write(): offset": lambda v: Memory(1).write(v, b""),
    "Memory.grow(): delta": lambda v: Memory(1).grow(v),
    "Table(): minimum": lambda v: Table("funcref", v),
    "Table(): element_type": lambda v: Table(v, 1),
    "table index": lambda v: Table("funcref", 1)[v],
    "Global(): value": lambda v: Global("i64", v),
    "Global(): value_type": Global,
    "ElementSegment(): element_type": lambda v: ElementSegment(v, []),
    "interrupts.stack_limit": lambda v: setattr(Instance().interrupts, "stack_limit", v),
    "StoreLimits(): memories": lambda v: toy_jit.StoreLimits(memories=v),
    "compile_options(): max_locals": lambda v: toy_jit.compile_options(max_locals=v),
    "register(): start": lambda v: StackMapRegistry().register(v, 1, {}),
    "register(): size": lambda v: StackMapRegistry().register(1, v, {}),
    "unregister(): start": lambda v: StackMapRegistry().unregister(v),
    "access_caller(): function": toy_jit.access_caller,
    "native_function(): address": lambda v: native_function(v, "()"),
    "catch_traps(): address": lambda v: catch_traps(v, "()"),
    "a trap code": Trap,
    "Preview1(): stdout": lambda v: wasi.Preview1(stdout=v),
}


@pytest.mark.parametrize("name", OF_INTEGERS)
@pytest.mark.parametrize("value", [-HUGE, -(1 << 64)], ids=["huge", "negative"])
def test_an_integer_out_of_range(name, value):
    with pytest.raises((ValueError, OverflowError, TypeError, IndexError)) as caught:
        OF_INTEGERS[name](value)
    message = str(caught.value)
    assert message.startswith(name)
    assert "4300" not in message
    assert len(message) < 200


OF_SEQUENCES = {
    "native_function(): parameters": lambda v: native_function(ADDRESS, "(i64)", parameters=v),
    "catch_traps(): parameters": lambda v: catch_traps(ADDRESS, "(i64)", parameters=v),
    "Instance(): memories": lambda v: Instance(memories=v),
    "Instance(): tables": lambda v: Instance(tables=v),
    "Instance(): globals": lambda v: Instance(globals=v),
    "Instance(): functions": lambda v: Instance(functions=v),
    "Instance(): data": lambda v: Instance(data=v),
    "Instance(): elements": lambda v: Instance(elements=v),
    "Instance(): signature_ids": lambda v: Instance(signature_ids=v),
    "Instance(): imports['functions']": lambda v: Instance(imports={"functions": v}),
    "ElementSegment(): items": lambda v: ElementSegment("externref", v),
    "Preview1(): args": lambda v: wasi.Preview1(args=v),
}


POINTER = ctypes.pointer(ctypes.c_char(b"a"))
"""It has items, until a read of one ends the process."""


@pytest.mark.parametrize("name", OF_SEQUENCES)
@pytest.mark.parametrize("value", [5, None, {"a"}, "a", POINTER], ids=type)
def test_what_is_no_sequence(name, value):
    if value is None and "parameters" in name:
        pytest.skip("the default")
    with pytest.raises(TypeError, match=f"^{re.escape(name)} must be a sequence"):
        OF_SEQUENCES[name](value)


class Endless(Mapping):
    """A mapping of `key` to 0, again and again."""

    def __init__(self, key):
        self.key = key

    def __getitem__(self, key):
        return 0

    def __iter__(self):
        return itertools.repeat(self.key)

    def __len__(self):
        return 1


WITHOUT_END = {
    **OF_SEQUENCES,
    "register(): the slots": lambda v: StackMapRegistry().register(4096, 8, {1: v}),
    "register(): maps": lambda v: StackMapRegistry().register(4096, 8, Endless(1)),
    "load_code(): functions": lambda v: load_code(b"\xc3", Endless("a")),
    "Preview1(): env": lambda v: wasi.Preview1(env=Endless("a")),
    "Preview1(): preopens": lambda v: wasi.Preview1(preopens=Endless("a")),
    "Instance(): imports": lambda v: Instance(imports=Endless("functions")),
}


@pytest.mark.parametrize("name", WITHOUT_END)
def test_an_iterator_without_an_end(name, monkeypatch):
    monkeypatch.setattr(arguments, "_MOST_ITEMS", 1000)
    items = iter(range(1002))
    with pytest.raises(ValueError, match=f"^{re.escape(name)}.* (at most 1000 items|more than 1)"):
        WITHOUT_END[name](items)
    assert next(items) in {0, 2, 1001}  # one was read beyond what is allowed


def test_slots_of_a_stack_map_that_have_no_end():
    with pytest.raises(TypeError, match="at 1 must be offsets in a sequence, got LP_c_char"):
        StackMapRegistry().register(4096, 8, {1: POINTER})


OF_BYTES = {
    "load_code(): code": load_code,
    "Code(): code": Code,
    "Instance(): data[0]": lambda v: Instance(data=[v]),
    "Module(): wasm": toy_jit.Module,
    "Module.deserialize(): data": toy_jit.Module.deserialize,
}


@pytest.mark.parametrize("name", OF_BYTES)
@pytest.mark.parametrize("value", [5, None, "a", ctypes.c_void_p(ADDRESS)], ids=type)
def test_what_is_no_bytes(name, value):
    with pytest.raises(TypeError, match=rf"^{re.escape(name)} must be bytes-like, got "):
        OF_BYTES[name](value)


@pytest.mark.parametrize("name", [*OF_BYTES, "Memory.write(): data"])
def test_bytes_of_a_closed_memory(name):
    closed = Memory(1)
    closed.close()
    use = OF_BYTES.get(name, lambda v: Memory(1).write(0, v))
    with pytest.raises(ValueError, match=rf"^{re.escape(name)}: the Memory is closed$"):
        use(closed)


OTHERS = {
    "native_function(): signature": lambda: native_function(ADDRESS, 0),
    "HostFunction(): signature": lambda: HostFunction(abs, 0),
    "Instance(): function_class": lambda: Instance(function_class=1),
    "Instance(): imports['m']": lambda: instantiate(
        {"g": Function("-> i32", "call 00")}, {"f": "-> i32"}, 5
    ),
    "Instance(): imports": lambda: toy_jit.Instance(toy_jit.Module(b"\0asm\1\0\0\0"), 5),
    "Memory.limiter": lambda: setattr(Memory(1), "limiter", 5),
    "Table.limiter": lambda: setattr(Table("funcref", 1), "limiter", 5),
    "interrupts.stack_limit": lambda: setattr(Instance().interrupts, "stack_limit", 1.0),
    "Preview1(): preopens['/a']": lambda: wasi.Preview1(preopens={"/a": 1}),
    "Module.from_file(): options": lambda: toy_jit.Module.from_file(__file__, 5),
    "native_function(): address": lambda: native_function(None, "()"),
    "catch_traps(): address": lambda: catch_traps(1.0, "()"),
    "externref_global_set(): argument 'externref'": lambda: asm_libcalls.externref_global_set(
        Instance(globals=[Global("externref", None, True)]), 0, 5.0
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_types(name, machine_code):
    with pytest.raises(TypeError, match=f"^{re.escape(name)} must be "):
        OTHERS[name]()


def test_interrupts_have_the_fields_that_they_have():
    with pytest.raises(AttributeError):
        Instance().interrupts.stak_limit = 1


def test_the_words_of_a_table_are_for_tables():
    instance = Instance(globals=[Global("externref", None, True)])
    with pytest.raises(TypeError) as caught:
        asm_libcalls.externref_global_set(instance, 0, "x")
    assert "(externref)" in str(caught.value)


def test_an_owner_of_an_address_with_another_tuple():
    class Owner:
        def __native_address__(self, kind):
            return 1, 2, 3

    for make in (native_function, catch_traps):
        call = make(ADDRESS, "(pointer)")
        with pytest.raises(TypeError, match=r"__native_address__\(\) must return an address, or a"):
            call(Owner())
        with pytest.raises(TypeError, match="has no C address: a Libcall has one"):
            call(len)


@pytest.mark.parametrize("result", ["f32", "f64"])
def test_the_result_of_a_host_function_beyond_floats(result):
    with HostFunction(lambda: HUGE, f"() -> {result}") as host:
        for make in (native_function, catch_traps):
            with pytest.raises(OverflowError, match=r"^the result of host function .*lambda"):
                make(host.address, f"() -> {result}")()


def test_counts_in_texts_of_objects():
    assert repr(Memory(1)) == "<Memory of 1 page, maximum None>"
    assert ", 1 owner>" in repr(VMExternRef("x"))
    assert "1 memory, 0 tables, 0 globals, 0 functions" in repr(Instance([Memory(1)]))
