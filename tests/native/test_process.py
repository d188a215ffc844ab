"""Two bindings in one process share its machine code, entry, stack walker and observers."""

from __future__ import annotations

import struct
import sys
import threading
import weakref

import pytest

import asm_libcalls
from asm_libcalls.binding import Binding
from asm_libcalls.libcalls import BUILTIN_ARRAY
from asm_libcalls.native import ctypes_entry, process
from asm_libcalls.signatures import Signature

PROLOGUE = bytes.fromhex("55 4889e5")  # push rbp; mov rbp, rsp


@pytest.fixture(params=["first", "second"])
def either(request, accelerated: Binding, machine_code) -> Binding:
    return accelerated if request.param == "first" else Binding("auto")


def call_of(address: int) -> bytes:
    return bytes.fromhex("48b8") + struct.pack("<Q", address) + bytes.fromhex("ffd0")  # by rax


def test_machine_code_is_loaded_once(accelerated, machine_code):
    other = Binding("auto")
    assert other.x86_64 is accelerated.x86_64
    assert other.interface is accelerated.interface
    assert process.image is machine_code.loaded
    assert process.machine_entry is accelerated.entry


def test_a_trap_has_its_trace(either):
    code = PROLOGUE + call_of(either.libcalls["i64_sdiv"].address)
    divide = asm_libcalls.load_code(code + bytes.fromhex("5d c3"))
    with pytest.raises(ZeroDivisionError) as caught:
        either.entry.call(divide, Signature("(i64, i64) -> i64"), [1, 0])
    assert divide + len(code) in caught.value.trace


def test_a_collection_sees_the_frames(either):
    class Thing:
        pass

    # keep(reference): [rbp - 8] = reference; collect(); return [rbp - 8]
    collect, release = either.host_address(
        lambda: asm_libcalls.gc(instance), Signature("()"), False
    )
    code = PROLOGUE + bytes.fromhex("4883ec10 48897df8") + call_of(collect)
    start = asm_libcalls.load_code(code + bytes.fromhex("488b45f8 c9 c3"))
    registry = asm_libcalls.StackMapRegistry()
    registry.register(start, len(code) + 6, {len(code): [-8]})
    instance = asm_libcalls.Instance(stack_map_registry=registry, binding=either)
    reference = asm_libcalls.VMExternRef(Thing())
    thing, raw = weakref.ref(reference.value), reference.as_raw()
    asm_libcalls.activations_table_insert_with_gc(instance, reference)
    reference.drop()
    signature = Signature("(externref) -> externref")
    assert either.entry.call(start, signature, [raw]) == raw
    assert thing() is not None
    asm_libcalls.gc(instance)
    assert thing() is None
    release()


def test_an_instance_has_the_addresses_of_its_binding(accelerated, fallback):
    for binding in (accelerated, fallback):
        instance = asm_libcalls.Instance(binding=binding)
        at = instance.vmctx + instance.offsets.vmctx_builtin_function(0)
        addresses = binding.builtin_addresses()
        assert struct.unpack(f"<{len(addresses)}Q", _read(at, 8 * len(addresses))) == tuple(
            addresses
        )
    assert accelerated.builtin_addresses() != fallback.builtin_addresses()


class TestTheFallbackBesideMachineCode:
    """Its callbacks of ctypes are called by native code that was entered through machine code."""

    def test_a_trap(self, fallback, machine_code):
        libcall = fallback.libcalls["i64_sdiv"]
        divide = asm_libcalls.catch_traps(libcall.address, libcall.signature)
        for _ in range(3):
            with pytest.raises(asm_libcalls.IntegerDivisionByZero) as caught:
                divide(1, 0)
            assert caught.value.trace == ()
            assert divide(-7, 2) == -3

    def test_a_trap_in_an_instance(self, fallback, machine_code):
        instance = asm_libcalls.Instance([asm_libcalls.Memory(1)], binding=fallback)
        code = (
            PROLOGUE
            + bytes.fromhex("ff97")
            + struct.pack(
                "<i", instance.offsets.vmctx_builtin_function(BUILTIN_ARRAY.index("memory_copy"))
            )
        )  # call [rdi + offset]
        copy = asm_libcalls.native_function(
            asm_libcalls.load_code(code + bytes.fromhex("5d c3")),
            "(vmctx, u32, u32, u32, u32, u32)",
        )
        copy(instance.vmctx, 0, 8, 0, 0, 8)
        with pytest.raises(asm_libcalls.HeapOutOfBounds):
            copy(instance.vmctx, 0, 65535, 0, 0, 8)
        copy(instance.vmctx, 0, 8, 0, 0, 8)

    def test_the_first_exception_counts_and_is_the_same_object(self, fallback, machine_code):
        errors = [KeyError("first"), KeyError("second")]
        address, release = fallback.host_address(raising(iter(errors)), Signature("()"), False)
        code = PROLOGUE + call_of(address) * 2 + bytes.fromhex("5d c3")
        call = asm_libcalls.native_function(asm_libcalls.load_code(code), "()", name="call")
        with pytest.raises(KeyError) as caught:
            call()
        assert caught.value is errors[0]
        release()

    def test_a_trap_of_machine_code_afterwards_is_raised(self, fallback, machine_code):
        address, release = fallback.host_address(
            raising(iter([KeyError("of the callback")])), Signature("()"), False
        )
        trap = asm_libcalls.runtime_symbols()["asm_libcalls_raise_trap"]
        code = PROLOGUE + call_of(address) + bytes.fromhex("bf 0a000000") + call_of(trap)
        with pytest.raises(asm_libcalls.Interrupt):
            asm_libcalls.catch_traps(asm_libcalls.load_code(code), "()")()
        release()


def raising(errors):
    """Return a function that raises one of these errors at each call."""

    def function():
        raise next(errors)

    return function


def _read(address: int, size: int) -> bytes:
    import ctypes

    return ctypes.string_at(address, size)


@pytest.mark.parametrize("error", [AttributeError, ImportError])
def test_builtins_are_made_after_an_import_that_a_signal_handler_interrupted(monkeypatch, error):
    """The handler gets a text, and later calls a maker."""
    interface = asm_libcalls.LIBCALLS["f64_ceil"]._binding.interface
    if isinstance(interface.function_maker(), str):
        pytest.skip("no builtins here")
    from asm_libcalls.x86_64.python_functions import function_maker

    def interrupted(*arguments):
        raise error("partially initialized module 'm' has no attribute 'f'")

    monkeypatch.setattr(interface, "_maker", None)
    with monkeypatch.context() as patch:
        patch.setattr(function_maker, "FunctionMaker", interrupted)
        assert "interrupts an import" in interface.function_maker()
    assert isinstance(interface.function_maker(), function_maker.FunctionMaker)


def test_two_makers_know_the_same_types(machine_code, monkeypatch):
    """Two threads that make their first functions may each get one."""
    interface = asm_libcalls.LIBCALLS["f64_ceil"]._binding.interface
    if isinstance(interface.function_maker(), str):
        pytest.skip("no builtins here")
    kept = []
    identity = asm_libcalls.load_code(bytes.fromhex("48 89 f8 c3"))

    def make():
        return asm_libcalls.native_function(identity, "(externref) -> u64", name="identity")

    first = make()
    monkeypatch.setattr(interface, "_maker", None)
    second = make()
    for function in (second, first):
        box = asm_libcalls.VMExternRef(kept)
        for _ in range(3):
            assert function(box) == box.as_raw()
        count = box.strong_count()
        function(box)
        assert box.strong_count() == count


def test_a_finalizer_in_a_threads_first_use():
    """A collection may run Python at each line of it, and that may ask the same."""
    seen: list[bool] = []
    errors: list[BaseException] = []

    def ask(frame, event, argument):
        seen.append(ctypes_entry.runs_unknown_frames())
        return ask

    def use() -> None:
        sys.settrace(ask)
        try:
            ctypes_entry.thread_state.activations.append(ctypes_entry.CtypesActivation(1))
            assert ctypes_entry.runs_unknown_frames()
        except BaseException as error:
            errors.append(error)
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert errors == []
    assert seen[0] is False
    assert seen[-1] is True
