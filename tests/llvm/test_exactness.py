"""Each libcall of the second table against the others: served, by hand, in Python, and the oracle.

What CPUs with fewer features run is assembled too, and run on this one.
"""

import ctypes
from itertools import islice

import pytest
from llvm_routines import load_for

from asm_libcalls import llvm
from asm_libcalls.checks.engine import checker_of, observe, verify
from asm_libcalls.llvm.binding import LlvmBinding
from asm_libcalls.llvm.libcalls import DECLARATIONS
from asm_libcalls.native.catch_traps import catch_traps

FEATURES = {
    "every CPU": frozenset(),
    "AVX": frozenset({"avx"}),
    "BMI2": frozenset({"bmi2", "lzcnt"}),
    "x86-64-v3": frozenset({"avx", "bmi", "bmi2", "f16c", "lzcnt"}),
    "x86-64-v4": frozenset({"avx", "avx512f", "bmi", "bmi2", "f16c", "lzcnt"}),
}


@pytest.mark.parametrize("name", DECLARATIONS)
def test_all_implementations_agree(name, binding, random_cases):
    libcall = LlvmBinding(binding).libcalls[name]
    verdict = verify(libcall, 500, random_cases.getrandbits(32))
    assert verdict.passed, "\n".join(verdict.difference.lines() if verdict.difference else ())
    assert verdict.cases > 500
    assert set(verdict.compared) >= {"fallback", "oracle"}


@pytest.fixture(scope="module", params=FEATURES)
def routines(request, load_routines, machine_code):
    missing = FEATURES[request.param] - machine_code.cpu.features
    if missing:
        pytest.skip(f"the CPU lacks {', '.join(sorted(missing))}")
    return load_for(load_routines, FEATURES[request.param])


@pytest.mark.parametrize("name", DECLARATIONS)
def test_other_cpus_do_the_same(name, routines, random_cases):
    libcall = llvm.LIBCALLS[name]
    call = catch_traps(routines.routine(f"__{name}"), libcall.signature).call_bits
    checker = checker_of(libcall)
    size = 16 if libcall.signature.parameters[-1].kind == "pointer" else 0
    ours, theirs = (ctypes.create_string_buffer(size + 1) for _ in range(2))
    cases = [
        *checker.edge_cases(libcall),
        *islice(checker.random_cases(libcall, random_cases), 500),
    ]
    for case in cases:
        if size:
            got = observe(call, *case, ctypes.addressof(ours))
            expected = observe(libcall.fallback.call_bits, *case, theirs)
            assert ours.raw == theirs.raw, case
        else:
            got = observe(call, *case)
            expected = observe(libcall.fallback.call_bits, *case)
        assert got == expected, [hex(pattern) for pattern in case]
