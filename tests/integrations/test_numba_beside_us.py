"""numba and LLVM's libcalls in one process: neither changes what the other computes.

numba's code calls compiler-rt too: LLVM makes ``llvm.powi`` of ``x ** n`` in fast-math code, and
intrinsics may use i128 and half. The same program runs with libgcc's functions and without us, and
with ours, imported before numba or after it has compiled. It runs with code that it compiles, and
with code from numba's cache, which a process of another kind compiled.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from child_process import run_python

import asm_libcalls

pytest.importorskip("numba", reason="numba is not installed (the extra `integrations`)")
pytestmark = pytest.mark.skipif(
    asm_libcalls.LIBCALLS["i64_sdiv"].backend != "x86_64", reason="ctypes alone has no 128 bits"
)

PROGRAM = '''
import json, re, struct, sys

order = sys.argv[1]
if "ours" not in order:
    sys.modules["asm_libcalls"] = None  # numba's entry point would import us

def add_ours():
    from asm_libcalls.integrations import llvmlite
    return llvmlite.add_symbols()

if order == "ours, then numba":
    add_ours()

import llvmlite.binding
import llvmlite.ir as ir
import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

if order == "numba, then ours":  # if we are installed, numba imports us when it first compiles
    assert "asm_libcalls" not in sys.modules

if "libgcc" in order:
    llvmlite.binding.load_library_permanently("libgcc_s.so.1")

SYMBOLS = ("__divti3", "__umodti3", "__truncdfhf2", "__extendhfsf2", "__fixdfti", "__powidf2",
           "__powisf2")
before = {name: llvmlite.binding.address_of_symbol(name) for name in SYMBOLS}

@intrinsic
def quotient(typing, a, b):
    """The low half of (a * 2**64 + 12345) / b."""
    def generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        a, b = (builder.sext(x, wide) for x in arguments)
        dividend = builder.add(builder.shl(a, wide(64)), wide(12345))
        return builder.trunc(builder.sdiv(dividend, b), ir.IntType(64))
    return types.int64(types.int64, types.int64), generate

@intrinsic
def unsigned_remainder(typing, a, b):
    def generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        a, b = (builder.zext(x, wide) for x in arguments)
        return builder.trunc(builder.urem(builder.mul(a, a), b), ir.IntType(64))
    return types.uint64(types.uint64, types.uint64), generate

@intrinsic
def through_half(typing, x):
    def generate(context, builder, signature, arguments):
        half = builder.fptrunc(arguments[0], ir.HalfType())
        return builder.fpext(half, ir.DoubleType())
    return types.float64(types.float64), generate

@intrinsic
def high_half(typing, x):
    """The upper 64 bits of a double as an i128."""
    def generate(context, builder, signature, arguments):
        wide = ir.IntType(128)
        number = builder.fptosi(arguments[0], wide)
        return builder.trunc(builder.ashr(number, wide(64)), ir.IntType(64))
    return types.int64(types.float64), generate

@intrinsic
def power_of_float(typing, x, n):
    def generate(context, builder, signature, arguments):
        f32, i32 = ir.FloatType(), ir.IntType(32)
        type_ = ir.FunctionType(f32, [f32, i32])
        powi = builder.module.declare_intrinsic("llvm.powi.f32.i32", fnty=type_)
        return builder.call(powi, arguments)
    return types.float32(types.float32, types.int32), generate

@numba.njit(["float64(float64, int64)", "int64(int64, int64)"], cache=True)
def plain(x, n):
    total = x * 0
    for i in range(n):
        total += x ** i // 3 + x % 7
    return total

if "ours" in order:
    added = add_ours()

# All below calls compiler-rt, and is compiled when it is defined.

@numba.njit("int64(int64, int64)", cache=True)
def divide(a, b):
    return quotient(a, b)

@numba.njit("uint64(uint64, uint64)", cache=True)
def remainder(a, b):
    return unsigned_remainder(a, b)

@numba.njit("float64(float64)", cache=True)
def halve(x):
    return through_half(x)

@numba.njit("int64(float64)", cache=True)
def upper(x):
    return high_half(x)

@numba.njit("float64(float64, int32)", cache=True, fastmath=True)
def power(x, n):
    return x ** n

@numba.njit("float32(float32, int32)", cache=True)
def power32(x, n):
    return power_of_float(x, n)

FUNCTIONS = (divide, remainder, halve, upper, power, power32, plain)
integers = [0, 1, -1, 7, 2**31, -(2**62), 2**63 - 1, -(2**63), 0x123456789ABCDEF]
doubles = [0.0, -0.0, 1.0, 1.1, -65519.9, 65520.0, 1 + 2.0**-11, 6e-8, 2.0**100, -1e30, 1e-320]
results = {
    "divide": [divide(a, b) for a in integers for b in integers if b],
    "remainder": [int(remainder(a % 2**64, b % 2**64)) for a in integers for b in integers if b],
    "halve": [halve(x).hex() for x in doubles],
    "upper": [upper(x) for x in doubles],
    "power": [
        float(call(x, np.int32(n))).hex()
        for call in (power, power32)
        for x in (1.5, -0.75, 1e10, -1.0000001)
        for n in (0, 1, 2, 3, -1, -5, 13, 100)
    ],
    "plain": [plain(2.5, 9).hex(), plain(-3, 11)],
}
code = {}
if not any(f.stats.cache_hits for f in FUNCTIONS):  # numba has no text of cached code
    for f in FUNCTIONS:
        for number, text in enumerate(f.inspect_asm().values()):
            # Names and numbers of the process: addresses, and counters in mangled names.
            text = re.sub(r"_ZN[\\w$.]+|\\b0x[0-9a-f]+|\\b\\d{9,}|\\.L\\w+", "X", text)
            code[f"{f.py_func.__name__} {number}"] = text
after = {name: llvmlite.binding.address_of_symbol(name) for name in SYMBOLS}
print(json.dumps({
    "results": results,
    "code": code,
    "hits": sum(sum(f.stats.cache_hits.values()) for f in FUNCTIONS),
    "misses": sum(sum(f.stats.cache_misses.values()) for f in FUNCTIONS),
    "before": before,
    "after": after,
    "ours": sorted(added) if "ours" in order else None,
}))
'''
WITHOUT_US = "libgcc alone"
ORDERS = ("ours, then numba", "numba, then ours", "libgcc, then ours")
COMPILED = 8
"""Functions of the program, each signature counted."""


def run(program: Path, order: str, cache: Path, status: int = 0):
    # Code for the first x86-64 CPUs: with F16C, LLVM widens a half without a call.
    variables = {
        "NUMBA_CACHE_DIR": str(cache), "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""
    }  # fmt: skip
    done = run_python(
        program, order, folder=program.parent, variables=variables, exit_status=status, timeout=600
    )
    return json.loads(done.stdout) if status == 0 else done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("numba") / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def without_us(program):
    """The program's report, and the folder of its cache."""
    cache = program.parent / "without-us"
    report = run(program, WITHOUT_US, cache)
    assert (report["hits"], report["misses"]) == (0, COMPILED)
    assert report["ours"] is None
    return report, cache


@pytest.mark.parametrize("order", ORDERS)
def test_code_and_results_are_the_same_with_and_without_us(order, program, without_us, tmp_path):
    theirs, their_cache = without_us
    ours = run(program, order, tmp_path)
    assert ours["misses"] == COMPILED
    assert ours["results"] == theirs["results"]
    assert len(ours["code"]) == COMPILED
    assert ours["code"] == theirs["code"]
    calls = "".join(ours["code"].values())
    for symbol in ours["after"]:
        assert symbol in calls, symbol
    # Our process with code from one without us, and the other way round.
    cached = run(program, order, their_cache)
    assert (cached["hits"], cached["misses"]) == (COMPILED, 0)
    assert cached["results"] == theirs["results"]
    cached = run(program, WITHOUT_US, tmp_path)
    assert (cached["hits"], cached["misses"]) == (COMPILED, 0)
    assert cached["results"] == theirs["results"]
    if "libgcc" in order:  # it was there first
        assert ours["before"] == ours["after"]
        assert not set(ours["after"]) & set(ours["ours"])
    else:
        assert set(ours["after"]) <= set(ours["ours"])


def test_without_us_and_libgcc_the_same_code_ends_the_process(program, tmp_path):
    found = run(program, "neither", tmp_path, status=-signal.SIGABRT)
    assert "Symbol not found: __" in found


@pytest.mark.parametrize("with_us", [False, True])
def test_a_power_in_numba_s_own_code(with_us, child):
    """No intrinsic, and code for this CPU: LLVM makes ``llvm.powi`` of it by itself."""
    done = child(
        f"""
        import resource, sys
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if {with_us}:
            from asm_libcalls.integrations import llvmlite
            llvmlite.add_symbols()
        import numba

        power = numba.njit("float64(float64, int32)", fastmath=True)(lambda x, n: x**n)
        print(power(1.5, 7), power(1.5, -2), flush=True)
        """,
        exit_status=0 if with_us else -signal.SIGABRT,
    )
    if with_us:
        assert done.stdout == f"{1.5**7} {1 / 1.5**2}\n"
    else:
        assert "Symbol not found: __powidf2" in done.stderr
