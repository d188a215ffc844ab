"""Half precision over whole blocks of patterns; ``verify --exhaustive`` takes them all."""

from __future__ import annotations

import numpy
import pytest

from asm_libcalls import llvm
from asm_libcalls.binding import default_binding
from asm_libcalls.llvm.checks import exhaustive

pytestmark = pytest.mark.skipif(
    default_binding().x86_64 is None, reason=f"no machine code: {default_binding().x86_64_reason}"
)


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
def test_agrees(name):
    bits = exhaustive.FUNCTIONS[name][1]
    (result,) = exhaustive.verify_exhaustively([name], step=1 if bits == 16 else 61)
    assert result.difference is None
    assert result.patterns >= 1 << 16


@pytest.mark.parametrize("name", exhaustive.FUNCTIONS)
def test_the_oracle_agrees_with_the_fallback(name, random_cases):
    oracle, bits = exhaustive.FUNCTIONS[name]
    patterns = [random_cases.getrandbits(bits) for _ in range(3000)]
    patterns += [0, 1, (1 << bits) - 1, *(1 << i for i in range(bits))]
    wanted = [llvm.LIBCALLS[name].fallback.call_bits(pattern) for pattern in patterns]
    assert oracle(numpy.array(patterns, dtype=numpy.uint32)).tolist() == wanted


def test_sees_one_wrong_bit(monkeypatch):
    oracle, bits = exhaustive.FUNCTIONS["extendhfsf2"]

    def wrong(patterns):
        result = oracle(patterns)
        result[patterns == 0x7C01] ^= 1
        return result

    monkeypatch.setitem(exhaustive.FUNCTIONS, "extendhfsf2", (wrong, bits))
    (result,) = exhaustive.verify_exhaustively(["extendhfsf2"])
    assert result.difference is not None
    assert result.difference.pattern == 0x7C01
    assert result.difference.got ^ result.difference.wanted == 1


@pytest.mark.parametrize("name", ["extendhfsf2", "gnu_h2f_ieee", "extendbfsf2"])
def test_python_takes_every_pattern(name):
    libcall = llvm.LIBCALLS[name]
    served, fallback = libcall.call_bits, libcall.fallback.call_bits
    assert [p for p in range(1 << 16) if served(p) != fallback(p)] == []
