"""Two bindings in one process share its machine code, entry, stack walker and observers."""

from __future__ import annotations

import struct
import weakref

import pytest

import asm_libcalls
from asm_libcalls.binding import Binding
from asm_libcalls.native import process
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


def _read(address: int, size: int) -> bytes:
    import ctypes

    return ctypes.string_at(address, size)


@pytest.mark.parametrize("error", [AttributeError, ImportError])
def test_builtins_are_made_after_an_import_that_a_signal_handler_interrupted(monkeypatch, error):
    """The handler gets a text, and later calls a maker."""
    interface = asm_libcalls.LIBCALLS["f64_ceil"]._binding.interface
    if isinstance(interface.function_maker(), str):
        pytest.skip("no builtins here")
    from asm_libcalls.x86_64.python_functions import function_objects

    def interrupted(*arguments):
        raise error("partially initialized module 'm' has no attribute 'f'")

    monkeypatch.setattr(interface, "_maker", None)
    with monkeypatch.context() as patch:
        patch.setattr(function_objects, "FunctionMaker", interrupted)
        assert "interrupts an import" in interface.function_maker()
    assert isinstance(interface.function_maker(), function_objects.FunctionMaker)
