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


def machine():
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    return target.create_target_machine(cpu="x86-64", features="")


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


# What LLVM 22 does in place, at its address.


def test_what_llvm_does_in_place():
    llvm = asm_libcalls.llvm
    assert catch_traps(llvm.LIBCALLS["multi3"].address, "(i128, i128) -> i128")(-3, 2**100) == (
        -3 * 2**100
    )
    assert catch_traps(llvm.LIBCALLS["ashlti3"].address, "(i128, i32) -> i128")(3, 100) == 3 << 100
    assert catch_traps(llvm.LIBCALLS["extendbfsf2"].address, "(bf16) -> f32")(1.5) == 1.5


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
