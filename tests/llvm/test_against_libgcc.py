"""libgcc's own functions on the same patterns, where it has them and agrees with compiler-rt.

Out of range the two differ, and compiler-rt decides: such cases are left out here. So are NaNs,
whose payload and sign libgcc chooses otherwise.
"""

from __future__ import annotations

import ctypes
from itertools import islice

import pytest

from asm_libcalls import llvm
from asm_libcalls.checks.engine import checker_of
from asm_libcalls.checks.float_formats import FORMATS
from asm_libcalls.llvm.checks.nearest import value_of
from asm_libcalls.llvm.libcalls import DECLARATIONS
from asm_libcalls.native.catch_traps import catch_traps

try:
    LIBGCC = ctypes.CDLL("libgcc_s.so.1")
except OSError:
    LIBGCC = None

NAMES = [name for name, row in DECLARATIONS.items() if hasattr(LIBGCC, row.symbol)]

pytestmark = [
    pytest.mark.skipif(LIBGCC is None, reason="no libgcc"),
    pytest.mark.skipif(
        llvm.LIBCALLS["divti3"].backend != "x86_64", reason="ctypes alone has no 128 bits"
    ),
]


def is_defined(name, case) -> bool:
    """Return whether both libraries promise the same."""
    libcall = llvm.LIBCALLS[name]
    if libcall.declaration.traps:
        return case[1] != 0
    parameter, result = libcall.signature.parameters[0], libcall.signature.result
    if libcall.declaration.family == "shifts":
        return case[1] < 128
    if parameter.name not in FORMATS:
        return True
    if FORMATS[parameter.name].is_nan(case[0]):
        return False
    if not name.startswith("fix"):
        return True
    lowest, highest = (-(2**127), 2**127) if result.signed else (-1, 2**128)
    value = value_of(parameter.name, case[0])
    if parameter.name == "f16" and abs(value) == 65536:  # infinity
        return False
    return lowest < value < highest


@pytest.mark.parametrize("name", NAMES or ["divti3"])
def test_agrees_with_libgcc(name, random_cases):
    libcall = llvm.LIBCALLS[name]
    address = ctypes.cast(getattr(LIBGCC, f"__{name}"), ctypes.c_void_p).value
    theirs = catch_traps(address, libcall.signature).call_bits
    ours = catch_traps(libcall.address, libcall.signature).call_bits
    buffers = [ctypes.create_string_buffer(16) for _ in range(2)]
    checker = checker_of(libcall)
    cases = [
        *checker.edge_cases(libcall),
        *islice(checker.random_cases(libcall, random_cases), 800),
    ]
    compared = 0
    for case in filter(lambda case: is_defined(name, case), cases):
        if name == "udivmodti4":
            results = [
                (call(*case, ctypes.addressof(buffer)), buffer.raw)
                for call, buffer in zip((ours, theirs), buffers, strict=True)
            ]
        else:
            results = [ours(*case), theirs(*case)]
        assert results[0] == results[1], [hex(pattern) for pattern in case]
        compared += 1
    assert compared > 400


def test_libgcc_has_most_of_them():
    assert len(NAMES) >= 26
    assert set(DECLARATIONS) - set(NAMES) >= {"muloti4", "gnu_f2h_ieee"}
