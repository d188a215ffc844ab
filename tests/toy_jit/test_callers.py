"""Host functions that ask which instance calls them."""

import gc
import weakref

import pytest
import wasm_builder as wasm
from jit_modules import Function, build, instantiate

from asm_libcalls import toy_jit

pytestmark = pytest.mark.usefixtures("machine_code")

CALL = {"f": Function("i32 -> i32", "local.get 00 call 00")}
HOST = {"host": "i32 -> i32"}


def recorder():
    callers = []

    @toy_jit.access_caller
    def host(caller, argument):
        callers.append(caller)
        return argument + 1

    return host, callers


def test_the_caller_comes_first():
    host, callers = recorder()
    instance = instantiate(CALL, HOST, {"host": host})
    assert instance.exports["f"](41) == 42
    assert callers == [instance]


def test_each_of_several_instances():
    host, callers = recorder()
    instances = [instantiate(CALL, HOST, {"host": host}) for _ in range(3)]
    for each in (0, 2, 1, 0):
        instances[each].exports["f"](1)
    assert callers == [instances[i] for i in (0, 2, 1, 0)]


def test_an_instance_that_got_the_import_from_another_one_is_the_caller():
    host, callers = recorder()
    again = build(CALL, HOST, exports=[wasm.exported("again", 0, 0)])
    first = toy_jit.Instance(toy_jit.Module(again), {"m": {"host": host}})
    second = instantiate(CALL, HOST, {"host": first.exports["again"]})
    assert second.exports["f"](1) == 2
    assert first.exports["f"](1) == 2
    assert callers == [second, first]


def test_calls_within_calls():
    callers = []

    @toy_jit.access_caller
    def outer(caller, argument):
        callers.append(caller)
        result = inner_instance.exports["f"](argument)
        callers.append(toy_jit.access_caller(lambda caller: caller)())  # as before
        return result

    host, inner = recorder()
    inner_instance = instantiate(CALL, HOST, {"host": host})
    outer_instance = instantiate(CALL, HOST, {"host": outer})
    assert outer_instance.exports["f"](1) == 2
    assert callers == [outer_instance, outer_instance]
    assert inner == [inner_instance]


def test_python_is_no_caller():
    host, callers = recorder()
    again = build(CALL, HOST, exports=[wasm.exported("again", 0, 0)])
    instance = toy_jit.Instance(toy_jit.Module(again), {"m": {"host": host}})
    assert host(1) == 2
    assert instance.exports["again"](1) == 2
    assert instance.exports["again"].call_bits(1) == (2,)
    assert callers == [None, None, None]


def test_the_start_function_has_a_caller():
    seen = []

    @toy_jit.access_caller
    def host(caller):
        seen.append((caller, caller.memory.size))

    binary = build(
        {"_start": Function("->", "call 00")}, {"host": "->"}, memories=[b"\0\1"], start=1
    )
    instance = toy_jit.Instance(toy_jit.Module(binary), {"m": {"host": host}})
    assert seen == [(instance, 1)]


def test_a_caller_of_which_only_a_function_was_kept():
    host, callers = recorder()
    f = instantiate(CALL, HOST, {"host": host}).exports["f"]
    gc.collect()
    assert f(1) == 2
    assert callers[0].exports["f"] == f


def test_all_is_freed_in_the_end():
    host, callers = recorder()
    instance = instantiate(CALL, HOST, {"host": host})
    instance.exports["f"](1)
    reference = weakref.ref(instance)
    callers.clear()
    del instance
    gc.collect()
    assert reference() is None


def test_memory_of_the_caller():
    """The use of this: a string in the memory of the caller."""
    read = []

    @toy_jit.access_caller
    def log(caller, address, length):
        read.append(bytes(memoryview(caller.memory)[address : address + length]))

    binary = build(
        {"f": Function("->", "i32.const 04 i32.const 05 call 00")},
        {"log": "i32 i32 ->"},
        memories=[b"\0\1"],
        data=[b"\0" + wasm.i32(4) + wasm.END + b"\5hello"],
    )
    module = toy_jit.Module(binary)
    for _ in range(2):
        toy_jit.Instance(module, {"m": {"log": log}}).exports["f"]()
    assert read == [b"hello", b"hello"]


def test_it_needs_a_callable():
    with pytest.raises(TypeError, match="must be callable, got 3"):
        toy_jit.access_caller(3)
