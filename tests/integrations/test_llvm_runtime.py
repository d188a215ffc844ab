"""Code that LLVM compiles to calls of compiler-rt, with no other compiler-rt than ours.

Without us the same code calls address 0 in MCJIT: a child process says so for each.
"""

from __future__ import annotations

import importlib
import signal
import struct
from fractions import Fraction

import pytest

import asm_libcalls
from asm_libcalls import catch_traps
from asm_libcalls.checks.engine import checker_of

binding = pytest.importorskip("llvmlite.binding", reason="llvmlite is not installed")

# For each piece of IR: its C signature, the libcall that LLVM 22 calls for baseline x86-64 (with
# what else it does there), and the body.
CODE = {
    "sdiv": ("(i128, i128) -> i128", "divti3", "%r = sdiv i128 %a, %b"),
    "srem": ("(i128, i128) -> i128", "modti3", "%r = srem i128 %a, %b"),
    "udiv": ("(u128, u128) -> u128", "udivti3", "%r = udiv i128 %a, %b"),
    "urem": ("(u128, u128) -> u128", "umodti3", "%r = urem i128 %a, %b"),
    "float_to_half": ("(f32) -> f16", "truncsfhf2", "%r = fptrunc float %a to half"),
    "double_to_half": ("(f64) -> f16", "truncdfhf2", "%r = fptrunc double %a to half"),
    "half_to_float": ("(f16) -> f32", "extendhfsf2", "%r = fpext half %a to float"),
    "float_to_bfloat": ("(f32) -> bf16", "truncsfbf2", "%r = fptrunc float %a to bfloat"),
    "double_to_bfloat": ("(f64) -> bf16", "truncdfbf2", "%r = fptrunc double %a to bfloat"),
    "double_to_i128": ("(f64) -> i128", "fixdfti", "%r = fptosi double %a to i128"),
    "double_to_u128": ("(f64) -> u128", "fixunsdfti", "%r = fptoui double %a to i128"),
    "float_to_i128": ("(f32) -> i128", "fixsfti", "%r = fptosi float %a to i128"),
    "float_to_u128": ("(f32) -> u128", "fixunssfti", "%r = fptoui float %a to i128"),
    "half_to_i128": ("(f16) -> i128", "fixhfti", "%r = fptosi half %a to i128"),
    "half_to_u128": ("(f16) -> u128", "fixunshfti", "%r = fptoui half %a to i128"),
    "i128_to_double": ("(i128) -> f64", "floattidf", "%r = sitofp i128 %a to double"),
    "u128_to_double": ("(u128) -> f64", "floatuntidf", "%r = uitofp i128 %a to double"),
    "i128_to_float": ("(i128) -> f32", "floattisf", "%r = sitofp i128 %a to float"),
    "u128_to_float": ("(u128) -> f32", "floatuntisf", "%r = uitofp i128 %a to float"),
    "i128_to_half": ("(i128) -> f16", "floattihf", "%r = sitofp i128 %a to half"),
    "u128_to_half": ("(u128) -> f16", "floatuntihf", "%r = uitofp i128 %a to half"),
    "powi_double": (
        "(f64, i32) -> f64", "powidf2", "%r = call double @llvm.powi.f64.i32(double %a, i32 %b)",
    ),
    "powi_float": (
        "(f32, i32) -> f32", "powisf2", "%r = call float @llvm.powi.f32.i32(float %a, i32 %b)",
    ),
}  # fmt: skip

TYPES = {
    "i128": "i128", "u128": "i128", "i32": "i32", "f16": "half", "bf16": "bfloat", "f32": "float",
    "f64": "double",
}  # fmt: skip


def assembly(name: str) -> str:
    signature, _, body = CODE[name]
    parsed = asm_libcalls.Signature(signature)
    assert parsed.result is not None
    result = TYPES[parsed.result.name]
    parameters = ", ".join(
        f"{TYPES[t.name]} %{letter}" for t, letter in zip(parsed.parameters, "ab", strict=False)
    )
    return f"""
        declare double @llvm.powi.f64.i32(double, i32)
        declare float @llvm.powi.f32.i32(float, i32)
        define {result} @{name}({parameters}) {{
            {body}
            ret {result} %r
        }}
    """


def machine(features: str = ""):
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu="x86-64", features=features)


def compiled_by_mcjit(name: str):
    importlib.import_module("asm_libcalls.integrations.llvmlite").add_symbols(replace=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(assembly(name)), machine())
    engine.finalize_object()
    return engine, engine.get_function_address(name)


def compiled_by_orc(name: str):
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    jit = binding.create_lljit_compiler(machine())
    builder = binding.JITLibraryBuilder().add_ir(assembly(name)).export_symbol(name)
    library = libcalls.import_symbols(builder, replace=True).link(jit, "library")
    return (jit, library), library[name]


@pytest.mark.skipif(
    asm_libcalls.LIBCALLS["i64_sdiv"].backend != "x86_64", reason="LLVM is asked for x86-64's code"
)
@pytest.mark.parametrize("compiled", [compiled_by_mcjit, compiled_by_orc], ids=["mcjit", "orc"])
@pytest.mark.parametrize("name", CODE)
def test_llvm_calls_ours(name, compiled):
    keep, address = compiled(name)
    signature, libcall_name, _ = CODE[name]
    libcall = asm_libcalls.llvm.LIBCALLS[libcall_name]
    call = catch_traps(address, signature)
    assert call.signature == libcall.signature
    cases = list(checker_of(libcall).edge_cases(libcall))
    for case in cases[:: len(cases) // 100 + 1]:
        if libcall.declaration.traps and case[1] == 0:
            with pytest.raises(asm_libcalls.IntegerDivisionByZero):
                call.call_bits(*case)
        else:
            assert call.call_bits(*case) == libcall.fallback.call_bits(*case), case
    del keep


WITHOUT_US = """
    import resource
    import test_llvm_runtime as tests
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    name = {name!r}
    engine = tests.binding.create_mcjit_compiler(
        tests.binding.parse_assembly(tests.assembly(name)), tests.machine()
    )
    engine.finalize_object()
    print("called", flush=True)
    tests.catch_traps(engine.get_function_address(name), tests.CODE[name][0])(*{arguments})
    print("returned", flush=True)
"""


@pytest.mark.parametrize("name", CODE)
def test_without_us_the_same_code_crashes(name, child):
    import ctypes

    signature, libcall, _ = CODE[name]
    if hasattr(ctypes.CDLL(None), f"__{libcall}"):
        pytest.skip("the process has a compiler-rt")
    arguments = (3,) * len(asm_libcalls.Signature(signature).parameters)
    done = child(
        WITHOUT_US.format(name=name, arguments=arguments),
        variables={"PYTHONPATH": _path()},
        exit_status=-signal.SIGSEGV,
    )
    assert done.stdout == "called\n"


def _path() -> str:
    import os
    from pathlib import Path

    from child_process import environment

    return os.pathsep.join([environment()["PYTHONPATH"], str(Path(__file__).parent)])


# What LLVM 22 does in place for baseline x86-64 (halves: with F16C), or never calls. Compiled code
# that does call it is compared with code in place. For each libcall: the body that computes %r from
# its parameters %a, %b, and stores to %c.

OVERFLOW = """
    %pair = call {{{t}, i1}} @llvm.smul.with.overflow.{t}({t} %a, {t} %b)
    %r = extractvalue {{{t}, i1}} %pair, 0
    %o = extractvalue {{{t}, i1}} %pair, 1
    %wide = zext i1 %o to i32
    store i32 %wide, ptr %c
"""
SHIFT = """
    %modulo = and i32 %b, 127
    %count = zext i32 %modulo to i128
    %r = {} i128 %a, %count
"""
IN_PLACE = {
    "multi3": "%r = mul i128 %a, %b",
    "muloti4": OVERFLOW.format(t="i128"),
    "mulodi4": OVERFLOW.format(t="i64"),
    "mulosi4": OVERFLOW.format(t="i32"),
    "ashlti3": SHIFT.format("shl"),
    "lshrti3": SHIFT.format("lshr"),
    "ashrti3": SHIFT.format("ashr"),
    "extendbfsf2": "%r = fpext bfloat %a to float",
    "gnu_f2h_ieee": """
        %short = call i16 @llvm.convert.to.fp16.f32(float %a)
        %r = zext i16 %short to i32
    """,
    "gnu_h2f_ieee": """
        %short = trunc i32 %a to i16
        %r = call float @llvm.convert.from.fp16.f32(i16 %short)
    """,
    # There is no instruction: the two that LLVM divides by.
    "udivmodti4": """
        %r = udiv i128 %a, %b
        %rest = urem i128 %a, %b
        store i128 %rest, ptr %c
    """,
}


def test_every_libcall_is_called_from_compiled_code():
    called = {libcall for _, libcall, _ in CODE.values()}
    assert called | IN_PLACE.keys() == asm_libcalls.llvm.LIBCALLS.keys()
    assert not called & IN_PLACE.keys()


def both_ways(name: str) -> str:
    """Return IR of two functions: one calls the libcall, one computes in place."""
    signature = asm_libcalls.llvm.LIBCALLS[name].signature
    types = {**TYPES, "u32": "i32", "i64": "i64", "pointer": "ptr"}
    result, kinds = types[signature.result.name], [types[t.name] for t in signature.parameters]
    parameters = ", ".join(
        f"{kind} %{'c' if kind == 'ptr' else letter}"
        for kind, letter in zip(kinds, "abc", strict=False)
    )
    return f"""
        declare {result} @__{name}({", ".join(kinds)})
        declare {{i128, i1}} @llvm.smul.with.overflow.i128(i128, i128)
        declare {{i64, i1}} @llvm.smul.with.overflow.i64(i64, i64)
        declare {{i32, i1}} @llvm.smul.with.overflow.i32(i32, i32)
        declare i16 @llvm.convert.to.fp16.f32(float)
        declare float @llvm.convert.from.fp16.f32(i16)
        define {result} @called({parameters}) {{
            %r = call {result} @__{name}({parameters})
            ret {result} %r
        }}
        define {result} @in_place({parameters}) {{
            {IN_PLACE[name]}
            ret {result} %r
        }}
    """


@pytest.mark.parametrize("name", IN_PLACE)
def test_calls_do_what_llvm_does_in_place(name, machine_code):
    import ctypes

    is_half = name.startswith("gnu")
    if is_half and "f16c" not in machine_code.cpu.features:
        pytest.skip("the CPU lacks f16c")
    importlib.import_module("asm_libcalls.integrations.llvmlite").add_symbols(replace=True)
    engine = binding.create_mcjit_compiler(
        binding.parse_assembly(both_ways(name)), machine("+f16c" if is_half else "")
    )
    engine.finalize_object()
    libcall = asm_libcalls.llvm.LIBCALLS[name]
    called, in_place = (
        catch_traps(engine.get_function_address(way), libcall.signature).call_bits
        for way in ("called", "in_place")
    )
    compared = 0
    for case in checker_of(libcall).edge_cases(libcall):
        if libcall.declaration.traps and case[1] == 0:
            continue
        if name == "gnu_h2f_ieee" and case[0] & 0x7E00 == 0x7C00 and case[0] & 0x1FF:
            continue  # a signalling NaN, which vcvtph2ps makes quiet
        stores = libcall.signature.parameters[-1].kind == "pointer"
        buffers = [ctypes.create_string_buffer(b"\xff" * 16, 17) for _ in range(2 * stores)]
        results = [
            call(*case, *(ctypes.addressof(buffer) for buffer in buffers[i : i + stores]))
            for i, call in enumerate((called, in_place))
        ]
        assert results[0] == results[1], [hex(pattern) for pattern in case]
        assert len({buffer.raw for buffer in buffers}) <= 1, [hex(pattern) for pattern in case]
        compared += 1
    assert compared > 50


# Names that others have.


def test_symbols_of_others_are_left_to_them(child):
    done = child(
        """
        import llvmlite.binding as llvm
        import asm_libcalls
        from asm_libcalls.integrations import llvmlite as libcalls

        llvm.load_library_permanently("libgcc_s.so.1")
        theirs = llvm.address_of_symbol("__divti3")
        added = libcalls.add_symbols()
        assert llvm.address_of_symbol("__divti3") == theirs and "__divti3" not in added
        assert added["__muloti4"] == llvm.address_of_symbol("__muloti4")  # libgcc has none
        assert "__divti3" not in libcalls.add_symbols("__divti3", "muloti4")
        ours = asm_libcalls.llvm.symbols()["__divti3"]
        assert libcalls.add_symbols("divti3", replace=True) == {"__divti3": ours}
        assert llvm.address_of_symbol("__divti3") == ours
        print("done")
        """
    )
    assert done.stdout == "done\n"


def test_declarations_have_llvm_s_types():
    ir = importlib.import_module("llvmlite.ir")
    libcalls = importlib.import_module("asm_libcalls.integrations.llvmlite")
    module = ir.Module()
    for name in asm_libcalls.llvm.LIBCALLS:
        function = libcalls.declare(module, name)
        assert libcalls.declare(module, f"__{name}") is function
    text = str(module)
    binding.parse_assembly(text).verify()
    assert 'declare i128 @"__divti3"(i128 %"dividend", i128 %"divisor") nounwind' in text
    assert 'declare bfloat @"__truncdfbf2"(double %"x") nounwind readnone' in text
    assert 'declare half @"__floattihf"(i128 %"x") nounwind readnone' in text
    assert 'declare i128 @"__muloti4"(i128 %"a", i128 %"b", i8* %"overflow") nounwind' in text


def test_half_of_a_known_number():
    """One case by hand: 1 + 2**-11 is a tie, and 1 + 2**-11 + 2**-40 is above it."""
    truncate = catch_traps(asm_libcalls.llvm.LIBCALLS["truncdfhf2"].address, "(f64) -> f16")
    assert truncate(1 + 2.0**-11) == 1.0
    assert truncate(1 + 2.0**-11 + 2.0**-40) == float(1 + Fraction(1, 1024))
    assert struct.pack("<e", 1 + 2.0**-10) == truncate.call_bits(0x3FF0040000000000).to_bytes(
        2, "little"
    )
