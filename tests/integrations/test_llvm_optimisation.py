"""What LLVM does with declared libcalls, and symbols that nothing defines."""

from __future__ import annotations

import importlib

import pytest

import asm_libcalls
from asm_libcalls import LIBCALLS, catch_traps, llvm
from asm_libcalls.integrations.numeric import NUMERIC

REASON = "llvmlite is not installed (the extra `integrations`)"
binding = pytest.importorskip("llvmlite.binding", reason=REASON)
ir = importlib.import_module("llvmlite.ir")
llvmlite = importlib.import_module("asm_libcalls.integrations.llvmlite")

EVERY = {
    **{name: LIBCALLS[name] for name in NUMERIC},
    **llvm.LIBCALLS,
}


def is_pure(libcall) -> bool:
    pointer = any(t.kind == "pointer" for t in libcall.signature.parameters)
    return not pointer and not libcall.declaration.traps


@pytest.fixture(autouse=True)
def _llvm():
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()


def machine():
    return binding.Target.from_default_triple().create_target_machine(opt=3)


def optimised(module):
    parsed = binding.parse_assembly(str(module))
    parsed.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    builder = binding.create_pass_builder(machine(), options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


def blocks_with_calls(parsed, function, symbol):
    """The numbers of the blocks that call a symbol, once for each call."""
    return [
        i
        for i, block in enumerate(parsed.get_function(function).blocks)
        for instruction in block.instructions
        if instruction.opcode == "call" and f"@{symbol}(" in str(instruction)
    ]


def test_there_are_some_of_each_kind():
    assert {is_pure(libcall) for libcall in EVERY.values()} == {True, False}
    assert is_pure(EVERY["f64_ceil"])
    assert is_pure(EVERY["i64_ishl"])
    assert is_pure(EVERY["powidf2"])
    assert not is_pure(EVERY["i64_sdiv"])
    assert not is_pure(EVERY["divti3"])
    assert not is_pure(EVERY["muloti4"])


@pytest.mark.parametrize("name", EVERY)
def test_a_call_without_a_use_goes_unless_it_may_trap(name):
    libcall = EVERY[name]
    module = ir.Module()
    declared = llvmlite.declare(module, libcall.symbol)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), declared.function_type.args), "f")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.call(declared, function.args)
    builder.ret_void()
    left = blocks_with_calls(optimised(module), "f", libcall.symbol)
    assert len(left) == (0 if is_pure(libcall) else 1)


@pytest.mark.parametrize("name", EVERY)
def test_an_invariant_call_leaves_the_loop_unless_it_may_trap(name):
    """In ``for i in range(n): if flags[i]: out[i] = libcall(...)`` no turn may reach the call."""
    libcall = EVERY[name]
    module = ir.Module()
    declared = llvmlite.declare(module, libcall.symbol)
    i64, arguments = ir.IntType(64), declared.function_type.args
    result = declared.function_type.return_type
    types = [i64, ir.IntType(8).as_pointer(), result.as_pointer(), *arguments]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), types), "f")
    entry, head, body, then, latch, end = map(
        function.append_basic_block, ("entry", "head", "body", "then", "latch", "end")
    )
    ir.IRBuilder(entry).branch(head)
    builder = ir.IRBuilder(head)
    i = builder.phi(i64)
    builder.cbranch(builder.icmp_signed("<", i, function.args[0]), body, end)
    builder = ir.IRBuilder(body)
    flag = builder.load(builder.gep(function.args[1], [i]))
    builder.cbranch(builder.icmp_signed("!=", flag, flag.type(0)), then, latch)
    builder = ir.IRBuilder(then)
    value = builder.call(declared, function.args[3:])
    builder.store(value, builder.gep(function.args[2], [i]))
    builder.branch(latch)
    builder = ir.IRBuilder(latch)
    following = builder.add(i, i64(1))
    builder.branch(head)
    i.add_incoming(i64(0), entry)
    i.add_incoming(following, latch)
    ir.IRBuilder(end).ret_void()

    parsed = optimised(module)
    text = str(parsed.get_function("f"))
    blocks = text.split("\n\n")
    calling = [block for block in blocks if f"@{libcall.symbol}(" in block]
    assert len(calling) == 1
    # In the loop the call's block is reached under the condition; outside, before the loop.
    is_in_loop = "store" in calling[0]
    assert is_in_loop != is_pure(libcall), text


def test_calls_with_the_same_arguments_are_one():
    for name, left in (("f64_ceil", 1), ("i64_sdiv", 2)):
        module = ir.Module()
        declared = llvmlite.declare(module, name)
        function = ir.Function(module, declared.function_type, "f")
        builder = ir.IRBuilder(function.append_basic_block())
        one, two = (builder.call(declared, function.args) for _ in range(2))
        add = builder.fadd if name == "f64_ceil" else builder.add
        builder.ret(add(one, two))
        calls = blocks_with_calls(optimised(module), "f", LIBCALLS[name].symbol)
        assert len(calls) == left


# --- symbols that nothing defines -----------------------------------------------------------------


def engine_of(*texts, symbols=()):
    first, *others = (binding.parse_assembly(text) for text in texts)
    engine = binding.create_mcjit_compiler(first, machine())
    for other in others:
        engine.add_module(other)
    return engine


CALLING = """
declare i64 @{0}(i64)
define i64 @call_{0}(i64 %x) {{
    %y = call i64 @{0}(i64 %x)
    ret i64 %y
}}
"""
DIVIDING = """
define i128 @divide(i128 %x, i128 %y) {
    %z = sdiv i128 %x, %y
    ret i128 %z
}
"""


def test_an_unknown_symbol_is_an_error_before_the_code_runs():
    engine = engine_of(CALLING.format("nowhere_to_be_found"), CALLING.format("nor_this"))
    with pytest.raises(LookupError, match=r"no definition of nor_this, nowhere_to_be_found$"):
        llvmlite.finalize(engine)


def test_what_is_defined_is_found_everywhere(machine_code):
    """In the process, in LLVM's table, in another module of the engine."""
    binding.add_symbol("of_llvm_s_table", LIBCALLS["i64_ishl"].address)
    other = "define i64 @of_the_engine(i64 %x) { ret i64 %x }"
    for first, second in ((CALLING.format("of_the_engine"), other),
                          (other, CALLING.format("of_the_engine"))):  # fmt: skip
        engine = engine_of(first, second)
        llvmlite.finalize(engine)
        address = engine.get_function_address("call_of_the_engine")
        assert catch_traps(address, "(i64) -> i64")(41) == 41
    for name in ("labs", "of_llvm_s_table"):
        engine = engine_of(CALLING.format(name))
        llvmlite.finalize(engine)
        assert engine.get_function_address(f"call_{name}")
    weak = CALLING.format("maybe").replace("declare", "declare extern_weak")
    llvmlite.finalize(engine_of(weak))  # 0 is what it asks for


def test_calls_that_llvm_inserts_are_looked_at_too(child, machine_code):
    """Of 128-bit division, whose symbol is in no module."""
    child(
        f"""
        import llvmlite.binding as binding
        from asm_libcalls import catch_traps
        from asm_libcalls.integrations import llvmlite

        # A process without libgcc in sight.
        import ctypes
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()

        def engine():
            machine = binding.Target.from_default_triple().create_target_machine()
            return binding.create_mcjit_compiler(binding.parse_assembly({DIVIDING!r}), machine)

        first = engine()
        if not hasattr(ctypes.CDLL(None), "__divti3"):
            try:
                llvmlite.finalize(first)
            except LookupError as error:
                assert str(error).endswith("no definition of __divti3; add_symbols() has __divti3")
            else:
                raise SystemExit("no error")
        llvmlite.add_symbols()
        second = engine()
        llvmlite.finalize(second)
        divide = catch_traps(second.get_function_address("divide"), "(i128, i128) -> i128")
        assert divide(-(2**100), 7) == -(2**100 // 7)
        """
    )


def test_an_object_cache_goes_on_working():
    kept, asked = {}, []

    def notify(module, content):
        kept[module.name] = content

    def get_buffer(module):
        asked.append(module.name)
        return kept.get(module.name)

    text = 'source_filename = "x"\n' + CALLING.format("nowhere_to_be_found")
    for turn in range(2):
        parsed = binding.parse_assembly(text)
        parsed.name = "cached"
        engine = binding.create_mcjit_compiler(parsed, machine())
        engine.set_object_cache(notify, get_buffer)
        with pytest.raises(LookupError, match="no definition of nowhere_to_be_found"):
            llvmlite.finalize(engine)
        assert len(asked) == turn + 1
        assert engine._object_cache_notify is notify
    assert list(kept) == ["cached"]


def test_orc_raises_by_itself():
    jit = binding.create_lljit_compiler(machine())
    library = binding.JITLibraryBuilder().add_ir(CALLING.format("nowhere_to_be_found"))
    with pytest.raises(RuntimeError, match="nowhere_to_be_found"):
        library.export_symbol("call_nowhere_to_be_found").link(jit, "library")


def test_runtime_symbols_are_declared(machine_code):
    symbols = asm_libcalls.runtime_symbols()
    assert symbols
    module = ir.Module()
    for symbol in symbols:
        declared = llvmlite.declare(module, symbol)
        assert llvmlite.declare(module, symbol) is declared
        assert {"noreturn", "nounwind"} <= set(declared.attributes)
    raise_trap = module.globals["asm_libcalls_raise_trap"]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [ir.IntType(32)]), "trap")
    builder = ir.IRBuilder(function.append_basic_block())
    builder.call(raise_trap, function.args)
    builder.unreachable()
    llvmlite.add_symbols()
    engine = engine_of(str(module))
    llvmlite.finalize(engine)
    trap = catch_traps(engine.get_function_address("trap"), "(u32)")
    with pytest.raises(asm_libcalls.IntegerOverflow):
        trap(int(asm_libcalls.TrapCode.INTEGER_OVERFLOW))
    other = ir.Module()
    ir.GlobalVariable(other, ir.IntType(8), "asm_libcalls_raise_trap")
    with pytest.raises(ValueError, match="the module has another asm_libcalls_raise_trap"):
        llvmlite.declare(other, "asm_libcalls_raise_trap")


def test_what_is_no_object_is_refused():
    from asm_libcalls.emitter.elf_symbols import undefined_symbols

    with pytest.raises(ValueError, match="no ELF object"):
        list(undefined_symbols(b"MZ\x90\0"))
