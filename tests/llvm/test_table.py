"""The second table: names, functions, arguments, and no cost where it is not used."""

import copy
import ctypes
import inspect
import pickle
from collections import Counter

import pytest

import asm_libcalls
from asm_libcalls import LIBCALLS, llvm
from asm_libcalls.llvm.binding import LlvmBinding
from asm_libcalls.llvm.libcalls import DECLARATIONS

COMPILER_RT = """
    __divti3 __modti3 __udivti3 __umodti3 __udivmodti4 __multi3 __muloti4 __mulodi4 __mulosi4
    __ashlti3 __lshrti3 __ashrti3 __fixdfti __fixunsdfti __fixsfti __fixunssfti __fixhfti
    __fixunshfti __floattidf __floatuntidf __floattisf __floatuntisf __floattihf __floatuntihf
    __truncsfhf2 __truncdfhf2 __extendhfsf2 __gnu_f2h_ieee __gnu_h2f_ieee __truncsfbf2 __truncdfbf2
    __extendbfsf2 __powisf2 __powidf2
""".split()  # noqa: SIM905


def test_the_names_are_those_of_compiler_rt():
    assert {row.symbol for row in DECLARATIONS.values()} == set(COMPILER_RT)
    assert all(row.symbol == f"__{name}" for name, row in DECLARATIONS.items())
    assert Counter(row.family for row in DECLARATIONS.values()) == {
        "division": 5,
        "multiplication": 4,
        "shifts": 3,
        "conversions": 12,
        "half_precision": 8,
        "powi": 2,
    }
    assert not DECLARATIONS.keys() & LIBCALLS.keys()


def test_symbols_are_all_addresses(accelerated, fallback):
    assert set(llvm.symbols()) == set(LlvmBinding(accelerated).symbols())
    assert set(LlvmBinding(accelerated).symbols()) == set(COMPILER_RT)
    # Without machine code ctypes serves, which has no such types.
    without = LlvmBinding(fallback)
    assert set(without.symbols()) == {
        "__mulodi4", "__mulosi4", "__gnu_f2h_ieee", "__gnu_h2f_ieee", "__powisf2", "__powidf2",
    }  # fmt: skip
    with pytest.raises(RuntimeError, match=r"needs machine code, .*: ctypes has no type for i128"):
        without.libcalls["divti3"].address  # noqa: B018
    assert all(llvm.symbols().values())
    assert not llvm.symbols().keys() & asm_libcalls.symbols().keys()


def test_machine_code_serves_all_where_it_serves_the_first_table(accelerated):
    backends = {libcall.backend for libcall in LlvmBinding(accelerated).libcalls.values()}
    assert backends == {"x86_64" if accelerated.x86_64 is not None else "fallback"}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_each_is_a_function(name):
    function = getattr(llvm, name)
    assert function.__name__ == name
    assert function.__module__ == "asm_libcalls.llvm"
    assert tuple(inspect.signature(function).parameters) == DECLARATIONS[name].parameters
    assert pickle.loads(pickle.dumps(function)) is function
    assert name in dir(llvm)
    assert llvm.LIBCALLS[name].doc in (function.__doc__ or "")


@pytest.mark.parametrize("name", DECLARATIONS)
def test_libcalls_are_pickled_by_name(name):
    libcall = llvm.LIBCALLS[name]
    for each in (libcall, libcall.fallback):
        assert pickle.loads(pickle.dumps(each)) is each
        assert copy.copy(each) is copy.deepcopy(each) is each
    assert libcall.fallback.backend == "fallback"


def test_there_is_nothing_else():
    with pytest.raises(AttributeError, match="no attribute 'divti4'"):
        llvm.divti4  # noqa: B018


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("divti3", (-7, 2), -3),
        ("divti3", (-(2**127), -1), -(2**127)),
        ("divti3", (2**127, 2**128 - 1), -(2**127)),
        ("modti3", (-7, 2), -1),
        ("modti3", (-(2**127), -1), 0),
        ("udivti3", (-1, 1), 2**128 - 1),
        ("udivti3", (2**128 - 1, 3), (2**128 - 1) // 3),
        ("umodti3", (-1, 2**127), 2**127 - 1),
        ("multi3", (2**64, 2**63), -(2**127)),
        ("ashlti3", (1, 127), -(2**127)),
        ("ashrti3", (-(2**127), 127), -1),
        ("lshrti3", (-(2**127), 127), 1),
        ("fixdfti", (-1e30,), int(-1e30)),
        ("fixdfti", (1e300,), 2**127 - 1),
        ("fixdfti", (-1e300,), -(2**127)),
        ("fixdfti", (float("nan"),), 2**127 - 1),
        ("fixunsdfti", (1e300,), 2**128 - 1),
        ("fixunsdfti", (-1.0,), 0),
        ("floattidf", (2**127 - 1,), 2.0**127),
        ("floatuntisf", (2**128 - 1,), float("inf")),
        ("floattihf", (-65519,), -65504.0),
        ("floattihf", (-65520,), float("-inf")),
        ("truncdfhf2", (1.1,), 1.099609375),
        ("truncsfbf2", (1.1,), 1.1015625),
        ("extendhfsf2", (1.1,), 1.099609375),
        ("gnu_f2h_ieee", (1.0,), 0x3C00),
        ("gnu_h2f_ieee", (0xFFFF3C00,), 1.0),
        ("powidf2", (2.0, -3), 0.125),
        ("powisf2", (-3.0, 3), -27.0),
    ],
)
def test_numbers_in_and_out(name, arguments, result, binding):
    assert LlvmBinding(binding).libcalls[name](*arguments) == result
    assert getattr(llvm, name)(*arguments) == result


@pytest.mark.parametrize("name", ["divti3", "modti3", "udivti3", "umodti3"])
def test_division_by_zero_is_a_trap_in_python(name, binding):
    for call in (LlvmBinding(binding).libcalls[name], getattr(llvm, name)):
        with pytest.raises(asm_libcalls.IntegerDivisionByZero):
            call(1, 0)


def test_integers_that_do_not_fit():
    with pytest.raises(OverflowError, match=r"divti3\(\): argument 'divisor' must be in -2\*\*127"):
        llvm.divti3(1, 2**128)
    with pytest.raises(OverflowError, match=r"multi3\(\): argument 'a' must be in"):
        llvm.multi3(-(2**127) - 1, 1)
    with pytest.raises(TypeError, match=r"divti3\(\) takes 2 arguments"):
        llvm.divti3(1)
    with pytest.raises(TypeError, match=r"'dividend' must be an integer \(i128\), got float"):
        llvm.divti3(1.0, 1)


def test_a_second_result_is_stored_in_a_buffer(binding):
    libcalls = LlvmBinding(binding).libcalls
    remainder = bytearray(b"\xff" * 20)
    assert libcalls["udivmodti4"](2**100 + 5, 2**50, remainder) == 2**50
    assert remainder == (5).to_bytes(16, "little") + b"\xff" * 4
    assert libcalls["udivmodti4"](2**100 + 5, 2**50, None) == 2**50
    overflow = ctypes.c_int(7)
    assert libcalls["muloti4"](2**100, 2**27, overflow) == -(2**127)
    assert overflow.value == 1
    assert libcalls["muloti4"](-(2**100), 2**27, overflow) == -(2**127)
    assert overflow.value == 0
    assert libcalls["mulodi4"].call_bits(1 << 63, 1, memoryview(remainder)) == 1 << 63
    assert int.from_bytes(remainder[:4], "little") == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: llvm.muloti4(1, 1, None), TypeError, "'overflow' must be a writable buffer of 4"),
        (lambda: llvm.muloti4(1, 1, 4096), TypeError, "a writable buffer of 4 bytes .*got int"),
        (lambda: llvm.muloti4(1, 1, ctypes.c_void_p()), TypeError, "of 4 bytes .*got c_void_p"),
        (
            lambda: llvm.muloti4(1, 1, ctypes.pointer(ctypes.c_int())),
            TypeError,
            "of 4 bytes .*got LP_c_int",
        ),
        (lambda: llvm.udivmodti4(1, 1, 1), TypeError, "of 16 bytes or None .*got int"),
        (lambda: llvm.udivmodti4(1, 1, bytes(16)), TypeError, "a writable buffer .*got bytes"),
        (lambda: llvm.udivmodti4(1, 1, bytearray(15)), ValueError, "at least 16 bytes, got 15"),
        (
            lambda: llvm.LIBCALLS["muloti4"].call_bits(1, 1, 4096),
            TypeError,
            "a writable buffer of 4 bytes",
        ),
    ],
)
def test_no_address_is_taken_from_python(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_it_is_imported_when_first_used(child):
    child(
        """
        import sys
        import asm_libcalls

        assert not [name for name in sys.modules if name.startswith("asm_libcalls.llvm")]
        assert "llvm" in dir(asm_libcalls)
        assert asm_libcalls.llvm.divti3(7, -2) == -3
        """
    )
