"""Functions that LLVM compiled, by name in the traces of traps."""

import gc
import importlib

import pytest

import asm_libcalls
from asm_libcalls.emitter import code_names
from asm_libcalls.emitter.elf_symbols import defined_functions

binding = pytest.importorskip("llvmlite.binding", reason="llvmlite is not installed")
pytestmark = pytest.mark.usefixtures("machine_code")

IR = """
declare i64 @wasmtime_i64_sdiv(i64, i64)
define i64 @divide(i64 %a, i64 %b) noinline FRAME {
  %r = call i64 @wasmtime_i64_sdiv(i64 %a, i64 %b)
  %s = add i64 %r, 1
  ret i64 %s
}
define i64 @"outer x"(i64 %a, i64 %b) FRAME {
  %r = call i64 @divide(i64 %a, i64 %b)
  %s = add i64 %r, %a
  ret i64 %s
}
define internal i64 @unused(i64 %a) { ret i64 %a }
""".replace("FRAME", '"frame-pointer"="all"')


@pytest.fixture
def machine():
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    return binding.Target.from_default_triple().create_target_machine()


@pytest.fixture
def engine(machine):
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    libcalls.add_symbols("i64_sdiv")
    return binding.create_mcjit_compiler(binding.parse_assembly(IR), machine)


def test_a_trap_names_them(engine):
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    addresses = libcalls.finalize(engine)
    assert {"divide", "outer x"} <= addresses.keys()
    assert addresses["divide"] == engine.get_function_address("divide")
    outer = asm_libcalls.native_function(addresses["outer x"], "(i64, i64) -> i64")
    assert outer(7, 2) == 11
    with pytest.raises(ZeroDivisionError) as caught:
        outer(1, 0)
    inner, outer_frame, *_ = caught.value.trace
    assert (inner.function, outer_frame.function) == ("divide", "outer x")
    assert inner - inner.offset == addresses["divide"]
    lines = ("Native backtrace:", f"  in {inner}", f"  called by {outer_frame}")
    assert caught.value.__notes__ == ["\n".join(lines)]


def test_the_names_go_with_the_engine(machine):
    engine = binding.create_mcjit_compiler(binding.parse_assembly(IR), machine)
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    libcalls.add_symbols("i64_sdiv")
    before = set(code_names.sources)
    inside = libcalls.finalize(engine)["divide"] + 1
    assert code_names.find(inside) == ("divide", 1)
    del engine
    gc.collect()
    assert code_names.find(inside) is None
    assert code_names.sources.keys() <= before  # those of other tests may go too


def test_modules_that_are_added_later(engine, machine):
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    first = libcalls.finalize(engine)
    engine.add_module(binding.parse_assembly("define i32 @more() { ret i32 5 }"))
    second = libcalls.finalize(engine)
    assert second.keys() == {"more"}
    assert code_names.find(second["more"] + 1) == ("more", 1)
    assert code_names.find(first["divide"] + 1) == ("divide", 1)


def test_functions_of_an_object(machine):
    content = machine.emit_object(binding.parse_assembly(IR))
    found = dict(defined_functions(content))
    assert found.keys() == {"divide", "outer x", "unused"}
    assert all(0 < size < 100 for size in found.values())
    with pytest.raises(ValueError, match="no ELF object"):
        next(defined_functions(b"\x7fELF\x01\x01" + bytes(100)))
